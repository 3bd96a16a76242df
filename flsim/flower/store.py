"""The device store: what each device keeps between rounds, one sealed file per device and round in the run's folder.

Workers read and write it themselves, so state does not pass through the driver. A state belongs to the end of a round;
a round that is run again after a kill reads the states of the rounds before it, whatever was already written for it.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from flwr.app import RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict

from flsim.files import seal, unseal, write_atomically

_TOKEN = ".token"


@dataclass(frozen=True)
class DeviceStore:
    """The states under one folder."""

    folder: Path

    @property
    def run_dir(self) -> Path:
        """The run's folder, in which it lies."""
        return self.folder.parent

    def load(self, device: str, before_round: int) -> RecordDict:
        """The device's newest state of a round before `before_round`; empty if it has none.

        Raises:
            DamagedFileError: if that file was damaged.
        """
        earlier = _before(before_round, self._names(device))
        if not earlier:
            return RecordDict()
        path = self.folder / device / earlier[-1]
        data = unseal(path, "delete it and the run's checkpoints of this round and later, then resume")
        return recorddict_from_proto(ProtoRecordDict.FromString(data))

    def save(self, device: str, round_: int, state: RecordDict) -> None:
        """Keep the state of the end of a round and the two before it: any of the last two rounds may be run again.

        A device that never kept anything leaves no file.
        """
        names = self._names(device)
        if not state and not names:
            return
        own = _name(round_)
        data = recorddict_to_proto(state).SerializeToString(deterministic=True)
        # hundreds a round: the seal tells if the machine lost power before they were on the disk
        write_atomically(self.folder / device / own, seal(data), what=f"the state of {device}", durable=False)
        kept = {own, *_before(round_, names)[-1:], *_before(round_ - 1, names)[-1:]}
        for name in names:
            if name not in kept:
                (self.folder / device / name).unlink(missing_ok=True)

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

    def _names(self, device: str) -> list[str]:
        """The device's files, by round."""
        try:
            return sorted(name for name in os.listdir(self.folder / device) if name.endswith(".state"))
        except FileNotFoundError:
            return []


def _name(round_: int) -> str:
    return f"round-{round_:05d}.state"


def _before(round_: int, names: list[str]) -> list[str]:
    limit = _name(round_)
    return [name for name in names if name < limit]
