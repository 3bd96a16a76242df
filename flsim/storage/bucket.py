"""An object store as a run needs it: whole puts, gets, lists and deletes below an address, tried again for a while.

`pyarrow.fs` opens the address: `s3://`, `gs://`, `abfs://`, `hdfs://`, `file://`, and what fsspec knows as
`fsspec+NAME://`. An object store shows an object when all of it is there; on a file system the same is had by writing
beside the place and renaming.
"""

import logging
import os
import secrets
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Self, TypeVar

from tqdm import tqdm

from flsim.config.address import Address, Secret
from flsim.config.ranges import ConfigError
from flsim.storage.trouble import UnreachableError, told

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

WAITS = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds between the tries of one request: a minute's absence of the server ends no run."""
_PATIENCE_S = (
    75.0  # after which nothing is tried again: a try itself may take seconds, in which the store's own code tries
)
_SAID_S = 4.0  # the wait before which people are told
_AT_ONCE = 8  # requests at a time
_RENAMED = ("local", "hdfs", "file", "sftp", "ssh", "ftp", "smb", "webhdfs")  # file systems, which show half a file
_PROBE = ".probe"

_T = TypeVar("_T")
_log = logging.getLogger("flsim.run")


@dataclass(frozen=True)
class Bucket:
    """All objects below an address. It may be sent to other processes, which then know its secrets, too."""

    address: Address
    secret: Secret = field(default_factory=Secret, repr=False, compare=False)
    waits: tuple[float, ...] = field(default=WAITS, compare=False)

    @classmethod
    def at(cls, text: str) -> Self:
        """What an address names.

        Raises:
            ConfigError: if it is none.
        """
        try:
            address = Address.of(text)
        except ValueError as error:
            raise ConfigError(f"run_dir={text!r}: {error}") from error
        return cls(address, address.secret)

    def below(self, name: str) -> "Bucket":
        """The objects below one of its names."""
        return Bucket(self.address.below(name), self.secret, self.waits)

    def above(self) -> "Bucket":
        """What it is one of the names of."""
        path = self.address.path.rpartition("/")[0]
        return Bucket(replace(self.address, path=path), self.secret, self.waits)

    def hasty(self) -> "Bucket":
        """The same, whose requests are tried once."""
        return Bucket(self.address, self.secret, ())

    def __str__(self) -> str:
        """Its address, without secrets."""
        return str(self.address)

    def put(self, name: str, data: bytes | memoryview | Any) -> None:
        """Put a whole object, new or in the place of another: nobody ever sees a part of it.

        Raises:
            UnreachableError: if the store does not take it, after several tries.
        """
        self._tried(f"put {name}", lambda system, root: _put(system, f"{root}/{name}", data))

    def get(self, name: str, start: int = 0, size: int | None = None) -> bytes:
        """An object, or a part of it.

        Args:
            name: of the object.
            start: its first byte to get.
            size: bytes to get; None gets all that follow.

        Raises:
            FileNotFoundError: if there is none of that name.
            UnreachableError: if the store does not give it, after several tries.
        """

        def got(system: "FileSystem", root: str) -> bytes:
            if start == 0 and size is None:
                with system.open_input_stream(f"{root}/{name}", compression=None) as stream:
                    return bytes(stream.read())
            with system.open_input_file(f"{root}/{name}") as file:
                file.seek(start)
                return bytes(file.read(size))

        return self._tried(f"get {name}", got)

    def get_all(self, names: Iterable[str]) -> dict[str, bytes]:
        """Several objects at a time, by name; one that is gone meanwhile is left out."""

        def one(name: str) -> bytes | None:
            with suppress(FileNotFoundError):
                return self.get(name)
            return None

        wanted = list(names)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = dict(zip(wanted, pool.map(one, wanted), strict=True))
        return {name: data for name, data in found.items() if data is not None}

    def put_all(self, objects: Iterable[tuple[str, bytes]]) -> None:
        """Several objects at a time."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for _ in pool.map(lambda one: self.put(*one), objects):
                pass

    def sizes(self, under: str = "") -> dict[str, int]:
        """All objects whose names begin with `under/`, and their bytes; parts that a kill left are none."""

        def listed(system: "FileSystem", root: str) -> dict[str, int]:
            from pyarrow.fs import FileSelector, FileType

            where = f"{root}/{under}" if under else root
            selector = FileSelector(where, recursive=True, allow_not_found=True)
            found = [info for info in system.get_file_info(selector) if info.type == FileType.File]
            named = {info.path[len(root) :].lstrip("/"): info.size or 0 for info in found}
            return {name: size for name, size in sorted(named.items()) if not name.endswith(".part")}

        return self._tried(f"list {under or 'what is there'}", listed)

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; those that are gone already are gone."""

        def one(name: str) -> None:
            with suppress(FileNotFoundError):
                self._tried(f"delete {name}", lambda system, root: _delete(system, f"{root}/{name}"))

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(one, names))

    def check(self) -> None:
        """See that objects can be put, found, got and deleted there, by one that is made for that.

        Raises:
            ConfigError: saying what cannot be done, why, and the mend.
        """
        name, said = f"{_PROBE}-{secrets.token_hex(8)}", secrets.token_bytes(16)
        brief = Bucket(self.address, self.secret, self.waits[:3])
        try:
            brief.put(name, said)
            if brief.get(name) != said:
                raise ConfigError(f"run_dir={self}: what is put there comes back as something else; choose another")
            brief.delete([name])
        except (UnreachableError, FileNotFoundError) as error:
            raise ConfigError(f"run_dir={self} cannot hold a run: {error}") from error

    def _tried(self, what: str, work: "Callable[[FileSystem, str], _T]") -> _T:
        """Do it, and again where that may help."""
        self.address.remember(self.secret)
        begun = time.monotonic()
        for wait in (*self.waits, None):
            try:
                return work(*_opened(self.address.whole, os.getpid()))
            except FileNotFoundError:
                raise
            except Exception as error:
                reason, lasts = told(error, self.address)
                if lasts or wait is None or time.monotonic() - begun + wait > _PATIENCE_S:
                    raise UnreachableError(f"could not {what} at {self}: {reason}") from None
                _log.warning("%s at %s is tried again in %g s: %s", what, self, wait, reason)
                if wait == _SAID_S:
                    tqdm.write(f"{self} does not answer ({reason}); it is tried for {_PATIENCE_S:g} s")
                time.sleep(wait)
        raise AssertionError("the last try returns or raises")


