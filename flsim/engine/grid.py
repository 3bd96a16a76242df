"""The Grid: Flower's view of the fleet, with stable node ids and replies in the order of the devices.

Packs do not depend on the number of workers. `LocalGrid` runs the clients in this process, one pack after the other.
"""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from flsim.engine.store import DeviceStore
from flsim.engine.work import answer_pack


def identify() -> None:
    """Give this process the identity that `flwr.app.Message` asks for (private in flwr 1.41, hence the exact pin)."""
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1


class FleetGrid(Grid):
    """A Flower Grid over simulated devices; device i is node i + 1. Use as a context manager."""

    def __init__(self, devices: int, pack: int) -> None:
        """Open to all devices at first.

        Args:
            devices: size of the fleet.
            pack: most devices that are trained in one batch.
        """
        identify()
        self._run = Run.create_empty(run_id=1)
        self._pack = pack
        self._ids = 0
        self.devices = devices
        self.open_to(range(devices))

    def open_to(self, devices: Iterable[int]) -> None:
        """Show strategies these devices only: the cohort of a round, or the whole fleet."""
        self._open = sorted(devices)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Send, wait, and return one reply per message (possibly an error) in the order of the devices."""
        waiting = sorted(messages, key=lambda message: message.metadata.dst_node_id)
        for message in waiting:
            self._ids += 1
            message.metadata.__dict__["_message_id"] = str(self._ids)
        packs = [waiting[start : start + self._pack] for start in range(0, len(waiting), self._pack)]
        replies = self._answer(packs, timeout)
        return sorted(replies, key=lambda message: message.metadata.src_node_id)

    @abstractmethod
    def _answer(self, packs: Sequence[list[Message]], timeout: float | None) -> list[Message]:
        """Have every pack answered."""

    def __enter__(self) -> Self:
        """Start; workers are ready when it returns."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the workers."""

    def get_node_ids(self) -> list[int]:
        """Node ids of the open devices."""
        return [device + 1 for device in self._open]

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message to one device."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def set_run(self, run: Run) -> None:
        """Remember Flower's description of the run."""
        self._run = run

    @property
    def run(self) -> Run:
        """Flower's description of the run."""
        return self._run

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Not offered: results would depend on who polls when."""
        raise NotImplementedError("push and pull are not offered; use send_and_receive")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Not offered: results would depend on who polls when."""
        raise NotImplementedError("push and pull are not offered; use send_and_receive")


class LocalGrid(FleetGrid):
    """All clients in this process: for tests, debugging and one core. Same results as on Ray; it never times out."""

    def __init__(self, app: ClientApp, store: DeviceStore, devices: int, pack: int) -> None:
        super().__init__(devices, pack)
        self._app = app
        self._store = store
        self._threads = torch.get_num_threads()

    def __enter__(self) -> Self:
        """One thread, as in a Ray worker: the number of threads enters the last bits of a sum."""
        torch.set_num_threads(1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the threads back."""
        torch.set_num_threads(self._threads)

    def _answer(self, packs: Sequence[list[Message]], timeout: float | None) -> list[Message]:
        return [reply for pack in packs for reply in answer_pack(self._app, pack, self._store, self.devices)]


def store_in(run_dir: Path) -> DeviceStore:
    """The device store of a run."""
    return DeviceStore(run_dir / "devices")
