"""The device store: what each device keeps between rounds, one sealed file per device and round in the run's folder.

Workers read and write it themselves, so state does not pass through the driver. The driver knows of every state by the
reply that came with it (`States`), says which one a device is to begin with, and so never takes one for another: not
that of a round which was given up, not an older one in the place of a lost one, and none at all only where none was
ever left.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from flwr.app import RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict

from flsim.devices import device_index, device_name
from flsim.files import DamagedFileError, digest_of, seal, seal_of, unseal, write_atomically

_TOKEN = ".token"


@dataclass(frozen=True)
class Saved:
    """A state that a device left."""

    round: int
    """At the end of which round."""
    digest: bytes
    """Its seal, the SHA-256 of what it holds."""


class States:
    """Which states the devices of a run have left, as their replies said."""

    def __init__(self, saved: Mapping[int, Saved] | None = None) -> None:
        """Begin with the states of a checkpoint, by device; None is a run that begins."""
        self._by_device = {device: [one] for device, one in (saved or {}).items()}

    def note(self, saved: Mapping[int, Saved]) -> None:
        """What devices have left in the round that is at work; what one left in it before is forgotten."""
        for device, new in saved.items():
            earlier = self.before(device, new.round)
            self._by_device[device] = [*([] if earlier is None else [earlier]), new]

    def before(self, device: int, round_: int) -> Saved | None:
        """What a device begins a round with; None if it has left nothing before."""
        return next((one for one in reversed(self._by_device.get(device, [])) if one.round < round_), None)

    def newest(self) -> dict[int, Saved]:
        """What a checkpoint names, by device."""
        return {device: self._by_device[device][-1] for device in sorted(self._by_device)}


@dataclass(frozen=True)
class DeviceStore:
    """The states under one folder."""

    folder: Path

    @property
    def run_dir(self) -> Path:
        """The run's folder, in which it lies."""
        return self.folder.parent

    def path(self, device: int, round_: int) -> Path:
        """Where a device's state of the end of a round lies."""
        return self.folder / device_name(device) / _name(round_)

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
        path = self.path(device, saved.round)
        try:
            return unseal(path, mend, digest=saved.digest)
        except OSError as error:
            raise DamagedFileError(
                f"{path} cannot be read ({error.strerror}), and its device goes on from it; {mend}"
            ) from error

    def save(self, device: int, round_: int, state: RecordDict, before: Saved | None) -> Saved | None:
        """Keep the state of the end of a round and the two before it: any of the last two rounds may be run again.

        A device that never kept anything leaves no file.

        Args:
            device: its index.
            round_: the round.
            state: what it keeps.
            before: what it began the round with.

        Returns:
            What is to be noted; it is on the disk for good once it was flushed (`flsim.files.flush`).
        """
        if not state and before is None:
            return None
        data = recorddict_to_proto(state).SerializeToString(deterministic=True)
        path, what = self.path(device, round_), f"the state of {device_name(device)}"
        write_atomically(path, seal(data), what=what, durable=False)  # hundreds a round: the driver flushes them
        for name in _old(_names(path.parent), round_, before):
            (path.parent / name).unlink(missing_ok=True)
        return Saved(round_, digest_of(data))

    def found(self, last: int) -> dict[int, Saved]:
        """The newest state of every device up to a round, for checkpoints of the release before, which name none."""
        there = {}
        for folder in self._folders():
            names = [name for name in _names(folder) if name <= _name(last)]
            if names:
                newest = folder / names[-1]
                there[device_index(folder.name)] = Saved(int(newest.stem.removeprefix("round-")), seal_of(newest))
        return there

    def drop_others(self, saved: Mapping[int, Saved]) -> None:
        """Delete what rounds left that were given up: states newer than those that are named, by device."""
        for folder in self._folders():
            named = saved.get(device_index(folder.name))
            for name in _names(folder):
                if named is None or name > _name(named.round):
                    (folder / name).unlink(missing_ok=True)

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

    def _folders(self) -> Iterator[Path]:
        """Of the devices that have any file."""
        return self.folder.glob("device-*")


def _names(folder: Path) -> list[str]:
    """A device's files, by round."""
    try:
        return sorted(name for name in os.listdir(folder) if name.endswith(".state"))
    except FileNotFoundError:
        return []


def _old(names: list[str], round_: int, before: Saved | None) -> list[str]:
    """Of a device's files before a round, those that neither this round nor the two checkpoints before it name."""
    kept = set()
    if before is not None:
        kept.add(_name(before.round))
        if before.round == round_ - 1:  # the checkpoint before the last one names an older one
            kept |= set([name for name in names if name < _name(before.round)][-1:])
    return [name for name in names if name < _name(round_) and name not in kept]


def _name(round_: int) -> str:
    return f"round-{round_:05d}.state"
