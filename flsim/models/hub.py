"""Where a checkpoint lies: built in, a folder, or a name at the hub of Hugging Face, in its cache or to be fetched.

Nothing heavy is imported here, so that a path that is none can be told at once.
"""

import hashlib
import os
import re
from pathlib import Path

from flsim.config.given import shown
from flsim.config.schema import ConfigError

BUILTIN_DIR = Path(__file__).parent / "builtin"
_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_WORDS = ["*.json", "*.jinja", "*.model", "*.txt", "tokenizer*"]
_SAYING = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
_BLOCK = 4096  # bytes
_WEIGHTS, _OLD_WEIGHTS = "*.safetensors", "pytorch_model*.bin"


def folder_of(path: str, key: str = "model.path") -> Path:
    """The checkpoint folder that a setting means.

    Args:
        path: `builtin:` and a name, such as `builtin:slm`, a folder, or a name at the hub, `owner/name` or
            `owner/name@revision`.
        key: the setting that it comes from, for errors.

    Raises:
        ConfigError: if it holds no checkpoint, or the hub does not give it.
    """
    folder = local_folder(path, key)
    return _from_hub(path, key) if folder is None else folder


def local_folder(path: str, key: str = "model.path") -> Path | None:
    """The same without asking the hub: None for what may be a name there.

    Raises:
        ConfigError: if it holds no checkpoint and can be no name.
    """
    folder = BUILTIN_DIR / path.removeprefix("builtin:") if path.startswith("builtin:") else Path(path)
    if os.path.isfile(folder / "config.json"):
        return folder
    if not os.path.exists(folder) and _NAME.fullmatch(path):
        return None
    built_in = ", ".join(f"builtin:{child.name}" for child in sorted(BUILTIN_DIR.iterdir()))
    raise ConfigError(f"{key}={shown(path)} holds no checkpoint (config.json); built in are: {built_in}")


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
