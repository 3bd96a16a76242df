"""The device store: what devices keep between rounds, those of a pack in one file, in the run's folder.

    devices/round-00012-3f9a0c51d2e7.states     a line that names the format, the SHA-256 of the index, the index
                                                (device, round, place, size and SHA-256 of each), and the states

Workers write and read it themselves, so state does not pass through the driver. The driver knows of every state by the
reply that came with it (`flsim/flower/states.py`), says which one a device is to begin with, and so never takes one for
another: not that of a round which was given up, not an older one in the place of a lost one, and none at all only where
none was ever left. A file is named by what it holds, and never changed: old ones are rewritten together and deleted.

Where a run lies in an object store, each node writes into its own copy of the folder and puts the file before it
replies; what another node has written is got from there, state by state.
"""

import mmap
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict
from numpy.typing import NDArray

from flsim.devices import device_index, device_name
from flsim.files import DIGEST, DamagedFileError, digest_of, flush, seal_of, write_atomically
from flsim.storage.behind import open_copy
from flsim.storage.bucket import Bucket

_TOKEN = ".token"
_FORMAT = b"flsim states 1\n"
_ENTRY = np.dtype([("device", "<i8"), ("round", "<i8"), ("start", "<i8"), ("size", "<i8"), ("digest", f"V{DIGEST}")])
_NAMED = 12  # hexadecimal digits of a file's name
_HEAD = 2**16  # bytes that are got of a file in an object store to read its index: those of 700 devices
_KEPT_BYTES = 4 * 2**30  # most that a node keeps of what lies in an object store


@dataclass(frozen=True, slots=True)
class Place:
    """Where a state lies."""

    file: str
    """Below the store's folder."""
    start: int
    """Its first byte there."""
    size: int
    """Bytes of it."""


@dataclass(frozen=True, slots=True)
class Saved:
    """A state that a device left."""

    round: int
    """At the end of which round."""
    digest: bytes
    """The SHA-256 of what it holds."""
    place: Place | None = field(default=None, compare=False)
    """None where it was not found."""


