"""What one device keeps on its node between the messages of a run: its states, and what it asked of the cloud.

    STATE-DIR/3f9a0c51d2e7b846/device-003/devices/round-00012-....states     as in a run's folder
                                         /purchases/device-003/...           journals of what it buys

The server says with each message which state the device is to begin with. What is newer was left in a round that was
given up, and is deleted; of what is older the one before is kept, since the server keeps two checkpoints.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from filelock import FileLock

from flsim.devices import device_name
from flsim.federation.naming import checked
from flsim.files import flush, writing
from flsim.flower.store import DeviceStore, Saved


class LostStateError(Exception):
    """The node has not the state that its device is to go on from; the message says what it has."""


class Home:
    """The place of one device of one run on this machine."""

    def __init__(self, root: Path, run: str, device: int) -> None:
        """Name it.

        Args:
            root: of all runs and devices.
            run: the run's name.
            device: its index.

        Raises:
            ValueError: if the run's name is none.
        """
        self.folder = root / checked(run) / device_name(device)
        self.device = device
        self.store = DeviceStore(self.folder / "devices")

    @contextmanager
    def locked(self) -> Iterator[Self]:
        """Alone: a message that the server has given up may still be at work when the next one comes."""
        with writing("what a device keeps", self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".lock"):
            yield self

    def begin(self, begins: Saved | None) -> dict[int, Saved]:
        """The state that the device begins with, by device; nothing if it begins with none.

        Raises:
            LostStateError: if it is not there.
        """
        there = self._there()
        if begins is not None and begins not in there:
            has = ", ".join(str(saved.round) for saved in sorted(there, key=lambda one: one.round)) or "none"
            raise LostStateError(
                f"the node lacks the state that {device_name(self.device)} left in round {begins.round} (it has "
                f"rounds: {has}, in {self.store.folder}); bring that folder back from where the device was before"
            )
        last = -1 if begins is None else begins.round
        self.store.delete(name for saved, name in there.items() if saved.round > last)
        return {} if begins is None else {self.device: next(one for one in there if one == begins)}

    def keep(self, begins: Saved | None, left: Saved) -> None:
        """Have the state that was left on the disk for good, and delete what no checkpoint of the server can name.

        Args:
            begins: what the device began with.
            left: what it left.
        """
        there = self._there()
        flush([self.store.folder / there[left]], "the device's state")
        if begins is not None:
            older = sorted({saved.round for saved in there if saved.round < begins.round})
            self.store.delete(name for saved, name in there.items() if saved.round in older[:-1])

    def _there(self) -> dict[Saved, str]:
        """The states that lie here, and the file of each."""
        return {saved: name for name, held in self.store.files().items() for _, saved in held}
