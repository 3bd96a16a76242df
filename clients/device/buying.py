"""What a pack gets of the cloud while it learns: questions that ledgers grant, bought once by the run's mode of help.

A query that the ledger refuses, or at which the cloud fails, is answered locally.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor

from clients.device.answering import Problems, answer_alone
from clients.device.device import Device
from clients.device.weighing import shares_of
from clients.device.world import World
from clients.helping.helping import Asked, Caller, Exchanges
from flsim.budget.ledger import Trip
from flsim.cloud.buying import buy
from flsim.cloud.draft import as_sent
from flsim.cloud.journal import TRAINING, digest_of
from flsim.cloud.protocol import Answer, bytes_sent
from flsim.problems.judging import are_right
from flsim.problems.problem import Problem
from flsim.seeding import seed_for
from flsim.timing import spend

Drafts = Mapping[tuple[int, int], str]  # by device and prompt
NO_DRAFTS: Drafts = MappingProxyType({})


@dataclass(frozen=True)
class Help:
    """What came of a pack's queries."""

    right: Tensor
    """1 where the cloud's answer is right, or the device's own try in its place, `(K, P)`."""
    came: Tensor
    """True where the cloud's answer came, `(K, P)`."""
    answers: Mapping[tuple[int, int], str]
    """The cloud's right answers, by device and prompt."""
    shares: Mapping[tuple[int, int], float] = field(default_factory=dict)
    """What help took of what asking for the same answer would have, in `budget.unit`, by device and prompt; nothing
    where help is asking."""


def ask_cloud(
    world: World,
    devices: Sequence[Device],
    problems: Problems,
    wanted: Tensor,
    tries: Tensor,
    *,
    max_new_tokens: int,
    drafts: Drafts = NO_DRAFTS,
    step: int = 0,
) -> Help:
    """What comes of the wanted queries `(K, P)`.

    Args:
        world: the worker's.
        devices: K of them.
        problems: of each device.
        wanted: what is asked, `(K, P)`.
        tries: where the device tries alone if the cloud does not answer, `(K, P)`.
        max_new_tokens: of such a try.
        drafts: what the devices said before they asked.
        step: of the round, for the seeds.
    """
    helped, came = torch.zeros(wanted.shape), torch.zeros(wanted.shape, dtype=torch.bool)  # (K, P) each
    answers = buy_answers(world, devices, problems, wanted, drafts, step=step)
    verdicts = are_right([(problems[k][p], answer.text) for (k, p), answer in answers.items()])
    for place, right in zip(answers, verdicts, strict=True):
        helped[place], came[place] = float(right), True
    said = {place: answers[place].text for place, right in zip(answers, verdicts, strict=True) if right}
    helped = helped + _tried_alone(world, devices, problems, tries & ~came, max_new_tokens)  # (K, P)
    return Help(helped, came, said, shares_of(world, devices, problems, answers))


def _tried_alone(
    world: World, devices: Sequence[Device], problems: Problems, wanted: Tensor, max_new_tokens: int
) -> Tensor:
    """1 where the device is right with asking disabled, among the wanted prompts `(K, P)`."""
    helped = torch.zeros(wanted.shape)  # (K, P)
    places = wanted.nonzero().tolist()
    if places:
        own = [[problems[k][p] for p, wish in enumerate(row) if wish] for k, row in enumerate(wanted.tolist())]
        texts = [text for row in answer_alone(world, own, max_new_tokens, devices) for text in row]
        verdicts = are_right([(problems[k][p], text) for (k, p), text in zip(places, texts, strict=True)])
        for (k, p), right in zip(places, verdicts, strict=True):
            helped[k, p] = float(right)
    return helped


