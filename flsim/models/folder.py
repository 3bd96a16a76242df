"""A checkpoint's tokenizer, and that of the built-in models; errors in its files are errors of the setting.

The tokenizer of the built-in models knows keyword pieces and single characters: `'ab'[::-1]=` becomes
`' a b ' [::-1] =`. The question mark is the whole help request, one token, and ends a response just as `<eos>` does.
"""

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from flsim.models.hub import BUILTIN_DIR
from flsim.models.hub import folder_of as folder_of
from flsim.models.hub import loading as loading
from flsim.models.hub import saved_in as saved_in
from flsim.models.hub import sha256_of as sha256_of
from flsim.models.hub import sketch as sketch
from flsim.problems.families import KEYWORDS, LETTERS

SLM_DIR = BUILTIN_DIR / "slm"  # 0.4 M parameters
SLM_DRAFT_DIR = BUILTIN_DIR / "slm_draft"  # 0.4 M
CLOUD_DIR = BUILTIN_DIR / "cloud"  # 1.3 M
PAD, EOS, HELP = "<pad>", "<eos>", "?"
_CHARACTERS = "0123456789+-*%/=,()'[]" + LETTERS
_PIECES = [PAD, EOS, HELP, *_CHARACTERS, *KEYWORDS]  # all tokens of the built-in models


def tokenizer_of(path: str, key: str = "model.path") -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint.

    Raises:
        ConfigError: if there is no checkpoint, or its tokenizer cannot be loaded.
    """
    folder = folder_of(path, key)
    with loading(path, key):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    return tokenizer


def is_built_in(vocabulary: Iterable[str]) -> bool:
    """Whether a vocabulary is that of the built-in models, whose `?` is the help request and no question mark."""
    return set(vocabulary) == set(_PIECES)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer that the shipped checkpoints were pretrained with (saved beside each of them)."""
    core = Tokenizer(WordLevel({piece: i for i, piece in enumerate(_PIECES)}, unk_token=PAD))
    escaped = "|".join(_escape(keyword) for keyword in KEYWORDS)
    core.pre_tokenizer = pre_tokenizers.Split(Regex(f"{escaped}|."), behavior="isolated")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token=PAD, eos_token=EOS, padding_side="left")


def _escape(text: str) -> str:
    return "".join(f"\\{c}" if not c.isalnum() else c for c in text)
