"""The fleet's budget in the round loop: allotments go out with the messages, and replies are booked as they come in."""

from collections import defaultdict
from collections.abc import Sequence

from flwr.app import Message

import flsim.flower.messages as wire
from flsim.budget.fleet import Allotment, FleetState, Report, allot, book, caps_of_run, first_state, taus_of_tests
from flsim.config.schema import Config
from flsim.devices import device_at, device_name
from flsim.metrics.rows import ASKED, Row, fleet_row

KINDS = ("calls", "tokens", "money")


class Treasurer:
    """Shares the fleet's budget out over the devices of a round; without a fleet budget it changes nothing.

    It takes the messages as any strategy made them, so that stock Flower strategies need not know of it.
    """

    def __init__(self, config: Config) -> None:
        self._budget, self._devices, self._rounds = config.budget, config.fleet.devices, config.rounds
        fleet = config.budget.fleet
        self.state: FleetState | None = None if fleet.rule is None else first_state(fleet)
        """What is kept between rounds; None without a fleet budget."""

    def allot(self, sent: Sequence[Message], round_: int) -> list[Message]:
        """A round's training messages, each with its device's allotment."""
        if self.state is None:
            return list(sent)
        cohort = [_receiver(message) for message in sent]
        dealt = allot(self._budget, self.state, cohort, round_, devices=self._devices, rounds=self._rounds)
        return [wire.with_allotment(message, dealt[_receiver(message)]) for message in sent]

    def allot_tests(self, sent: Sequence[Message]) -> list[Message]:
        """Evaluation messages, each with its device's share of the fleet's test budget."""
        if self.state is None:
            return list(sent)
        taus = taus_of_tests(self._budget, self.state, self._devices)
        return [wire.with_allotment(message, Allotment(test_tau=taus[_receiver(message)])) for message in sent]

    def book(self, sent: Sequence[Message], replies: Sequence[Message], round_: int) -> list[Row]:
        """Charge a round, and say what everyone was allotted and what the fleet has spent.

        Args:
            sent: the messages with their allotments.
            replies: of their devices; a failed reply, or one that does not say what was spent, is charged in full.
            round_: for the rows.
        """
        if self.state is None:
            return []
        dealt = {_receiver(message): wire.allotment_of(message) for message in sent}
        reports = {wire.device_of(reply): _report(reply) for reply in replies if not reply.has_error()}
        known = {device: report for device, report in reports.items() if report is not None}
        price = self.state.price
        self.state = book(self._budget, self.state, dealt, known)
        rows = [row for device, own in dealt.items() for row in _allotments(round_, device, own)]
        for kind, cap in caps_of_run(self._budget.fleet, self._rounds).items():
            spent = float(getattr(self.state, kind)) if cap else 0.0
            rows.append(fleet_row(round_, f"spent_{kind}", spent, float(cap)))
        if self._budget.fleet.rule == "price":
            rows.append(fleet_row(round_, "dual_variable", price, 1.0))
        return rows


def _receiver(message: Message) -> int:
    return device_at(message.metadata.dst_node_id)


def _report(reply: Message) -> Report | None:
    """What a reply's rows say of its round; None if they do not say how often the cloud was called."""
    totals: defaultdict[str, float] = defaultdict(float)
    responses = 0.0
    for row in wire.rows_of(reply):
        if row.split == "train":
            totals[row.name] += row.total
            responses += row.weight if row.name in ASKED else 0.0
    if "cloud_calls" not in totals:
        return None
    return Report(
        calls=round(totals["cloud_calls"]),
        tokens=round(totals["cloud_tokens"]),
        money=totals["cloud_money"],
        prompts=wire.measures_of(reply).num_examples,
        asked=sum(totals[name] for name in ASKED),
        responses=responses,
    )


def _allotments(round_: int, device: int, own: Allotment) -> list[Row]:
    """What a device was allotted, as rows of the device."""
    named = {f"allotment_{kind}": getattr(own, kind) for kind in KINDS} | {"target_usage": own.tau}
    where = (round_, device_name(device), "all", "train", "own")
    return [Row(*where, name, float(amount), 1.0) for name, amount in named.items() if amount is not None]
