"""One round: the cohort learns, the strategy aggregates, the fleet is measured. It knows no algorithm."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp.strategy import Strategy

import flsim.flower.messages as wire
from flsim.budget.ledger import Account
from flsim.config.schema import Config
from flsim.devices import device_at, device_name
from flsim.flower.arrays import to_adapter, to_arrays
from flsim.flower.contract import Deals, LeavesOut, Stage, TakesMean, Weight, weighed_by
from flsim.flower.grid import FleetGrid
from flsim.flower.returned import next_adapter
from flsim.flower.store import Saved
from flsim.learning.exact_sum import ExactSum
from flsim.loop.health import HealthReader
from flsim.loop.timekeeper import NOT_TIMED, Timekeeper
from flsim.loop.treasurer import Treasurer, bought_for_tests, spent_in_training
from flsim.metrics.rows import Row
from flsim.metrics.timed import user_facts
from flsim.models.adapter import Adapter
from flsim.seeding import generator, seed_globals
from flsim.tasks.stream import TaskStream
from flsim.tasks.testing import panel_of
from flsim.timing import spend

_AT_ONCE = 256  # devices whose replies the server holds at a time, where it writes them down


@dataclass(frozen=True)
class Rounds:
    """What all rounds of a run share."""

    config: Config
    strategy: Strategy
    stage: Stage | None
    treasurer: Treasurer
    timekeeper: Timekeeper | None
    """None without virtual time."""
    grid: FleetGrid
    log: logging.Logger

    def train(self, adapter: Adapter, round_: int, *, measured: bool) -> tuple[Adapter, list[Row]]:
        """Let the cohort learn and aggregate what can be used.

        Args:
            adapter: the server's.
            round_: the round, from 1.
            measured: whether devices measure their own adapter after their local steps.

        Returns:
            The next adapter, and what was measured on the way.

        Raises:
            StrategyError: if the strategy returns what cannot be the next adapter.
        """
        drawn = cohort(self.config, round_)
        self.grid.open_to(drawn if self.timekeeper is None else self.timekeeper.invite(drawn, round_))
        with spend("aggregate"):
            seed_globals(self.config.seed, "strategy", round_)
            instructions = ConfigRecord({wire.EVALUATE_LOCAL: measured, **self._time()})
            sent = list(self.strategy.configure_train(round_, to_arrays(adapter), instructions, self.grid))
            sent = self.treasurer.allot(sent, round_)
        weight = self._weight(len(sent))
        replies, total, taken_in = self._ask(sent, weight, round_)
        with spend("transport"):
            timed = self.timekeeper
            closed = NOT_TIMED if timed is None else timed.close(sent, replies, round_, taken_in)
            usable, rows = self._inspect(sent, replies, round_, closed.set_aside)
            rows += closed.rows
            more, spent = self._unheard(replies, round_)
            rows += more + self.treasurer.book(sent, replies, round_, spent)
            if closed.landed is not None:
                usable, sent = closed.landed, _began(closed.landed, sent)
        with spend("aggregate"):
            seed_globals(self.config.seed, "strategy", round_)  # again: a client in this process may have drawn
            intact = [wire.own_copy(reply) for reply in usable]  # some strategies empty or change the replies
            if weight is not None and isinstance(self.strategy, TakesMean):
                new, _ = self.strategy.aggregate_mean(round_, usable, total)
            else:
                new, _ = self.strategy.aggregate_train(round_, self._weighable(usable, adapter))
            rows += self._left_out(round_)
            rows += self._health.rows(self.strategy, adapter, sent, intact, round_)
            if new is not None:
                adapter = next_adapter(self.strategy, to_adapter(new), like=adapter)
        if self.stage is not None:
            residual = self.strategy.residual if isinstance(self.strategy, Deals) else None
            adapter, more = self.stage.after_round(round_, adapter, usable, residual)
            rows += more
        return adapter, rows

    def _ask(
        self, sent: Sequence[Message], weight: Weight | None, round_: int
    ) -> tuple[list[Message], ExactSum, dict[int, Saved] | None]:
        """The replies, their sum where workers sum, and where they lie if they are to be aggregated later."""
        limit = self.config.engine.timeout_s
        if self.timekeeper is None or not self.timekeeper.buffered:
            return *self.grid.send_and_sum(sent, weight, timeout=limit), None
        replies, taken_in = list[Message](), dict[int, Saved]()
        for some, said in self.grid.send_in_turn(sent, _AT_ONCE, timeout=limit):
            with spend("transport"):
                taken_in |= self.timekeeper.hangar.take_in(some, said, round_)
            replies += said
        return replies, ExactSum(), taken_in

    def _time(self) -> dict[str, int]:
        """What time it is, for strategies whose samplers go by it; no other one is told."""
        if self.timekeeper is None or not isinstance(self.strategy, Deals):
            return {}
        return {wire.NOW: self.timekeeper.state.now}

    def evaluate(self, adapter: Adapter, round_: int) -> list[Row]:
        """Measure the adapter on the devices of the panel, whatever part of the fleet the strategy would sample."""
        tested = evaluated(self.config)
        self.grid.open_to(tested)
        replies = self.grid.send_and_receive(self._tests(adapter, round_), timeout=self.config.engine.timeout_s)
        with spend("aggregate"):
            self.strategy.aggregate_evaluate(round_, self._weighable(replies))
        timed = self.timekeeper if round_ == 0 else None
        rows = [] if timed is None else user_facts(timed.system, tested, round_)
        with spend("transport"):
            for reply in replies:
                if reply.has_error():
                    name = device_name(wire.device_of(reply))
                    self.log.warning("round %d: no evaluation of %s: %s", round_, name, reply.error.reason)
                else:
                    rows += wire.rows_of(reply)
        lacking = [wire.device_of(reply) for reply in replies if reply.has_error()]
        return rows + [row for device in lacking for row in bought_for_tests(self.config, device, round_)]

    def _unheard(self, replies: Sequence[Message], round_: int) -> tuple[list[Row], dict[int, Account]]:
        """What devices spent whose replies cannot be used, as rows and by device."""
        rows: list[Row] = []
        spent: dict[int, Account] = {}
        for device in (wire.device_of(reply) for reply in replies if reply.has_error()):
            trained, account = spent_in_training(self.config, device, round_)
            rows += trained + bought_for_tests(self.config, device, round_)
            spent |= {} if account is None else {device: account}
        return rows, spent

    @cached_property
    def _health(self) -> HealthReader:
        return HealthReader(self.config, self.log)

    def _tests(self, adapter: Adapter, round_: int) -> list[Message]:
        """The adapter to everybody who is tested, as the strategy deals it or as it is."""
        nodes, arrays = self.grid.get_node_ids(), to_arrays(adapter)
        content = wire.instruction(arrays, round_=round_, references=round_ == 0)
        if isinstance(self.strategy, Deals):
            config = content.config_records[wire.CONFIG]
            return self.treasurer.allot_tests(self.strategy.messages(arrays, config, nodes, MessageType.EVALUATE))
        return self.treasurer.allot_tests([Message(content, node, MessageType.EVALUATE) for node in nodes])

    def _weight(self, devices: int) -> Weight | None:
        """What the workers sum with; None if they are to hand the adapters over."""
        selects = self.timekeeper is not None and self.timekeeper.selects
        if devices <= self.config.engine.stream or not isinstance(self.strategy, TakesMean) or selects:
            return None
        return self.strategy.streamed_weight

    def _weighable(self, replies: Sequence[Message], adapter: Adapter | None = None) -> list[Message]:
        """What a strategy can aggregate: a stock one divides by the sum of all weights, which must not be 0.

        To a stock strategy an update of an earlier version comes as one of the present `adapter`.
        """
        if isinstance(self.strategy, Deals):
            return list(replies)
        if adapter is not None:
            replies = [_of_today(reply, adapter) for reply in replies]
        key, found, total = weighed_by(self.strategy), list[Message](), 0.0
        for reply in replies:
            try:
                total += 0.0 if reply.has_error() else wire.count_of(reply, key) or 0.0
                found.append(reply)
            except wire.UnusableReplyError as error:  # of an evaluation, whose rows count all the same
                self.log.warning("%s is no part of the strategy's mean: %s", device_name(wire.device_of(reply)), error)
        return found if total > 0 else []

    def _left_out(self, round_: int) -> list[Row]:
        """The rows of those whose update the strategy could not use."""
        left_out = self.strategy.left_out if isinstance(self.strategy, LeavesOut) else {}
        for device, why in left_out.items():
            self.log.warning("round %d: %s is set aside, %s: %s", round_, device_name(device), wire.UNSUMMABLE, why)
        return [_fact(round_, device, "set_aside", 1.0, task=wire.UNSUMMABLE) for device in left_out]

    def _inspect(
        self, sent: Sequence[Message], replies: Sequence[Message], round_: int, missed: Mapping[int, str]
    ) -> tuple[list[Message], list[Row]]:
        """The replies that can be aggregated, and the rows of all; who is set aside is logged with the reason.

        The workers have judged each reply against what its device was sent, and turned what cannot be used into errors.
        Of those who `missed` the end of the round in virtual time, each with the word for it, all else has happened.
        """
        usable, rows = [], []
        sizes = {key: wire.size_of(m) for key, m in {id(wire.arrays_of(m)): m for m in sent}.items()}
        for message in sent:
            device = device_at(message.metadata.dst_node_id)
            rows.append(_fact(round_, device, "downlink_bytes", sizes[id(wire.arrays_of(message))]))
        for reply in replies:
            device = wire.device_of(reply)
            refused = self._refused(reply)
            if refused is not None:
                word, detail = refused
                self.log.warning("round %d: %s is set aside, %s: %s", round_, device_name(device), word, detail)
                rows.append(_fact(round_, device, "set_aside", 1.0, task=word))
                continue
            rows += wire.rows_of(reply)
            if device in missed:
                rows.append(_fact(round_, device, "set_aside", 1.0, task=missed[device]))
            else:
                usable.append(reply)
                rows.append(_fact(round_, device, "uplink_bytes", wire.uplink_of(reply)))
            seconds = wire.seconds_of(reply)
            if seconds is not None:
                rows.append(_fact(round_, device, "seconds", seconds))
        return usable, rows

    def _refused(self, reply: Message) -> tuple[str, str] | None:
        """Why a training reply cannot be used, as a word and its detail; None if it can."""
        if reply.has_error():
            return wire.reason_of(reply)
        key = weighed_by(self.strategy)
        try:
            counted = wire.count_of(reply, key)
        except wire.UnusableReplyError as error:
            return error.word, error.detail
        return None if counted is not None else (wire.MISCOUNTED, f"its metrics hold no {key!r}")


def _of_today(reply: Message, adapter: Adapter) -> Message:
    """A reply as if its device had begun with the present adapter, and with no other tensors than Flower's own has."""
    if reply.has_error() or wire.BEGUN not in reply.content:
        return reply
    stale = wire.stale_of(reply)
    content = RecordDict({name: one for name, one in reply.content.items() if name != wire.BEGUN})
    if stale is not None:
        content[wire.ARRAYS] = to_arrays(wire.moved(adapter, stale[0], wire.adapter_of(reply), stale[1]))
    return wire.with_content(reply, content)


def _began(replies: Sequence[Message], sent: Sequence[Message]) -> list[Message]:
    """The instructions that replies answer, of this round or of an earlier one."""
    asked, found = {message.metadata.dst_node_id: message for message in sent}, []
    for reply in replies:
        node, begun = reply.metadata.src_node_id, RecordDict({wire.ARRAYS: reply.content.array_records[wire.BEGUN]})
        found.append(asked[node] if node in asked else Message(begun, node, MessageType.TRAIN))
    return found


def cohort(config: Config, round_: int) -> list[int]:
    """The devices of a round, a pure function of (seed, round), sorted."""
    count = config.invited(round_)
    chosen = generator(config.seed, "cohort", round_).choice(config.fleet.devices, count, replace=False)
    return sorted(int(device) for device in chosen)


def evaluated(config: Config) -> Sequence[int]:
    """The devices that are tested, sorted."""
    return panel_of(config.evaluation, config.fleet, TaskStream(config.stream, config.rounds))


def _fact(round_: int, device: int, name: str, total: float, *, task: str = "all") -> Row:
    return Row(round_, device_name(device), task, "train", "own", name, total, 1.0)
