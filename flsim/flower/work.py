"""What a worker does with a pack of messages; the same function in a Ray worker and in the driver's own process."""

import resource
import sys
import time
import traceback
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from flwr.app import Context, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp

import flsim.flower.messages as wire
from flsim.cloud.journal import PURCHASES
from flsim.cloud.protocol import RefusedError
from flsim.devices import device_at, device_name
from flsim.files import UnwritableError
from flsim.flower.contract import Weight
from flsim.flower.probe import Rehearsal
from flsim.flower.store import DeviceStore, Saved
from flsim.learning.exact_sum import ExactSum, OutOfRangeError
from flsim.models.adapter import Adapter
from flsim.timing import booked, spend


class PackedClientApp(ClientApp):
    """A Flower ClientApp that can answer for several devices in one batch; called alone, it is a pack of one."""

    @abstractmethod
    def answer(self, messages: Sequence[Message], contexts: Sequence[Context]) -> Iterable[Message]:
        """One reply per message, in order; may change the contexts' state. All messages are of one type and round.

        A list, or an iterator that gives each reply when it is there: it is judged, summed up and dropped before the
        next is asked for, so that the tensors of a pack need not be in memory at a time.
        """

    def rehearse(self, messages: Sequence[Message], contexts: Sequence[Context]) -> None:
        """Do what `answer` does, for its time and memory only: nothing is kept, and no cloud may be paid."""
        for _ in self.answer(messages, contexts):
            pass

    def __call__(self, message: Message, context: Context) -> Message:
        """Flower's own entry: one device."""
        (reply,) = self.answer([message], [context])
        return reply


@dataclass(frozen=True)
class PackResult:
    """What comes back from a worker for a pack."""

    replies: list[Message]
    """One per message, in order."""
    total: ExactSum
    """The weighted sum of the usable replies' deltas; empty if they carry their adapters themselves."""
    busy_s: float
    """Seconds that the worker spent on the pack."""
    parts: dict[str, float]
    """How many of them each part of `flsim.timing` claims."""
    saved: dict[int, Saved] = field(default_factory=dict)
    """The states that its devices left, by device."""


def answer_pack(
    app: ClientApp,
    messages: Sequence[Message],
    store: DeviceStore,
    devices: int,
    weight: Weight | None = None,
    saved: Mapping[int, Saved] | None = None,
) -> PackResult:
    """Let the client answer a pack; a device that fails gets an error reply and keeps its old state.

    When a pack of several fails, each of its devices that has not replied by then is tried alone, so that one culprit
    does not cost the others their round.

    Args:
        app: the client; any ClientApp, a `PackedClientApp` gets the whole pack at once.
        messages: one per device, of one type and round; they may share their tensors.
        store: where the devices' states are.
        devices: size of the fleet.
        weight: if given, usable training replies are summed with it and come back without their tensors.
        saved: what each device begins with; a device that is not in it has kept nothing before.

    Raises:
        DamagedFileError: if a state is not what its device left: no device may go on from something else.
    """
    started = time.perf_counter()
    work = _Work(app, store, devices, weight, saved or {}, ExactSum(), {}, {})
    replies = work.answer(messages)
    with spend("store"):
        left = store.save(wire.round_of(messages[0]), work.left) if work.left else {}
    return PackResult(replies, work.total, time.perf_counter() - started, booked(), left)


def rehearse_pack(app: ClientApp, messages: Sequence[Message], devices: int) -> Rehearsal:
    """Answer a pack on throw-away states; see `flsim.flower.probe`."""
    contexts = []
    for message in messages:
        node = message.metadata.dst_node_id
        where: dict[str, bool | float | int | str] = {"partition-id": device_at(node), "num-partitions": devices}
        contexts.append(Context(1, node, where, RecordDict(), {}))
    started = time.perf_counter()
    if isinstance(app, PackedClientApp):
        app.rehearse(messages, contexts)
    seconds = time.perf_counter() - started
    booked()  # a rehearsal is in no round's timing
    return Rehearsal(len(messages), seconds, _peak_bytes())


