"""The fleet on a real federation: a grid over Flower's own, in which every device is a node.

The round loop, strategies and budgets see what they see in a simulation: stable ids, replies in the order of the
devices, one device set aside for whatever goes wrong with its node. Every message says with which state its device is
to begin, so that a node that lost it, or has another one, cannot give a wrong number.
"""

import logging
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from flwr.app import Message, MessageType
from flwr.serverapp import Grid

import flsim.flower.messages as wire
from flsim.devices import device_at
from flsim.federation.envelope import Terms, with_terms
from flsim.federation.naming import name_in
from flsim.federation.opened import expected_of, opened
from flsim.federation.roster import Roster
from flsim.flower.contract import Weight
from flsim.flower.grid import FleetGrid
from flsim.flower.probe import Rehearsal
from flsim.flower.work import PackResult
from flsim.learning.exact_sum import ExactSum
from flsim.models.adapter import Adapter
from flsim.models.folder import sketch
from flsim.timing import RoundTiming

_FIRST_S, _LAST_S = 0.1, 2.0  # between two looks for replies: often at first, as where nodes are in this machine
_GRACE_S = 60.0  # that a message outlives its round, so that the round says who is late, and not the SuperLink
_LOG = logging.getLogger("flsim.run")


@dataclass(frozen=True)
class _Flight:
    """A message that is with a node."""

    sent: Message
    node: int
    started: float


class NodeGrid(FleetGrid):
    """Devices on the nodes of a Flower federation, each with the `partition-id` that is its device's index."""

    keeps_states = False

    def __init__(self, grid: Grid, folder: Path, devices: int, *, model: str, wait_s: float) -> None:
        """Prepare; nodes are waited for on `with`.

        Args:
            grid: Flower's.
            folder: of the run.
            devices: size of the fleet.
            model: `model.path`, which nodes must have, too.
            wait_s: seconds to wait for the nodes of all devices.
        """
        super().__init__(devices, 1)
        self.workers = devices
        self._flower, self._folder, self._wait_s = grid, folder, wait_s
        self._name, self._model = "", sketch(model)
        self._roster = Roster(grid, devices)
        self._shown: logging.Handler | None = None

    def __enter__(self) -> Self:
        """Name the run and wait until every device has a node.

        Raises:
            ConfigError: saying which have none.
        """
        self._shown = logging.StreamHandler(sys.stdout)  # what Flower shows whoever has started the run
        _LOG.addHandler(self._shown)
        try:
            self._name = name_in(self._folder)
            self._roster.gather(self._wait_s)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nodes stay as they are: they are not ours."""
        if self._shown is not None:
            _LOG.removeHandler(self._shown)
            self._shown = None

    def rehearse(self, messages: Sequence[Message]) -> Rehearsal:
        """Not offered: a node answers for one device, whatever would be fastest."""
        raise NotImplementedError("a federation has packs of one device: engine.pack=1")

    def timing(self, round_: int, wall_s: float) -> RoundTiming:
        """As ever, and a line of the round for whoever looks on."""
        there = sum(self._roster.node_of(device) is not None for device in range(self.devices))
        _LOG.info("round %d: %.1f s, %d of %d devices connected", round_, wall_s, there, self.devices)
        return super().timing(round_, wall_s)

    def _answer(
        self, packs: Sequence[list[Message]], weight: Weight | None, timeout: float | None
    ) -> Iterator[PackResult]:
        deadline = None if timeout is None else time.monotonic() + timeout
        self._roster.look_for([device_at(message.metadata.dst_node_id) for pack in packs for message in pack])
        wanted = _Wanted()
        flying: dict[str, _Flight] = {}
        for pack in packs:
            for message in pack:
                failed = self._send(message, flying, timeout)
                if failed is not None:
                    yield _failed(message, failed)
        pause = _FIRST_S
        while flying:
            for reply in list(self._flower.pull_messages(list(flying))):
                flight = flying.pop(reply.metadata.reply_to_message_id, None)
                if flight is not None:
                    yield self._taken_in(flight, reply, wanted, weight)
                    pause = _FIRST_S
            if flying and deadline is not None and time.monotonic() > deadline:
                for flight in flying.values():
                    yield _failed(flight.sent, (wire.LATE, f"no reply within {timeout:g} s"))
                return
            if flying:
                self._roster.look()
                time.sleep(pause)
                pause = min(_LAST_S, 1.3 * pause)

    def _send(self, message: Message, flying: dict[str, _Flight], timeout: float | None) -> tuple[str, str] | None:
        """Hand a message to the SuperLink; if that cannot be, the word and the detail of why."""
        device = device_at(message.metadata.dst_node_id)
        node = self._roster.node_of(device)
        if node is None:
            return wire.DIED, f"no SuperNode with partition-id={device} is connected"
        terms = Terms(self._name, self._model, device, self.devices, self._saved([message]).get(device))
        content, kind = with_terms(message.content, terms), message.metadata.message_type
        ttl = None if timeout is None else timeout + _GRACE_S
        letter = Message(content, node, kind, ttl=ttl, group_id=str(wire.round_of(message)))
        handed = [
            one for one in self._flower.push_messages([letter]) if one
        ]  # one at a time: it tells which one failed
        if not handed:
            return wire.DIED, "the SuperLink did not take its message"
        flying[handed[0]] = _Flight(message, node, time.perf_counter())
        return None

    def _taken_in(self, flight: _Flight, reply: Message, wanted: "_Wanted", weight: Weight | None) -> PackResult:
        """A reply, judged, and what its device left."""
        total, sent = ExactSum(), flight.sent
        found = opened(sent, reply, wanted.of(sent), weight, total)
        device, trains = device_at(sent.metadata.dst_node_id), sent.metadata.message_type.startswith(MessageType.TRAIN)
        saved, left = found.left.saved, found.reply
        if trains and saved is None and not left.has_error() and device in self._saved([sent]):
            left = wire.error_reply(wire.MISSHAPEN, "it names no state, though its device had one", sent)
        took = time.perf_counter() - flight.started
        busy = min(found.left.busy_s, took)
        parts = found.left.parts if sum(found.left.parts.values()) <= busy else {}
        result = PackResult([left], total, busy, parts, {} if saved is None else {device: saved})
        self._book_pack(result, took)
        return result


class _Wanted:
    """What messages want back, read once where they share it."""

    def __init__(self) -> None:
        self._read: dict[int, Adapter | None] = {}

    def of(self, message: Message) -> Adapter | None:
        key = id(wire.arrays_of(message))
        if key not in self._read:
            self._read[key] = expected_of(message)
        return self._read[key]


def _failed(message: Message, why: tuple[str, str]) -> PackResult:
    return PackResult([wire.error_reply(*why, message)], ExactSum(), 0.0, {})