@dataclass(frozen=True)
class DeviceStore:
    """The states under one folder."""

    folder: Path
    bucket: Bucket | None = None
    """Where they count, if that is an object store: the folder then is this node's copy of some of it."""

    def here(self) -> "DeviceStore":
        """The same states on the node of this process."""
        if self.bucket is None:
            return self
        return replace(self, folder=open_copy(self.bucket.above()) / self.folder.name)

    @property
    def run_dir(self) -> Path:
        """The run's folder, in which it lies."""
        return self.folder.parent

    def load(self, device: int, saved: Saved | None) -> RecordDict:
        """A device's state; empty for None.

        Raises:
            DamagedFileError: if it cannot be read, or is not the one that the device left.
        """
        if saved is None:
            return RecordDict()
        data = self.read(device, saved, f"flsim resume {self.run_dir} says how to go on")
        return recorddict_from_proto(ProtoRecordDict.FromString(data))

    def read(self, device: int, saved: Saved, mend: str) -> bytes:
        """What a device left, as bytes.

        Raises:
            DamagedFileError: with the mend, if it cannot be read or is something else.
        """
        if saved.place is None:
            raise self._lost(device, saved, mend)
        if self.bucket is not None:
            return self._got(self.bucket, device, saved, saved.place, mend)
        path = self.folder / saved.place.file
        try:
            with path.open("rb") as file:
                file.seek(saved.place.start)
                data = file.read(saved.place.size)
        except OSError as error:
            raise DamagedFileError(
                f"{path} cannot be read ({error.strerror}), and {device_name(device)} goes on from it; {mend}"
            ) from error
        if digest_of(data) != saved.digest:
            raise DamagedFileError(f"{path} is damaged (wrong checksum of {device_name(device)}); {mend}")
        return data

    def save(self, round_: int, states: Mapping[int, RecordDict]) -> dict[int, Saved]:
        """Keep states of the end of a round, by device, in one file.

        Returns:
            What is to be noted; it is there for good once it was settled.
        """
        if not states:
            return {}
        data = {
            device: recorddict_to_proto(state).SerializeToString(deterministic=True) for device, state in states.items()
        }
        sealed = {device: Saved(round_, digest_of(own), Place("", 0, len(own))) for device, own in data.items()}
        return self.write(sealed, data.values(), what=f"the states of round {round_}", durable=False)

    def write(
        self, states: Mapping[int, Saved], data: Iterable[bytes], *, what: str, durable: bool = True
    ) -> dict[int, Saved]:
        """Write a file of states, each of a device of its own, and say where each lies.

        Args:
            states: by device, of known sizes.
            data: of each, in this order.
            what: is written, for people.
            durable: as for `write_atomically`.
        """
        index = np.zeros(len(states), dtype=_ENTRY)
        start = len(_FORMAT) + DIGEST + 8 + index.nbytes
        for number, (device, saved) in enumerate(states.items()):
            assert saved.place is not None
            index[number] = (device, saved.round, start, saved.place.size, saved.digest)
            start += saved.place.size
        head = len(index).to_bytes(8, "little") + index.tobytes()
        seal = digest_of(head)
        last = max(saved.round for saved in states.values())
        name = f"round-{last:05d}-{seal.hex()[:_NAMED]}.states"
        here = durable and self.bucket is None
        write_atomically(self.folder / name, chain([_FORMAT, seal, head], data), what=what, durable=here)
        if self.bucket is not None:
            with (
                (self.folder / name).open("rb") as file,
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
            ):
                self.bucket.put(name, mapped)
            _trim(self.folder)
        return dict(_entries(name, index))

    def settle(self, names: Iterable[str], what: str) -> None:
        """Have files that were written for good: on the disk; in an object store they are so already.

        Raises:
            UnwritableError: if the disk does not take them.
        """
        if self.bucket is None:
            flush([self.folder / name for name in names], what)

    def files(self) -> dict[str, list[tuple[int, Saved]]]:
        """What each file of the store says that it holds; a file that cannot be read holds nothing."""
        if self.bucket is not None:
            return {name: _index_there(self.bucket, name) for name in self.bucket.sizes() if name.endswith(".states")}
        found = {path.name: _index_of(path) for path in self.folder.glob("round-*.states")}
        for path in self.folder.glob("device-*/round-*.state"):  # of the release before: a device's own folder
            found[f"{path.parent.name}/{path.name}"] = _index_of_old(path)
        return found

    def delete(self, files: Iterable[str]) -> None:
        """Delete files, and folders of the release before that are then empty."""
        files = list(files)
        if self.bucket is not None:
            self.bucket.delete(files)
        for name in files:
            path = self.folder / name
            path.unlink(missing_ok=True)
            if path.parent != self.folder and not any(path.parent.iterdir()):
                path.parent.rmdir()

    def leave_token(self, token: str) -> Path:
        """Write a token for workers to find; whoever leaves it removes the file."""
        path = self.folder / _TOKEN
        write_atomically(path, token.encode(), what="a token for the workers")
        if self.bucket is not None:
            self.bucket.put(_TOKEN, token.encode())
        return path

    def take_token(self) -> None:
        """Remove it."""
        (self.folder / _TOKEN).unlink(missing_ok=True)
        if self.bucket is not None:
            self.bucket.delete([_TOKEN])

    def finds_token(self, token: str) -> bool:
        """Whether this process sees the folder in which the token was left, or may read and write in the store.

        Raises:
            ConfigError: if a store is in the way, with the reason.
            UnwritableError: likewise.
        """
        try:
            if self.bucket is None:
                return (self.folder / _TOKEN).read_text() == token
            self.bucket.check()
            return self.bucket.get(_TOKEN) == token.encode()
        except OSError:
            return False

    def _got(self, bucket: Bucket, device: int, saved: Saved, place: Place, mend: str) -> bytes:
        """A state from this node's copy, else from the store; it is then kept here, by what it holds."""
        own = self.folder / f"{saved.digest.hex()}.state"
        for path, start in ((self.folder / place.file, place.start), (own, 0)):
            with suppress(OSError), path.open("rb") as file:
                file.seek(start)
                data = file.read(place.size)
                if digest_of(data) == saved.digest:
                    return data
        where = f"{place.file} of {bucket}"
        try:
            data = bucket.get(place.file, place.start, place.size)
        except FileNotFoundError as error:
            raise DamagedFileError(f"{where} is gone, and {device_name(device)} goes on from it; {mend}") from error
        if digest_of(data) != saved.digest:
            raise DamagedFileError(f"{where} is damaged (wrong checksum of {device_name(device)}); {mend}")
        write_atomically(own, data, what="a state that was got", durable=False)
        return data

    def _lost(self, device: int, saved: Saved, mend: str) -> DamagedFileError:
        """What is said of a state that no file has: a file that cannot be read and may have it is named."""
        bad = [name for name, held in self.files().items() if not held and round_of(name) >= saved.round]
        what = f"the state that {device_name(device)} left in round {saved.round}"
        said = f"{self.folder / bad[0]} is damaged (wrong checksum), and with it {what}" if bad else None
        return DamagedFileError(f"{said or f'{self.folder} lacks {what}'}; {mend}")


