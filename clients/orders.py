"""What devices that are measured ask of the cloud: all their test prompts, or those that their budgets grant."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from clients.asking.rule import Flags
from clients.device.answering import Problems
from clients.device.counts import Drawn
from clients.device.hints import answers_after
from clients.device.notes import cloud_facts
from clients.device.world import World
from clients.helping.helping import Asked, Caller, Exchanges
from flsim.cloud.buying import obtain
from flsim.cloud.draft import as_sent
from flsim.cloud.journal import Journal, lost_facts
from flsim.cloud.protocol import Answer, Basket
from flsim.devices import device_name
from flsim.problems.judging import are_right
from flsim.problems.problem import Problem
from flsim.seeding import seed_for


@dataclass(frozen=True)
class Help:
    """What the cloud does for the N test prompts of a device."""

    right: Flags
    """Whether the final answer is right if the prompt is sent, `(N,)`; the device's own where no answer came."""
    by_cloud: Flags
    """The same of the cloud's own answer, `(N,)`; another one only where devices are given hints."""
    came: Flags
    """Whether an answer came, `(N,)`: the prompt was sent, and the cloud did not fail."""
    facts: Mapping[str, float]
    """What it cost, by the names of rows; no ledger pays for an evaluation."""


@dataclass
class Order:
    """What a device that is measured asks of the cloud: all its test prompts, or the granted ones."""

    world: World
    problems: Sequence[Problem]
    """N of them."""
    worded: Sequence[Problem]
    """The same as they are sent, with the device's drafts where `cloud.draft` or `cloud.hint` says so."""
    journal: Journal
    purpose: str
    """The model that is measured, by which the journal knows the order."""
    caller: Caller | None = None
    """The device as a mode of help sees it, all of its questions; None where the cloud answers them by itself."""
    answers: dict[int, Answer] = field(default_factory=dict)
    """What came, by place."""
    endings: dict[int, str] = field(default_factory=dict)
    """What the device said after what came, by place, where it is given hints."""
    after: Drawn | None = None
    """What it read and drew for that, `(N,)`; None where it is given none."""
    basket: Basket = field(default_factory=Basket)

    def send(self, places: Sequence[int]) -> None:
        """Ask for these places."""
        self.take(places, obtain(self.world.cloud, self.purpose, self.wishes(places)))

    def wishes(self, places: Sequence[int]) -> list[tuple[Journal, Problem]]:
        """What is asked for at these places."""
        return [(self.journal, self.worded[place]) for place in places]

    def take(self, places: Sequence[int], answers: Sequence[Answer | None]) -> None:
        """Enter what came for these places."""
        for place, answer in zip(places, answers, strict=True):
            self.basket.add(answer, self.world.prices, self.worded[place])
            if answer is not None and not answer.void:
                self.answers[place] = answer

    def help(self, alone: Flags) -> Help:
        """What came of it, beside whether the device alone is right, `(N,)`."""
        right, came = alone.copy(), np.zeros_like(alone)  # (N,) each
        places = sorted(self.answers)
        came[places] = True
        right[places] = are_right([(self.problems[place], self.answers[place].text) for place in places])
        by_cloud = right.copy()  # (N,)
        ended = sorted(self.endings)
        right[ended] = are_right([(self.problems[place], self.endings[place]) for place in ended])
        return Help(right, by_cloud, came, cloud_facts(self.basket) | lost_facts(self.journal.left(self.purpose)))


def orders_of(
    world: World,
    problems: Problems,
    journals: Sequence[Journal],
    purpose: str,
    drafts: Sequence[Sequence[str]] | None = None,
    *,
    devices: Sequence[int] = (),
    knobs: Sequence[tuple[float, ...]] = (),
) -> list[Order]:
    """The orders of a pack; where all tests are sent, they are sent here, with drafts or before a rule has decided.

    Args:
        world: the worker's.
        problems: the tests of each device.
        journals: of each; empty outside of a run.
        purpose: the model that is measured.
        drafts: what the devices said before they asked; None is nothing.
        devices: their indices, for modes of help.
        knobs: what such a mode has learned on each; empty for nothing.
    """
    books = journals or [Journal(None, world.prices) for _ in problems]
    said = silent(problems) if drafts is None else drafts
    sent = [
        [as_sent(problem, draft, world.prices) for problem, draft in zip(tests, own, strict=True)]
        for tests, own in zip(problems, said, strict=True)
    ]
    parts = zip(problems, sent, books, strict=True)
    orders = [Order(world, tests, worded, journal, purpose) for tests, worded, journal in parts]
    if world.works_together:
        begun = said if world.goes_on else silent(problems)
        for k, (order, device) in enumerate(zip(orders, devices, strict=True)):
            order.caller = _caller(order, device, begun[k], knobs[k] if knobs else ())
    if world.asks_all_tests:
        for order in orders:
            order.send(range(len(order.problems)))
    return orders


def _caller(order: Order, device: int, said: Sequence[str], knob: tuple[float, ...]) -> Caller:
    """A device that is measured, as its mode of help sees it, with all its tests."""
    world, name = order.world, device_name(device)
    asked = [
        Asked(problem, begun, seed_for(world.seed, "help at tests", name, order.purpose, place))
        for place, (problem, begun) in enumerate(zip(order.worded, said, strict=True))
    ]
    return Caller(device, asked, knob or world.helping.first_knob)


def fulfil(world: World, orders: Sequence[Order], grants: Sequence[Flags], drafts: Sequence[Sequence[str]]) -> None:
    """Send what was granted, unless all was sent; and where devices are given hints, let them go on after each."""
    if world.works_together:
        _work_together(world, orders, [np.flatnonzero(granted).tolist() for granted in grants])
    elif not world.asks_all_tests:
        for order, granted in zip(orders, grants, strict=True):
            order.send(np.flatnonzero(granted).tolist())
    if world.hint is None:
        return
    places = [sorted(order.answers) for order in orders]
    said, drawn = answers_after(
        world,
        [[order.problems[place] for place in own] for order, own in zip(orders, places, strict=True)],
        [[draft[place] for place in own] for draft, own in zip(drafts, places, strict=True)],
        [
            {at: order.answers[place].text for at, place in enumerate(own)}
            for order, own in zip(orders, places, strict=True)
        ],
    )
    for order, own, texts, counted in zip(orders, places, said, drawn, strict=True):
        order.endings |= dict(zip(own, texts, strict=True))
        order.after = counted.at(own, len(order.problems))


def _work_together(world: World, orders: Sequence[Order], places: Sequence[Sequence[int]]) -> None:
    """Let the mode of help serve these places of every order, all in one go."""
    callers = []
    for order, own in zip(orders, places, strict=True):
        assert order.caller is not None, "orders of a mode of help know the device"
        callers.append(replace(order.caller, asked=[order.caller.asked[place] for place in own]))
    wishes = [wish for order, own in zip(orders, places, strict=True) for wish in order.wishes(own)]
    parts = world.cloud, orders[0].purpose, wishes, Exchanges(world.helping, world.pair, callers)
    answers = iter(obtain(*parts) if wishes else [])
    for order, own in zip(orders, places, strict=True):
        order.take(own, [next(answers) for _ in own])


def silent(problems: Problems) -> list[Sequence[str]]:
    """Drafts of devices that have said nothing."""
    return [[""] * len(tests) for tests in problems]
