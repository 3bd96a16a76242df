"""The device store: what devices keep between rounds, those of a pack in one file, in the run's folder.

    devices/round-00012-3f9a0c51d2e7.states     a line that names the format, the SHA-256 of the index, the index
                                                (device, round, place, size and SHA-256 of each), and the states

Workers write and read it themselves, so state does not pass through the driver. The driver knows of every state by the
reply that came with it (`flsim/flower/states.py`), says which one a device is to begin with, and so never takes one for
another: not that of a round which was given up, not an older one in the place of a lost one, and none at all only where
none was ever left. A file is named by what it holds, and never changed: old ones are rewritten together and deleted.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict
from numpy.typing import NDArray

from flsim.devices import device_index, device_name
from flsim.files import DIGEST, DamagedFileError, digest_of, seal_of, write_atomically

_TOKEN = ".token"
_FORMAT = b"flsim states 1\n"
_ENTRY = np.dtype([("device", "<i8"), ("round", "<i8"), ("start", "<i8"), ("size", "<i8"), ("digest", f"V{DIGEST}")])
_NAMED = 12  # hexadecimal digits of a file's name


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
            What is to be noted; it is on the disk for good once it was flushed (`flsim.files.flush`).
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
        write_atomically(self.folder / name, chain([_FORMAT, seal, head], data), what=what, durable=durable)
        return dict(_entries(name, index))

    def files(self) -> dict[str, list[tuple[int, Saved]]]:
        """What each file of the store says that it holds; a file that cannot be read holds nothing."""
        found = {path.name: _index_of(path) for path in self.folder.glob("round-*.states")}
        for path in self.folder.glob("device-*/round-*.state"):  # of the release before: a device's own folder
            found[f"{path.parent.name}/{path.name}"] = _index_of_old(path)
        return found

    def delete(self, files: Iterable[str]) -> None:
        """Delete files, and folders of the release before that are then empty."""
        for name in files:
            path = self.folder / name
            path.unlink(missing_ok=True)
            if path.parent != self.folder and not any(path.parent.iterdir()):
                path.parent.rmdir()

    def leave_token(self, token: str) -> Path:
        """Write a token for workers to find; whoever leaves it removes the file."""
        path = self.folder / _TOKEN
        write_atomically(path, token.encode(), what="a token for the workers")
        return path

    def finds_token(self, token: str) -> bool:
        """Whether this process sees the folder in which the token was left."""
        try:
            return (self.folder / _TOKEN).read_text() == token
        except OSError:
            return False

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
            known = file.read(len(_FORMAT)) == _FORMAT
            seal, count = file.read(DIGEST), file.read(8)
            head = file.read(min(int.from_bytes(count, "little") * _ENTRY.itemsize, path.stat().st_size))
    except OSError:
        return []
    if not known or digest_of(count + head) != seal:
        return []
    return _entries(path.name, np.frombuffer(head, dtype=_ENTRY))


def _index_of_old(path: Path) -> list[tuple[int, Saved]]:
    """A file of the release before: the SHA-256 of one state, and the state."""
    try:
        digest, size = seal_of(path), path.stat().st_size - DIGEST
        device, round_ = device_index(path.parent.name), round_of(path.name)
    except (OSError, ValueError):
        return []
    return [(device, Saved(round_, digest, Place(f"{path.parent.name}/{path.name}", DIGEST, size)))]