def round_of(name: str) -> int:
    """The last round of the states in a file."""
    return int(Path(name).stem.removeprefix("round-").partition("-")[0])


def _entries(name: str, index: NDArray[Any]) -> list[tuple[int, Saved]]:
    """What an index says that a file holds, by device."""
    return [
        (device, Saved(round_, digest, Place(name, start, size)))
        for device, round_, start, size, digest in index.tolist()
    ]


def _index_of(path: Path) -> list[tuple[int, Saved]]:
    try:
        with path.open("rb") as file:
            return _index_in(path.name, lambda size: file.read(min(size, path.stat().st_size)))
    except OSError:
        return []


def _index_there(bucket: Bucket, name: str) -> list[tuple[int, Saved]]:
    """Likewise of a file in a store."""
    try:
        start = bucket.get(name, 0, _HEAD)
        count = int.from_bytes(start[len(_FORMAT) + DIGEST :][:8], "little")
        whole = len(_FORMAT) + DIGEST + 8 + count * _ENTRY.itemsize
        if len(start) == _HEAD < whole:
            start += bucket.get(name, _HEAD, whole - _HEAD)
    except (FileNotFoundError, OverflowError):
        return []
    file = BytesIO(start)
    return _index_in(name, file.read)


def _index_in(name: str, read: Callable[[int], bytes]) -> list[tuple[int, Saved]]:
    """What the index says, as the file is read from its start on."""
    known = read(len(_FORMAT)) == _FORMAT
    seal, count = read(DIGEST), read(8)
    head = read(int.from_bytes(count, "little") * _ENTRY.itemsize)
    if not known or digest_of(count + head) != seal:
        return []
    return _entries(name, np.frombuffer(head, dtype=_ENTRY))


def _trim(folder: Path, most: int = _KEPT_BYTES) -> None:
    """Delete the oldest files of a node's copy, all of which lie in the store, until it is small enough."""
    found = []
    for path in folder.glob("*.state*"):
        with suppress(FileNotFoundError):  # another worker of the node trims, too
            stat = path.stat()
            found.append((stat.st_mtime_ns, stat.st_size, path))
    left = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if left <= most:
            return
        path.unlink(missing_ok=True)
        left -= size


def _index_of_old(path: Path) -> list[tuple[int, Saved]]:
    """A file of the release before: the SHA-256 of one state, and the state."""
    try:
        digest, size = seal_of(path), path.stat().st_size - DIGEST
        device, round_ = device_index(path.parent.name), round_of(path.name)
    except (OSError, ValueError):
        return []
    return [(device, Saved(round_, digest, Place(f"{path.parent.name}/{path.name}", DIGEST, size)))]
