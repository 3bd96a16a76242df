"""Buying what budgets have granted, with every buyer's journal kept: first what was paid before, then what is new."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from flsim.cloud.cached import known
from flsim.cloud.journal import Journal, digest_of
from flsim.cloud.protocol import MONEY, Answer, Cloud, bytes_sent
from flsim.problems.problem import Problem


class Service(Protocol):
    """What serves wishes, by their places among them, where that is more than one question to the cloud each."""

    def quote(self, place: int) -> Answer:
        """The most that one can take."""
        ...

    def serve(self, places: Sequence[int]) -> Sequence[Answer | None]:
        """What comes of some, in order; None where the cloud failed."""
        ...


def obtain(
    cloud: Cloud, purpose: str, wishes: Sequence[tuple[Journal, Problem]], service: Service | None = None
) -> list[Answer | None]:
    """Like `buy`, but take first what earlier attempts were given."""
    answers: list[Answer | None] = []
    for journal, problem in wishes:
        answers.append(journal.recall(purpose, digest_of(problem)))
        if answers[-1] is not None:
            journal.met(purpose, digest_of(problem))
    new = [at for at, answer in enumerate(answers) if answer is None]
    left = None if service is None else _Part(service, new)
    for at, answer in zip(new, buy(cloud, purpose, [wishes[at] for at in new], left), strict=True):
        answers[at] = answer
    return answers


@dataclass(frozen=True)
class _Part:
    """The service of some of its wishes."""

    whole: Service
    places: Sequence[int]

    def quote(self, place: int) -> Answer:
        return self.whole.quote(self.places[place])

    def serve(self, places: Sequence[int]) -> Sequence[Answer | None]:
        return self.whole.serve([self.places[place] for place in places])


def buy(
    cloud: Cloud, purpose: str, wishes: Sequence[tuple[Journal, Problem]], service: Service | None = None
) -> list[Answer | None]:
    """Ask the cloud what budgets have granted, and keep every buyer's journal.

    Args:
        cloud: that of the devices; before one that is not free stands a cache.
        purpose: `TRAINING`, or the model that is measured.
        wishes: who asks what; the answers are in this order, None where the cloud failed.
        service: what comes of them; None sends each question to the cloud.
    """
    problems = [problem for _, problem in wishes]
    names = [digest_of(problem) for problem in problems]
    answers: list[Answer | None] = [None] * len(wishes) if service else known(cloud, problems)
    for at, ((journal, _), answer) in enumerate(zip(wishes, answers, strict=True)):
        if answer is not None and journal.found(purpose, names[at]):
            answers[at] = replace(answer, cached=False)
    new = [at for at, answer in enumerate(answers) if answer is None]
    first = {names[at]: at for at in reversed(new)}  # a question of two is sent for the first of them
    sent = [] if cloud.costs != MONEY else sorted(first.values()) if service is None else new
    quotes = {at: (names[at], cloud.quote(problems[at]) if service is None else service.quote(at)) for at in sent}
    sizes = {name: bytes_sent(problem) for name, problem in zip(names, problems, strict=True)}
    for journal, own in _by_journal(wishes, list(quotes)):
        journal.send(purpose, [quotes[at] for at in own], sizes)
    said = cloud.answer([problems[at] for at in new]) if service is None else service.serve(new)
    for at, answer in zip(new, said, strict=True):
        answers[at] = answer if service is None else _met(wishes[at][0], purpose, names[at], answer)
    for journal, own in _by_journal(wishes, range(len(wishes))):
        journal.close(purpose, [(names[at], answers[at]) for at in own], sizes)
    return answers


def _met(journal: Journal, purpose: str, name: str, answer: Answer | None) -> Answer | None:
    """What came of a wish that a mode serves: where all its requests were cached, an ended attempt may have paid them.

    Then nothing was on its way when that attempt ended, and its wish is no longer held as lost.
    """
    if answer is None or not answer.cached or not journal.found(purpose, name):
        return answer
    journal.close(purpose, [(name, None)])  # of its two lines that say it was sent, what came ends the other
    return replace(answer, cached=False)


def _by_journal(wishes: Sequence[tuple[Journal, Problem]], places: Iterable[int]) -> list[tuple[Journal, list[int]]]:
    found: dict[int, tuple[Journal, list[int]]] = {}
    for at in places:
        journal = wishes[at][0]
        found.setdefault(id(journal), (journal, []))[1].append(at)
    return list(found.values())
