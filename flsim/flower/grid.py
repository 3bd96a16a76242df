"""The Grid: Flower's view of the fleet, with stable node ids and replies in the order of the devices.

Packs do not depend on the number of workers. `LocalGrid` runs the clients in this process, one pack after the other.
"""

import time
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from flwr.app import Message, MessageType, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

import flsim.flower.messages as wire
from flsim.devices import device_at, node_of
from flsim.flower.contract import Weight
from flsim.flower.probe import Rehearsal
from flsim.flower.returned import StrategyError
from flsim.flower.states import States
from flsim.flower.store import DeviceStore, Saved
from flsim.flower.work import PackResult, answer_pack, rehearse_pack
from flsim.learning.exact_sum import ExactSum
from flsim.storage.behind import bucket_behind
from flsim.timing import RoundTiming, booked

_WAITS, _WAITED_S = 10, 10.0  # how often, and for how long, a strategy may ask who is there


def identify() -> None:
    """Give this process the identity that `flwr.app.Message` asks for (private in flwr 1.41, hence the exact pin).

    A process that Flower has started has one, by which the SuperLink knows its messages: it stays.
    """
    try:
        _ = TaskIdentity.run_id
    except RuntimeError:
        TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1


class FleetGrid(Grid):
    """A Flower Grid over simulated devices with stable node ids. Use as a context manager."""

    workers = 1
    """How many packs can be answered at a time."""
    keeps_states = True
    """Whether what devices leave lies in the run's folder; else it is with whoever answers for them."""
    _left_over = "idle"
    """The part of a round's timing that nothing else claims."""

    def __init__(self, devices: int, pack: int) -> None:
        """Open to all devices at first.

        Args:
            devices: size of the fleet.
            pack: most devices that are trained in one batch.
        """
        identify()
        self._run = Run.create_empty(run_id=1)
        self.pack = pack
        self._ids = 0
        self._spent: defaultdict[str, float] = defaultdict(float)
        self.states = States()
        self.devices = devices
        self.open_to(range(devices))

    def open_to(self, devices: Sequence[int]) -> None:
        """Show strategies these devices only: the cohort of a round, or the whole fleet."""
        self._open: Sequence[int] = devices if isinstance(devices, range) else sorted(devices)
        self._asked: list[float] = []

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Send, wait, and return one reply per message (possibly an error) in the order of the devices."""
        return self.send_and_sum(messages, None, timeout=timeout)[0]

    def send_and_sum(
        self, messages: Iterable[Message], weight: Weight | None, *, timeout: float | None = None
    ) -> tuple[list[Message], ExactSum]:
        """Like `send_and_receive`, and with a weight the workers sum the deltas of the training replies.

        Returns:
            The replies, without the tensors that were summed, and the sum over all of them; empty without a weight.
        """
        self._book_driver()
        self._asked = []  # who sends waits for nobody
        waiting = sorted(messages, key=lambda message: message.metadata.dst_node_id)
        for message in waiting:
            self._ids += 1
            message.metadata.__dict__["_message_id"] = str(self._ids)
        packs = [waiting[start : start + self.pack] for start in range(0, len(waiting), self.pack)]
        replies: list[Message] = []
        total = ExactSum()
        for result in self._answer(packs, weight, timeout):
            replies += result.replies
            total.merge(result.total)
            self.states.note(result.saved)
        return sorted(replies, key=lambda message: message.metadata.src_node_id), total

    def send_in_turn(
        self, messages: Iterable[Message], most: int, *, timeout: float | None = None
    ) -> Iterator[tuple[list[Message], list[Message]]]:
        """Like `send_and_receive`, so many messages at a time, in whole packs: what was sent, with its replies."""
        waiting = sorted(messages, key=lambda message: message.metadata.dst_node_id)
        step = self.pack * max(1, most // self.pack)
        for start in range(0, len(waiting), step):
            some = waiting[start : start + step]
            yield some, self.send_and_receive(some, timeout=timeout)

    @abstractmethod
    def rehearse(self, messages: Sequence[Message]) -> Rehearsal:
        """Have every worker answer these messages as one pack, for its time and memory only."""

    def _saved(self, pack: Sequence[Message]) -> dict[int, Saved]:
        """What the devices of a pack begin with: those that are tested after a round with what they left in it."""
        found = {}
        for message in pack:
            device = device_at(message.metadata.dst_node_id)
            learns = message.metadata.message_type.startswith(MessageType.TRAIN)
            saved = self.states.before(device, wire.round_of(message) + (not learns))
            if saved is not None:
                found[device] = saved
        return found

    @abstractmethod
    def _answer(
        self, packs: Sequence[list[Message]], weight: Weight | None, timeout: float | None
    ) -> Iterator[PackResult]:
        """Have every pack answered; results come in any order."""

    def timing(self, round_: int, wall_s: float) -> RoundTiming:
        """Where the worker-seconds went since the last call; a second of the driver's own parts stops every worker."""
        self._book_driver()
        parts, self._spent = dict(self._spent), defaultdict(float)
        left = self.workers * wall_s - sum(parts.values())
        parts[self._left_over] = parts.get(self._left_over, 0.0) + left
        return RoundTiming(round_, self.workers, wall_s, parts)

    def _book_driver(self) -> None:
        for part, seconds in booked().items():
            self._spent[part] += self.workers * seconds

    def _book_pack(self, result: PackResult, given_s: float) -> None:
        """Note where the time went that a worker was given for a pack."""
        for part, seconds in result.parts.items():
            self._spent[part] += seconds
        self._spent["other"] += result.busy_s - sum(result.parts.values())
        self._spent["transport"] += given_s - result.busy_s

    def __enter__(self) -> Self:
        """Start; workers are ready when it returns."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the workers."""

    def release(self) -> None:
        """Begin to stop, as nothing more will be sent: what takes its time goes on beside whatever the caller does.

        Leaving the context waits for it.
        """

    def get_node_ids(self) -> list[int]:
        """Node ids of the open devices.

        Raises:
            StrategyError: if a strategy asks again and again for a while, as it does when it waits for more of them.
        """
        now = time.monotonic()
        self._asked = self._asked or [now]
        self._asked.append(now)
        if len(self._asked) > _WAITS and now - self._asked[0] > _WAITED_S:
            raise StrategyError(
                f"the strategy waits for more devices than the {len(self._open)} of the round: it asked {_WAITS} times "
                f"in {_WAITED_S:g} s who is there, and there will be no more; lower what it waits for"
            )
        return [node_of(device) for device in self._open]

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

    _left_over = "other"  # the one worker is the driver itself, which never waits

    def __init__(self, app: ClientApp, store: DeviceStore, devices: int, pack: int) -> None:
        super().__init__(devices, pack)
        self._app = app
        self._store = store
        self._threads = torch.get_num_threads()

    def __enter__(self) -> Self:
        """One thread, as in a Ray worker: the number of threads enters the last bits of a sum."""
        booked()  # whatever this process booked before
        torch.set_num_threads(1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the threads back."""
        torch.set_num_threads(self._threads)

    def rehearse(self, messages: Sequence[Message]) -> Rehearsal:
        """In this process."""
        return rehearse_pack(self._app, messages, self.devices)

    def _answer(
        self, packs: Sequence[list[Message]], weight: Weight | None, timeout: float | None
    ) -> Iterator[PackResult]:
        for pack in packs:
            started = time.perf_counter()
            result = answer_pack(self._app, pack, self._store, self.devices, weight, self._saved(pack))
            self._book_pack(result, time.perf_counter() - started)
            yield result


def store_in(run_dir: Path) -> DeviceStore:
    """The device store of a run; absolute, since workers may run in another folder."""
    folder = (run_dir / "devices").resolve()
    return DeviceStore(folder, bucket_behind(folder))
