"""The device store: what each device keeps between rounds, one sealed file per device and round in the run's folder.

Workers read and write it themselves, so state does not pass through the driver. A state belongs to the end of a round;
a round that is run again after a kill reads the states of the rounds before it, whatever was already written for it.
"""

from dataclasses import dataclass
from pathlib import Path

from flwr.app import RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict

from flsim.files import seal, unseal, write_atomically


@dataclass(frozen=True)
class DeviceStore:
    """The states under one folder."""

    folder: Path

    def load(self, device: str, before_round: int) -> RecordDict:
        """The device's newest state of a round before `before_round`; empty if it has none.

        Raises:
            DamagedFileError: if that file was damaged.
        """
        path = self._newest(device, before_round)
        if path is None:
            return RecordDict()
        data = unseal(path, "delete it and the run's checkpoints of this round and later, then resume")
        return recorddict_from_proto(ProtoRecordDict.FromString(data))

    def save(self, device: str, round_: int, state: RecordDict) -> None:
        """Keep the state of the end of a round and the two before it: any of the last two rounds may be run again."""
        data = recorddict_to_proto(state).SerializeToString(deterministic=True)
        write_atomically(self._path(device, round_), seal(data))
        kept = (self._path(device, round_), self._newest(device, round_), self._newest(device, round_ - 1))
        for path in (self.folder / device).glob("round-*.state"):
            if path not in kept:
                path.unlink(missing_ok=True)

    def _path(self, device: str, round_: int) -> Path:
        return self.folder / device / f"round-{round_:05d}.state"

    def _newest(self, device: str, before_round: int) -> Path | None:
        limit = self._path(device, before_round).name
        names = sorted(path.name for path in (self.folder / device).glob("round-*.state") if path.name < limit)
        return self.folder / device / names[-1] if names else None
