"""What came of a large data set, kept on this machine: one process reads and deals it, all others map the file.

The file lies in the user's cache folder, under a hash of the settings, the bytes of the data set's files and the code
that reads them, so that one which fits is never out of date. It is written beside its place and renamed, and made anew
if it is not whole. Small sets, and those of which it cannot be said which files they read, are read each time.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from filelock import FileLock
from numpy.typing import NDArray

from flsim.config.schema import ConfigError, DataConfig
from flsim.files import cache_folder, flush, remove_parts
from flsim.tasks.data_file import DataFile
from flsim.tasks.dealing import Dealt, dealt, refuse_unusable
from flsim.tasks.item_table import read_table, write_table
from flsim.tasks.known_set import KnownSet, located
from flsim.tasks.load import READERS, reader_of
from flsim.tasks.partition import Assignment, numbered_devices

LEAST = 4 * 2**20
"""Bytes of files from which on it is kept; less is read in a second."""
MOST = 8 * 2**30
"""Bytes of all that is kept; beyond, what was not used for longest goes."""
_FORMAT = 1


def kept(config: DataConfig, devices: int, seed: int, needs: Sequence[str]) -> Dealt:
    """What `dealt` gives, from the cache where it is there.

    Args:
        config: of the set.
        devices: of the fleet.
        seed: of the partition.
        needs: splits that every device must have an item of.

    Raises:
        ConfigError: as `dealt`.
    """
    files = _files(config)
    if files is None or sum(file.path.stat().st_size for own in files.values() for file in own) < LEAST:
        return dealt(config, devices, seed, needs)
    folder = cache_folder() / "data"
    path = folder / f"{config.kind}-{_key(config, files, devices, seed, needs)}.arrow"
    found = _read(path)
    if found is None:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with FileLock(folder / ".lock"):
                found = _read(path) or _made(path, config, devices, seed, needs)
        except OSError:  # no cache then: whatever was made is the same
            return dealt(config, devices, seed, needs)
    refuse_unusable(found.judge)
    return found


def _made(path: Path, config: DataConfig, devices: int, seed: int, needs: Sequence[str]) -> Dealt:
    found = dealt(config, devices, seed, needs)
    if not found.items.can_be_written:
        return found
    found = replace(found, fingerprint=found.fingerprinted())
    assignment = found.assignment
    said = {
        "names": assignment.names if config.keep_user_ids else None,
        "devices": devices,
        **{name: getattr(found, name) for name in ("judge", "score_words", "told", "fingerprint")},
    }
    remove_parts(path.parent)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        more: dict[str, NDArray[Any]] = {"device": assignment.device, "dealt_split": assignment.split}
        write_table(part, found.items, more, json.dumps(said))
        flush([part], "a data set")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    _make_room(path)
    return _read(path) or found  # mapped, so that what was made can be forgotten


def _read(path: Path) -> Dealt | None:
    """What is kept there; None if there is nothing, or it is not whole."""
    try:
        items, more, text = read_table(path)
        os.utime(path)
        said = json.loads(text)
        names = tuple(said["names"]) if said["names"] else numbered_devices(said["devices"])
        assignment = Assignment(more["device"], more["dealt_split"], names)
        words, told = tuple(said["score_words"]), tuple(said["told"])
        return Dealt(items, assignment, said["judge"], words, told, said["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _make_room(newest: Path) -> None:
    """Delete what was not used for longest, until the rest is small enough; who has a file open keeps it."""
    with suppress(OSError):
        others = [path for path in newest.parent.glob("*.arrow") if path != newest]
        room = MOST - newest.stat().st_size
        for path in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True):
            room -= path.stat().st_size
            if room < 0:
                path.unlink()


def _files(config: DataConfig) -> Mapping[str, tuple[DataFile, ...]] | None:
    """The files that a set reads; None if that cannot be said, or something of it is code of one's own."""
    own = ":" in config.partition or ":" in (config.verifier or "")
    if own or config.reader is not None or config.kind not in READERS:
        return None
    reader, root, settings = reader_of(config.kind), Path(config.root), config.settings
    try:
        if isinstance(reader, KnownSet):
            named = settings.get("files")
            return None if "hub" in settings else located(reader, root, named, encoding=config.encoding)
        return None if reader.files is None else reader.files(root, settings.get("files"), config.encoding)
    except (ConfigError, TypeError, AttributeError, OSError):  # whoever reads it says what is wrong
        return None


def _key(
    config: DataConfig, files: Mapping[str, Sequence[DataFile]], devices: int, seed: int, needs: Sequence[str]
) -> str:
    settings: dict[str, Any] = {name: value for name, value in asdict(config).items() if name != "instruction"}
    bytes_of = {part: [(str(file), _digest(file)) for file in own] for part, own in files.items()}
    whole = [_FORMAT, np.__version__, pa.__version__, _code(), settings, bytes_of, devices, seed, list(needs)]
    return hashlib.sha256(json.dumps(whole, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _digest(file: DataFile) -> str:
    found = file.path.stat()
    return _digest_of(file.path, found.st_size, found.st_mtime_ns)


@cache
def _digest_of(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


@cache
def _code() -> str:
    """Of the code that a dealt data set comes of."""
    root = Path(__file__).parents[1]
    files = sorted(file for room in ("tasks", "problems") for file in (root / room).rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in [*files, root / "seeding.py"])).hexdigest()
