"""Updates in flight: what devices have learned that virtual time has not brought to the server yet, on disk.

    flights/round-00012-3f9a0c51d2e7.states     as the devices' states (`flsim/flower/store.py`): of each device its
                                                reply, with what it began with

So ten thousand devices in flight take no memory of the server, and a resume finds them by the checkpoint's digests.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Message, MessageType, RecordDict

import flsim.flower.messages as wire
from flsim.devices import device_at, node_of
from flsim.flower.arrays import to_arrays
from flsim.flower.store import DeviceStore, Saved
from flsim.storage.behind import bucket_behind

FOLDER = "flights"


@dataclass(frozen=True)
class Flight:
    """An update on its way."""

    round: int
    """In which its device was asked, with the version of the round before."""
    saved: Saved
    """Where its reply lies."""
    joules: float
    """What it took."""


class Hangar:
    """Replies of a run that are in flight."""

    def __init__(self, run_dir: Path) -> None:
        """Look at a run's folder, which is written to with the first reply."""
        folder = (run_dir / FOLDER).resolve()
        self.store = DeviceStore(folder, bucket_behind(folder))
        self._before: frozenset[str] = frozenset()  # files of the checkpoint before, which is kept, too

    def go_on(self, flights: Mapping[int, Flight]) -> None:
        """After a resume: what its checkpoint names is kept until the next but one."""
        self._before = _files(flights.values())

    def take_in(self, sent: Sequence[Message], replies: Sequence[Message], round_: int) -> dict[int, Saved]:
        """Write usable replies down, each with what its device began with, and empty them of their tensors."""
        begun = {device_at(message.metadata.dst_node_id): message for message in sent}
        expected = {key: to_arrays(wire.expected_of(m)) for key, m in {id(wire.arrays_of(m)): m for m in sent}.items()}
        whole: dict[int, RecordDict] = {}
        for reply in replies:
            if not reply.has_error():
                device = wire.device_of(reply)
                full = wire.with_begun(reply, expected[id(wire.arrays_of(begun[device]))])
                whole[device] = RecordDict({name: one for name, one in full.content.items() if name != wire.ROWS})
                del reply.content[wire.ARRAYS]
        return self.store.save(round_, whole)

    def bring_out(self, device: int, flight: Flight) -> Message:
        """A reply as it was taken in.

        Raises:
            DamagedFileError: if it is not what the device sent.
        """
        content = self.store.load(device, flight.saved)
        asked = Message(RecordDict(), node_of(device), MessageType.TRAIN)
        return Message(content, reply_to=asked)

    def flush(self, flights: Mapping[int, Flight], round_: int) -> None:
        """Have what a round took in on the disk for good, before the checkpoint that names it."""
        files = _files(one for one in flights.values() if one.round == round_)
        self.store.settle(sorted(files), f"updates in flight of round {round_}")

    def tidy(self, flights: Mapping[int, Flight]) -> None:
        """Once a round is committed: delete files that neither it nor the checkpoint before it names."""
        needed = _files(flights.values())
        self.store.delete(set(self.store.files()) - needed - self._before)
        self._before = needed


def _files(flights: Iterable[Flight]) -> frozenset[str]:
    return frozenset(one.saved.place.file for one in flights if one.saved.place is not None)