def buy_answers(
    world: World,
    devices: Sequence[Device],
    problems: Problems,
    wanted: Tensor,
    drafts: Drafts = NO_DRAFTS,
    *,
    step: int = 0,
) -> dict[tuple[int, int], Answer]:
    """What comes of the wanted prompts `(K, P)` by the run's mode of help, by device and prompt.

    A prompt that a ledger refuses has none, nor one at which the cloud fails; such a one is paid only if it is billed.
    Where `cloud.draft` or `cloud.hint` says so, a prompt with one of the `drafts` is sent together with it; and a mode
    that goes on begins with them.
    """
    prices, helping = world.prices, world.helping
    granted: dict[tuple[int, int], tuple[Answer, Trip]] = {}  # with the quote that was reserved, and its longest trip
    answers: dict[tuple[int, int], Answer | None] = {}  # first those that an earlier attempt at the round has paid
    sent: dict[tuple[int, int], Problem] = {}  # in the words in which it is
    for k, p in wanted.nonzero().tolist():
        sent[k, p] = as_sent(problems[k][p], drafts.get((k, p), ""), prices)
        quote, name = helping.most(world.pair, sent[k, p]), digest_of(sent[k, p])
        most = devices[k].tariff.most(quote, bytes_sent(sent[k, p]))
        paid = devices[k].journal.recall(TRAINING, name)
        if devices[k].ledger.reserve(quote.tokens, quote.money(prices), most, again=paid is not None):
            granted[k, p] = quote, most
            if paid is not None:
                answers[k, p] = paid
                devices[k].journal.met(TRAINING, name)
    new = [place for place in granted if place not in answers]
    with spend("cloud"):
        said = buy(
            world.cloud,
            TRAINING,
            [(devices[k].journal, sent[k, p]) for k, p in new],
            _exchanges(world, devices, {place: sent[place] for place in new}, drafts, step),
        )
    answers |= dict(zip(new, said, strict=True))
    bought: dict[tuple[int, int], Answer] = {}
    for (k, p), (quote, most) in granted.items():
        answer = answers[k, p]
        devices[k].basket.add(answer, prices, sent[k, p])
        spare = most.beyond(devices[k].tariff.came(answer, bytes_sent(sent[k, p])))
        if answer is None:
            devices[k].ledger.cancel(quote.tokens, quote.money(prices), spare)
            continue
        devices[k].ledger.give_back(quote.tokens - answer.tokens, quote.money(prices) - answer.money(prices), spare)
        devices[k].sent.append(problems[k][p])
        if answer.exchange is not None:
            devices[k].counts.help(answer.exchange)
        if not answer.void:
            bought[k, p] = answer
    if world.works_together:
        _learn_mode(world, devices, {place: answers[place] for place in granted}, sent, drafts, step)
    return bought


def _exchanges(
    world: World,
    devices: Sequence[Device],
    sent: Mapping[tuple[int, int], Problem],
    drafts: Drafts,
    step: int,
) -> Exchanges | None:
    """What serves questions, by device and prompt, device by device; None where the cloud answers them by itself."""
    if not world.works_together:
        return None
    callers = [_caller(world, device, k, sent, drafts, step) for k, device in enumerate(devices)]
    return Exchanges(world.helping, world.pair, callers)


def _caller(
    world: World, device: Device, k: int, sent: Mapping[tuple[int, int], Problem], drafts: Drafts, step: int
) -> Caller:
    """Device k of a pack with its questions among those that are sent."""
    asked = [
        Asked(problem, drafts.get(place, ""), seed_for(world.seed, "help", device.name, device.round, step, place[1]))
        for place, problem in sent.items()
        if place[0] == k
    ]
    return Caller(device.index, asked, device.knob or world.helping.first_knob)


def _learn_mode(
    world: World,
    devices: Sequence[Device],
    answers: Mapping[tuple[int, int], Answer | None],
    sent: Mapping[tuple[int, int], Problem],
    drafts: Drafts,
    step: int,
) -> None:
    """Let the mode of help learn on every device from what came of its questions, by device and prompt."""
    for k, device in enumerate(devices):
        own = {place: sent[place] for place in answers if place[0] == k}
        if own:
            caller = _caller(world, device, k, own, drafts, step)
            device.knob = world.helping.learned(world.pair, caller, [answers[place] for place in own])