@cache
def _opened(whole: str, process: int) -> "tuple[FileSystem, str]":
    """The file system behind an address, and the path in it; one for each process, since a fork must not share it."""
    from pyarrow.fs import FileSystem

    if whole.startswith("s3:") and "allow_delayed_open" not in whole:  # one request for a small object, and not three
        whole += f"{'&' if '?' in whole else '?'}allow_delayed_open=true"
    system, root = FileSystem.from_uri(whole)
    return system, root.rstrip("/")


def _put(system: "FileSystem", path: str, data: Any) -> None:
    kind = system.type_name.rpartition("+")[2].partition(":")[0]
    if kind not in _RENAMED:
        _write(system, path, data)
        return
    system.create_dir(path.rpartition("/")[0], recursive=True)
    part = f"{path}.{secrets.token_hex(4)}.part"
    try:
        _write(system, part, data)
        try:
            system.move(part, path)
        except OSError:  # Hadoop does not rename over a file
            system.delete_file(path)
            system.move(part, path)
    except BaseException:
        with suppress(OSError):
            system.delete_file(part)
        raise


def _delete(system: "FileSystem", path: str) -> None:
    system.delete_file(path)


def _write(system: "FileSystem", path: str, data: Any) -> None:
    with system.open_output_stream(path, compression=None) as stream:
        stream.write(data)
