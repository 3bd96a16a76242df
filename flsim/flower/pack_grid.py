"""A grid that answers the pack of one device, in this process and to be looked into, and then leaves the run.

What the device is sent is what a run sends it, since it is a run that sends it; who else is of its pack is answered
with it, as packs enter the last bits of a float.
"""

import inspect
import pdb
import sys
import traceback
from bdb import BdbQuit
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

from flwr.app import Context, Message, MessageType
from flwr.clientapp import ClientApp

from flsim.devices import device_at, node_of
from flsim.flower.contract import Weight
from flsim.flower.grid import LocalGrid
from flsim.flower.store import DeviceStore, Saved
from flsim.flower.work import PackedClientApp, PackResult, answer_pack


@dataclass(frozen=True)
class Answered:
    """What became of one device's training message."""

    sent: Message
    reply: Message
    pack: tuple[int, ...]
    """The devices that were answered together."""
    state: Saved | None
    """The state that the device left; None if it left none."""
    trace: str
    """What Python says of an error that the client raised; empty if it raised none."""


class LeftRun(Exception):
    """The pack was answered, and the run is left where it is."""

    def __init__(self, answered: Answered | None, asked: Sequence[int]) -> None:
        super().__init__("a grid of one pack leaves the run")
        self.answered = answered
        """None if the device was not asked."""
        self.asked = tuple(asked)
        """The devices that were, all packs together."""


class PackGrid(LocalGrid):
    """Answers the first training messages that a run sends, as far as they concern one device."""

    def __init__(self, app: ClientApp, store: DeviceStore, devices: int, device: int, *, debug: bool = False) -> None:
        """Prepare.

        Args:
            app: the client.
            store: the devices' states, in the folder of the run that is to be left.
            devices: size of the fleet.
            device: whose pack is answered.
            debug: whether to stop in pdb where the device learns, and where it raises.
        """
        self._device = device
        self._watch = _Watch(app, node_of(device), debug)
        watched = _Packed(self._watch) if isinstance(app, PackedClientApp) else _Single(self._watch)
        super().__init__(watched, store, devices, 1)

    def send_in_turn(
        self, messages: Iterable[Message], most: int, *, timeout: float | None = None
    ) -> Iterator[tuple[list[Message], list[Message]]]:
        """All at once, since of all of them one pack is answered."""
        yield from super().send_in_turn(list(messages), 2**62, timeout=timeout)

    def _answer(
        self, packs: Sequence[list[Message]], weight: Weight | None, timeout: float | None
    ) -> Iterator[PackResult]:
        """No result: it leaves.

        Raises:
            LeftRun: always, with what came of it.
        """
        yield from ()
        devices = [[device_at(message.metadata.dst_node_id) for message in pack] for pack in packs]
        asked = [device for own in devices for device in own]
        trains = all(m.metadata.message_type.startswith(MessageType.TRAIN) for pack in packs for m in pack)
        for pack, own in zip(packs, devices, strict=True):
            if self._device in own and trains:
                result = answer_pack(self._app, pack, self._store, self.devices, weight, self._saved(pack))
                at = own.index(self._device)
                reply = result.replies[at]
                trace = self._watch.trace if reply.has_error() else ""
                answered = Answered(pack[at], reply, tuple(own), result.saved.get(self._device), trace)
                raise LeftRun(answered, asked)
        raise LeftRun(None, asked)


class _Watch:
    """Looks on while a client answers."""

    def __init__(self, app: ClientApp, node: int, debug: bool) -> None:
        self.app, self.node, self.debug, self.trace = app, node, debug, ""

    def look(self, nodes: Sequence[int], call: Callable[..., Any], *given: Any) -> Any:
        """What the call returns; what it raises is noted, and looked at in the debugger."""
        concerned = self.node in nodes
        try:
            return _stepped(call, given, _learning(self.app)) if concerned and self.debug else call(*given)
        except Exception as error:
            if concerned:
                self.trace = traceback.format_exc()
                if self.debug and len(nodes) == 1:  # of several it may be another that raised; each is tried alone
                    print(self.trace, file=sys.stderr)
                    pdb.post_mortem(error.__traceback__)
            raise


class _Packed(PackedClientApp):
    """A client that answers packs, looked at."""

    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self._watch = watch

    def answer(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        """As the client does."""
        nodes = [context.node_id for context in contexts]
        app = self._watch.app
        assert isinstance(app, PackedClientApp)
        replies: list[Message] = self._watch.look(nodes, _all_of, app, messages, contexts)
        return replies


def _all_of(app: PackedClientApp, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
    """The replies, all of which are answered here, also those of a client that gives them one by one."""
    return list(app.answer(messages, contexts))


class _Single(ClientApp):
    """Any other client, looked at."""

    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self._watch = watch

    def __call__(self, message: Message, context: Context) -> Message:
        """As the client does."""
        reply: Message = self._watch.look([context.node_id], self._watch.app, message, context)
        return reply


def _learning(app: ClientApp) -> CodeType | None:
    """The code in which the devices of a pack learn, `local_update`; None where a client has no such method."""
    method = getattr(getattr(app, "algorithm", None), "local_update", None)
    return inspect.unwrap(method).__code__ if method is not None else None


def _stepped(call: Callable[..., Any], given: Sequence[Any], code: CodeType | None) -> Any:
    """A call in pdb, which stops at the first line of `code`; None stops at that of the call."""
    debugger = _Debugger(at_once=code is None)
    if code is not None:
        debugger.set_break(code.co_filename, code.co_firstlineno, funcname=code.co_name)
    return debugger.step_through(call, given)


class _Debugger(pdb.Pdb):
    """pdb that runs to its first breakpoint."""

    def __init__(self, *, at_once: bool) -> None:
        super().__init__(skip=[__name__] if at_once else None)  # the first line is one of the client's
        self._begun = at_once

    def step_through(self, call: Callable[..., Any], given: Sequence[Any]) -> Any:
        """What the call returns.

        Raises:
            KeyboardInterrupt: if the user quits; else the device would be set aside, and the others would go on.
        """
        self.reset()
        sys.settrace(self.trace_dispatch)
        try:
            return call(*given)
        except BdbQuit as stop:
            raise KeyboardInterrupt from stop
        finally:
            sys.settrace(None)
            self.clear_all_breaks()  # they are the class's, and would be met by the next debugger, too

    def user_line(self, frame: FrameType) -> None:
        """Stop, but not where the call begins."""
        if self._begun:
            super().user_line(frame)
        else:
            self._begun = True
            self.set_continue()
