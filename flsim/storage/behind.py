"""A machine's copy of a run that lies in an object store: where it is, and its files there and here.

The copy lies in the user's cache, in `flsim/runs/HASH/NAME`, by the address; every node of a cluster has its own. A
file in it, `.remote`, says what it is a copy of, so that whoever has the folder finds the store. What is in the store
counts.
"""

import hashlib
import os
from pathlib import Path

from flsim.config.address import Address
from flsim.files import REMOTE, cache_folder, write_atomically
from flsim.storage.bucket import Bucket

_DEEPEST = 3  # folders of a run below each other
WORKED, READ = "runs", "read"
"""Copies that a run works in, and copies that are only looked at."""


def copy_of(address: Address, kind: str = WORKED) -> Path:
    """Where this machine's copy of a run lies, whether it is there or not."""
    key = hashlib.sha256(str(address).encode()).hexdigest()[:16]
    return cache_folder().resolve() / kind / key / address.name


def open_copy(bucket: Bucket, kind: str = WORKED) -> Path:
    """The folder of this machine's copy, which is made if it is not there.

    Raises:
        UnwritableError: if that cannot be done.
    """
    bucket.address.remember(bucket.secret)
    folder = copy_of(bucket.address, kind)
    if not (folder / REMOTE).is_file():
        write_atomically(folder / REMOTE, str(bucket.address).encode(), what="what a folder is a copy of")
    return folder


def bucket_behind(path: Path) -> Bucket | None:
    """The store in which a folder of a run counts; None if it is no copy that a run works in."""
    name = ""
    for folder in (path, *path.parents[:_DEEPEST]):
        try:
            said = (folder / REMOTE).read_text()
        except OSError:
            name = f"{folder.name}/{name}" if name else folder.name
            continue
        if READ in folder.parts[-3:-2]:
            return None
        return Bucket.at(said).below(name)
    return None


def bring(path: Path) -> None:
    """Have a file that only grows be as the store has it, or longer; without a store it is as it is.

    Raises:
        UnreachableError: if the store does not answer.
    """
    bucket = bucket_behind(path.parent)
    if bucket is None:
        return
    try:
        there = bucket.get(path.name)
    except FileNotFoundError:
        path.unlink(missing_ok=True)  # of an attempt that was given up
        return
    if not (path.is_file() and path.read_bytes().startswith(there)):
        write_atomically(path, there, what="a file of a run", durable=False)


def put(path: Path) -> None:
    """Put a file as it is here; without a store nothing is to be done.

    Raises:
        UnreachableError: if the store does not take it.
    """
    bucket = bucket_behind(path.parent)
    if bucket is not None and path.is_file():
        bucket.put(path.name, path.read_bytes())


def names_in(folder: Path) -> list[str]:
    """The names of the files in a folder: in the store, if there is one."""
    bucket = bucket_behind(folder)
    if bucket is not None:
        return [name for name in bucket.sizes() if "/" not in name]
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def drop(path: Path) -> None:
    """Delete a file, here and in the store."""
    bucket = bucket_behind(path.parent)
    if bucket is not None:
        bucket.delete([path.name])
    path.unlink(missing_ok=True)
