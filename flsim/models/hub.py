"""Where a checkpoint lies: built in, a folder, a GGUF file, or a name at the hub of Hugging Face, kept or fetched.

Nothing heavy is imported here, so that a path that is none can be told at once.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flsim.config.given import shown
from flsim.config.schema import ConfigError
from flsim.files import UnwritableError, sketch_of
from flsim.models.gguf import digest, folder_from, gguf_file

BUILTIN_DIR = Path(__file__).parent / "builtin"
BUILTIN = "builtin:"
"""What a setting begins with that names a built-in model."""
_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_WORDS = ["*.json", "*.jinja", "*.model", "*.txt", "tokenizer*"]
_SAYING = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
_BLOCK = 2**24  # bytes that are hashed at a time
_LONGEST = 300  # letters of a reason: transformers lists every model that it knows
_WEIGHTS, _OLD_WEIGHTS = "*.safetensors", "pytorch_model*.bin"


@contextmanager
def loading(path: str, key: str = "model.path") -> Iterator[None]:
    """Around what reads a checkpoint: whatever its files make transformers raise is an error of the setting.

    Raises:
        ConfigError: naming the setting and the reason.
    """
    try:
        yield
    except (ConfigError, UnwritableError):
        raise
    except Exception as error:  # of any kind: a damaged file is met by many readers, none of which declares its errors
        reason = next(iter(str(error).strip().splitlines()), "it gives no reason")
        reason = reason if len(reason) <= _LONGEST else f"{reason[:_LONGEST].rpartition(' ')[0]} ..."
        raise ConfigError(
            f"{key}={path!r} cannot be loaded as a decoder-only model: {type(error).__name__}: {reason}"
        ) from error


def folder_of(path: str, key: str = "model.path") -> Path:
    """The checkpoint folder that a setting means; of a GGUF file the one that is made of it.

    Args:
        path: `builtin:` and a name, such as `builtin:slm`; a folder; a GGUF file, or `package:NAME` for that of an
            installed package; or a name at the hub, `owner/name` or `owner/name@revision`.
        key: the setting that it comes from, for errors.

    Raises:
        ConfigError: if it holds no checkpoint, or the hub does not give it.
        UnwritableError: if the cache cannot take the folder that is made of a GGUF file.
    """
    file = gguf_file(path, key)
    if file is not None:
        with loading(path, key):
            return folder_from(file, path, key)
    folder = _local_folder(path, key)
    return _from_hub(path, key) if folder is None else folder


def look_for(path: str, key: str = "model.path") -> None:
    """Refuse what can be no checkpoint, as far as that can be told at once, without asking the hub.

    Raises:
        ConfigError: if it holds no checkpoint and can be no name.
    """
    if gguf_file(path, key) is None:
        _local_folder(path, key)


def sketch(path: str, key: str = "model.path") -> str:
    """A cheap SHA-256 of a checkpoint: names and sizes of the files that say what it answers, and 64 blocks of each.

    It tells one checkpoint from another, and not one flipped bit. Of a GGUF file it is that of the file, whichever
    version of transformers unpacks it. Arguments and errors are those of `folder_of`.
    """
    file = gguf_file(path, key)
    if file is not None:
        return digest(file)
    folder = folder_of(path, key)
    return sketch_of(one for pattern in (*_SAYING, _WEIGHTS, _OLD_WEIGHTS) for one in folder.glob(pattern))


def sha256_of(path: str, key: str = "model.path") -> str:
    """The SHA-256 of all files of a checkpoint; of a GGUF file that of the file. Arguments are those of `folder_of`."""
    file = gguf_file(path, key)
    if file is not None:
        return digest(file)
    found = hashlib.sha256()
    for one in sorted(one for one in folder_of(path, key).glob("*") if one.is_file()):
        with one.open("rb") as data:
            while block := data.read(_BLOCK):
                found.update(block)
    return found.hexdigest()


def layers_of(path: str, key: str = "model.path") -> list[str]:
    """The names of a built-in model's layers, from the head of its weights' file.

    Raises:
        ConfigError: if there is no such model, or it cannot be read.
    """
    with loading(path, key), (folder_of(path, key) / "model.safetensors").open("rb") as file:
        head = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return [name.removesuffix(".weight") for name in head if name.endswith(".weight")]


def saved_in(path: str, key: str = "model.path") -> str | None:
    """The dtype that a checkpoint's weights were saved in, by its config; None if that does not say so."""
    with loading(path, key):
        said = json.loads((folder_of(path, key) / "config.json").read_text())
    found = said.get("dtype", said.get("torch_dtype"))
    return None if found is None else str(found)


def _local_folder(path: str, key: str) -> Path | None:
    """The folder that is named; None for what may be a name at the hub."""
    folder = BUILTIN_DIR / path.removeprefix(BUILTIN) if path.startswith(BUILTIN) else Path(path)
    if os.path.isfile(folder / "config.json"):
        return folder
    if not os.path.exists(folder) and _NAME.fullmatch(path):
        return None
    packed = sorted(folder.glob("*.gguf")) if os.path.isdir(folder) else []
    if packed:
        raise ConfigError(f"{key}={shown(path)} holds no config.json but a GGUF file; give that: {key}={packed[0]}")
    built_in = ", ".join(f"{BUILTIN}{child.name}" for child in sorted(BUILTIN_DIR.iterdir()))
    raise ConfigError(f"{key}={shown(path)} holds no checkpoint (config.json); built in are: {built_in}")


def _from_hub(name: str, key: str) -> Path:
    """The snapshot in the cache if it is whole, so that a run needs no network for what it has; else it is fetched."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

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
