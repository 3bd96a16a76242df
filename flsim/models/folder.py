"""A checkpoint's tokenizer, and that of the built-in models anew; errors in its files are errors of the setting.

transformers is imported where a checkpoint of somebody else is read, and not before: it takes seconds.
"""

from typing import TYPE_CHECKING

from flsim.models.builtin_llama import AnyConfig, LlamaSizes
from flsim.models.builtin_tokenizer import EOS as EOS
from flsim.models.builtin_tokenizer import HELP as HELP
from flsim.models.builtin_tokenizer import PAD, PIECES, BuiltinTokenizer
from flsim.models.builtin_tokenizer import AnyTokenizer as AnyTokenizer
from flsim.models.builtin_tokenizer import is_built_in as is_built_in
from flsim.models.hub import BUILTIN, BUILTIN_DIR
from flsim.models.hub import folder_of as folder_of
from flsim.models.hub import loading as loading
from flsim.models.hub import saved_in as saved_in
from flsim.models.hub import sha256_of as sha256_of
from flsim.models.hub import sketch as sketch
from flsim.problems.families import KEYWORDS

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

SLM_DIR = BUILTIN_DIR / "slm"  # 0.4 M parameters
SLM_DRAFT_DIR = BUILTIN_DIR / "slm_draft"  # 0.4 M
CLOUD_DIR = BUILTIN_DIR / "cloud"  # 1.3 M


def tokenizer_of(path: str, key: str = "model.path") -> AnyTokenizer:
    """The tokenizer of a checkpoint.

    Raises:
        ConfigError: if there is no checkpoint, or its tokenizer cannot be loaded.
    """
    folder = folder_of(path, key)
    with loading(path, key):
        if path.startswith(BUILTIN):
            return BuiltinTokenizer(folder)
        from transformers import AutoTokenizer

        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    return tokenizer


def config_of(path: str, key: str = "model.path") -> AnyConfig:
    """What the `config.json` of a checkpoint says.

    Raises:
        ConfigError: if there is no checkpoint, or its config cannot be read.
    """
    folder = folder_of(path, key)
    with loading(path, key):
        if path.startswith(BUILTIN):
            return LlamaSizes.read(folder)
        from transformers import AutoConfig

        config: PretrainedConfig = AutoConfig.from_pretrained(folder)
    return config


def build_tokenizer() -> "PreTrainedTokenizerFast":
    """The tokenizer that the shipped checkpoints were pretrained with (saved beside each of them)."""
    from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(WordLevel({piece: i for i, piece in enumerate(PIECES)}, unk_token=PAD))
    escaped = "|".join(_escape(keyword) for keyword in KEYWORDS)
    core.pre_tokenizer = pre_tokenizers.Split(Regex(f"{escaped}|."), behavior="isolated")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token=PAD, eos_token=EOS, padding_side="left")


def _escape(text: str) -> str:
    return "".join(f"\\{c}" if not c.isalnum() else c for c in text)