def _peak_bytes() -> int:
    """Most memory this process has had: of its GPU if it uses one, else resident (in KiB on Linux, bytes on macOS)."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@dataclass(frozen=True)
class _Work:
    """A pack while it is being answered."""

    app: ClientApp
    store: DeviceStore
    devices: int
    weight: Weight | None
    saved: Mapping[int, Saved]
    total: ExactSum
    sent: dict[int, Adapter]
    """What the messages want back, as it was sent, by the identity of their record: read once if it is shared."""
    left: dict[int, RecordDict]
    """The states that devices left so far; a device that never kept anything leaves none."""

    def answer(self, messages: Sequence[Message]) -> list[Message]:
        if len(messages) > 1 and not isinstance(self.app, PackedClientApp):
            return [self.answer([message])[0] for message in messages]
        contexts = [self._context(message) for message in messages]
        asked = self._asked(messages, contexts)
        closed, sizes, seconds = list[Message](), list[int](), 0.0
        failed: Exception | None = None
        for message, context in zip(messages, contexts, strict=True):
            started = time.perf_counter()
            try:
                reply = next(asked)
            except (UnwritableError, RefusedError):  # no fault of the device, which would be set aside in every round
                raise
            except Exception as error:
                failed = error
                break
            seconds += time.perf_counter() - started
            sizes.append(0 if reply.has_error() else wire.size_of(reply))
            closed.append(self._close(message, context, reply))
        for reply, size in zip(closed, sizes, strict=True):
            wire.stamp(reply, seconds=seconds / len(closed), size=size)
        if failed is None:
            return closed
        if len(messages) == 1:
            return [_raised(failed, messages[0])]
        return closed + [self.answer([message])[0] for message in messages[len(closed) :]]

    def _asked(self, messages: Sequence[Message], contexts: Sequence[Context]) -> Iterator[Message]:
        """The client's replies as they come."""
        handed = [wire.own_copy(message) for message in messages]
        if isinstance(self.app, PackedClientApp):
            yield from self.app.answer(handed, contexts)
        else:
            yield self.app(handed[0], contexts[0])

    def _context(self, message: Message) -> Context:
        """Flower's view of the device: its index as `partition-id`, and what it kept."""
        node = message.metadata.dst_node_id
        device = device_at(node)
        with spend("store"):
            state = self.store.load(device, self.saved.get(device))
        purchases = str(self.store.run_dir / PURCHASES / device_name(device))
        where: dict[str, bool | float | int | str] = {"partition-id": device, "num-partitions": self.devices}
        where[wire.PURCHASES] = purchases
        return Context(1, node, where, state, {})

    def _close(self, message: Message, context: Context, reply: Message) -> Message:
        """Judge a reply to training; of one that can be used keep the device's state and sum up its tensors."""
        if reply.has_error() or not message.metadata.message_type.startswith(MessageType.TRAIN):
            return reply
        reply = closed(message, reply, self._sent(message), self.weight, self.total)
        if reply.has_error():
            return reply
        device = device_at(context.node_id)
        if context.state or device in self.saved:
            self.left[device] = context.state
        return reply

    def _sent(self, message: Message) -> Adapter:
        """What is expected back from this device, as it was sent."""
        key = id(wire.arrays_of(message))
        if key not in self.sent:
            self.sent[key] = wire.expected_of(message)
        return self.sent[key]


def closed(message: Message, reply: Message, sent: Adapter, weight: Weight | None, total: ExactSum) -> Message:
    """A reply to training, judged against what its device was sent; of one that cannot be used, an error that says why.

    Args:
        message: that it replies to.
        reply: as it came.
        sent: what the message wants back, as it was sent.
        weight: if given, the reply's weighted delta is added to `total`, and its tensors are dropped.
        total: the sum.
    """
    try:
        with spend("transport"):
            new = wire.usable_adapter(reply, sent)
        if weight is not None:
            with spend("aggregate"):
                _sum_up(reply, new, sent, weight, total)
    except wire.UnusableReplyError as error:
        return wire.error_reply(error.word, error.detail, message)
    return reply


def _sum_up(reply: Message, new: Adapter, old: Adapter, weight: Weight, total: ExactSum) -> None:
    """Add the reply's weighted delta to the sum and drop its tensors."""
    try:
        measures = wire.measures_of(reply)
    except (KeyError, TypeError) as error:
        raise wire.UnusableReplyError(wire.MISSHAPEN, f"its metrics cannot be weighted: {error!r}") from error
    try:
        total.add(weight(measures), {name: new[name] - old[name] for name in new})
    except OutOfRangeError as error:
        raise wire.UnusableReplyError(wire.UNSUMMABLE, str(error)) from error
    del reply.content[wire.ARRAYS]


def _raised(error: Exception, message: Message) -> Message:
    """The reply for a device whose client raised."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    detail = f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"
    return wire.error_reply(wire.RAISED, detail, message)
