"""Where a checkpoint lies: built in, a folder, or a name at the hub of Hugging Face, in its cache or to be fetched.

The tokenizer of the two built-in models knows keyword pieces and single characters: `'ab'[::-1]=` becomes
`' a b ' [::-1] =`. The question mark is the whole help request, one token, and ends a response just as `<eos>` does.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from flsim.config.schema import ConfigError
from flsim.problems.families import KEYWORDS, LETTERS

BUILTIN_DIR = Path(__file__).parent / "builtin"
SLM_DIR = BUILTIN_DIR / "slm"  # 0.4 M parameters
CLOUD_DIR = BUILTIN_DIR / "cloud"  # 1.3 M
PAD, EOS, HELP = "<pad>", "<eos>", "?"
_CHARACTERS = "0123456789+-*%/=,()'[]" + LETTERS
_PIECES = [PAD, EOS, HELP, *_CHARACTERS, *KEYWORDS]  # all tokens of the built-in models
_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_WORDS = ["*.json", "*.jinja", "*.model", "*.txt", "tokenizer*"]
_SAYING = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
_BLOCK = 4096  # bytes
_WEIGHTS, _OLD_WEIGHTS = "*.safetensors", "pytorch_model*.bin"


def folder_of(path: str, key: str = "model.path") -> Path:
    """The checkpoint folder that a setting means.

    Args:
        path: `builtin:slm` or `builtin:cloud`, a folder, or a name at the hub, `owner/name` or `owner/name@revision`.
        key: the setting that it comes from, for errors.

    Raises:
        ConfigError: if it holds no checkpoint, or the hub does not give it.
    """
    folder = BUILTIN_DIR / path.removeprefix("builtin:") if path.startswith("builtin:") else Path(path)
    if (folder / "config.json").is_file():
        return folder
    if not folder.exists() and _NAME.fullmatch(path):
        return _from_hub(path, key)
    built_in = ", ".join(f"builtin:{child.name}" for child in sorted(BUILTIN_DIR.iterdir()))
    raise ConfigError(f"{key}={path!r}: {folder} holds no checkpoint (config.json); built in are: {built_in}")


def sketch(path: str, key: str = "model.path") -> str:
    """A cheap SHA-256 of a checkpoint: names and sizes of the files that say what it answers, and 64 blocks of each.

    It tells one checkpoint from another, and not one flipped bit. Arguments and errors are those of `folder_of`.
    """
    folder, found = folder_of(path, key), hashlib.sha256()
    for file in sorted({one for pattern in (*_SAYING, _WEIGHTS, _OLD_WEIGHTS) for one in folder.glob(pattern)}):
        size = file.stat().st_size
        found.update(f"{file.name} {size} ".encode())
        with file.open("rb") as opened:
            for place in sorted({max(0, size - _BLOCK) * part // 63 for part in range(64)}):
                opened.seek(place)
                found.update(opened.read(_BLOCK))
    return found.hexdigest()


@contextmanager
def loading(path: str, key: str = "model.path") -> Iterator[None]:
    """Around what reads a checkpoint: whatever its files make transformers raise is an error of the setting.

    Raises:
        ConfigError: naming the setting and the reason.
    """
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:  # of any kind: a damaged file is met by many readers, none of which declares its errors
        reason = next(iter(str(error).strip().splitlines()), "it gives no reason")
        raise ConfigError(
            f"{key}={path!r} cannot be loaded as a decoder-only model: {type(error).__name__}: {reason}"
        ) from error


def tokenizer_of(path: str, key: str = "model.path") -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint.

    Raises:
        ConfigError: if there is no checkpoint, or its tokenizer cannot be loaded.
    """
    folder = folder_of(path, key)
    with loading(path, key):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    return tokenizer


def _from_hub(name: str, key: str) -> Path:
    """The snapshot in the cache if it is whole, so that a run needs no network for what it has; else it is fetched."""
    repository, _, revision = name.partition("@")
    try:
        kept = Path(snapshot_download(repository, revision=revision or None, local_files_only=True))
        if _is_whole(kept):
            return kept
    except LocalEntryNotFoundError:
        pass
    try:
        for weights in (_WEIGHTS, _OLD_WEIGHTS):  # the old format only where there is no other
            patterns = [*_WORDS, weights]
            fetched = Path(snapshot_download(repository, revision=revision or None, allow_patterns=patterns))
            if _is_whole(fetched):
                return fetched
    except (HfHubHTTPError, OSError) as error:  # also where the hub is out of reach or said to be
        raise ConfigError(
            f"{key}={name!r} is no folder, the hub's cache does not hold it whole, and fetching it failed: "
            f"{str(error).splitlines()[0]}; check the name, log in with `hf auth login` if it is gated, unset "
            f"HF_HUB_OFFLINE, or give a checkpoint's folder"
        ) from error
    raise ConfigError(f"{key}={name!r}: the hub's repository holds no config.json with {_WEIGHTS} or {_OLD_WEIGHTS}")


def _is_whole(folder: Path) -> bool:
    """Whether a snapshot has a config, and all parts of its weights as far as their index says."""
    files = {file.name for file in folder.iterdir()}
    parts = {
        part
        for index in folder.glob("*.index.json")
        for part in re.findall(r'"([^"]+\.(?:safetensors|bin))"', index.read_text())
        if index.name.startswith(("model.", "pytorch_model."))
    }
    weights = any(file.endswith((".safetensors", ".bin")) for file in files)
    return "config.json" in files and weights and (parts <= files or "model.safetensors" in files)


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
