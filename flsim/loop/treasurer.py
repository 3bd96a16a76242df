"""Budgets in the round loop: allotments go out with the messages, and what came of them is booked.

What a device spent stands in its reply, and where no reply can be used in its journal (`flsim/cloud/journal.py`).
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from types import MappingProxyType

from flwr.app import Message

import flsim.flower.messages as wire
from flsim.budget.fleet import Allotment, FleetState, Report, allot, book, caps_of_run, first_state, taus_of_tests
from flsim.budget.ledger import Account
from flsim.cloud.journal import PURCHASES, TESTS, TRAINING, Journal, lost_facts, path_of
from flsim.cloud.protocol import NOTHING
from flsim.config.schema import Config
from flsim.devices import device_at, device_name
from flsim.metrics.rows import ASKED, Row, Subject, fleet_row
from flsim.storage.behind import bring

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

    def charge(self, spent: Account) -> None:
        """Charge the fleet what the server has spent for all devices before the first round."""
        if self.state is not None:
            self.state = replace(
                self.state,
                calls=self.state.calls + spent.calls,
                tokens=self.state.tokens + spent.tokens,
                money=self.state.money + Fraction(spent.money),
            )

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
        taus = taus_of_tests(self._budget, self.state, [*map(_receiver, sent)], devices=self._devices)
        return [wire.with_allotment(message, Allotment(test_tau=taus[_receiver(message)])) for message in sent]

    def book(
        self,
        sent: Sequence[Message],
        replies: Sequence[Message],
        round_: int,
        unheard: Mapping[int, Account] = MappingProxyType({}),
    ) -> list[Row]:
        """Charge a round, and say what everyone was allotted and what the fleet has spent.

        Args:
            sent: the messages with their allotments.
            replies: of their devices; a failed reply, or one that does not say what was spent, is charged in full.
            round_: for the rows.
            unheard: what devices without a reply have spent, where it is known: they are charged that.
        """
        if self.state is None:
            return []
        dealt = {_receiver(message): wire.allotment_of(message) for message in sent}
        reports = {wire.device_of(reply): _report(reply) for reply in replies if not reply.has_error()}
        known = {device: report for device, report in reports.items() if report is not None}
        price = self.state.price
        spent = {
            device: Allotment(calls=own.calls, tokens=own.tokens, money=own.money) for device, own in unheard.items()
        }
        self.state = book(self._budget, self.state, {**dealt, **spent}, known)
        rows = [row for device, own in dealt.items() for row in allotment_rows(round_, device, own)]
        for kind, cap in caps_of_run(self._budget.fleet, self._rounds).items():
            charged = float(getattr(self.state, kind)) if cap else 0.0
            rows.append(fleet_row(round_, f"spent_{kind}", charged, float(cap)))
        if self._budget.fleet.rule == "price":
            rows.append(fleet_row(round_, "dual_variable", price, 1.0))
        return rows


def spent_in_training(config: Config, device: int, round_: int) -> tuple[list[Row], Account | None]:
    """What a device spent in a round of which it sent no reply that can be used: rows, and their sum.

    Args:
        config: of the run, with its folder.
        device: its index.
        round_: the round.

    Returns:
        No rows and None if the device kept no journal: it asked nothing, or its client keeps none.
    """
    of = Subject(round_, device_name(device), "train", "own")
    path = path_of(config.folder / PURCHASES / of.device, round_, TRAINING)
    bring(path)
    if not path.is_file():
        return [], None
    journal = Journal(path, config.cloud)
    spent = journal.spent(TRAINING)
    paid = spent.basket.charged
    facts = {"cloud_calls": paid.calls, "cloud_tokens": paid.tokens, "cloud_money": paid.money}
    split = spent.basket.prompt_tokens, spent.basket.completion_tokens
    facts |= dict(zip(("cloud_prompt_tokens", "cloud_completion_tokens"), split, strict=True))
    facts |= spent.basket.bought_facts() if journal.costs != NOTHING else {}
    rows = [of.row(name, value) for name, value in (facts | lost_facts(spent.lost)).items()]
    return rows, paid.plus(spent.lost)


def bought_for_tests(config: Config, device: int, round_: int) -> list[Row]:
    """Likewise what was bought to measure models of a device; no ledger paid for it."""
    name = device_name(device)
    path = path_of(config.folder / PURCHASES / name, round_, TESTS)
    bring(path)
    journal = Journal(path, config.cloud) if path.is_file() else None
    if journal is None or journal.costs == NOTHING:
        return []
    rows = []
    for model in journal.purposes:
        spent, of = journal.spent(model), Subject(round_, name, config.evaluation.split, model)
        facts = spent.basket.bought_facts() | lost_facts(spent.lost)
        rows += [of.row(name, value) for name, value in facts.items()]
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
        calls=round(totals["cloud_calls"] + totals["lost_calls"]),
        tokens=round(totals["cloud_tokens"] + totals["lost_tokens"]),
        money=totals["cloud_money"] + totals["lost_money"],
        prompts=wire.measures_of(reply).num_examples,
        asked=sum(totals[name] for name in ASKED),
        responses=responses,
    )


def allotment_rows(round_: int, device: int, own: Allotment) -> list[Row]:
    """What a device was allotted, as rows of the device."""
    named = {f"allotment_{kind}": getattr(own, kind) for kind in KINDS} | {"target_usage": own.tau}
    where = (round_, device_name(device), "all", "train", "own")
    return [Row(*where, name, float(amount), 1.0) for name, amount in named.items() if amount is not None]
