"""What a rule for asking is: for every test prompt of a pack a wish to ask or not, and a score of the need for help.

A rule decides at test time only, with the devices' adapters in use, whatever the learner was. Which wishes the budget
grants is not its business (`clients/evaluate.py`). The page docs/asking.md lists the rules and shows how to write one.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from clients.device.answering import Problems
from clients.device.counts import Drawn
from clients.device.world import World
from flsim.cloud.cached import at_hand
from flsim.problems.judging import are_right
from flsim.problems.problem import Problem

Flags = NDArray[np.bool_]
Scores = NDArray[np.float64]


TEXTS, CHOICES = "texts", "choices"
"""What is kept in `Examined.heard` beside what `clients.asking.alone.hear` keeps: bare answers, and decisions."""


@dataclass(frozen=True)
class Examined:
    """Devices before their test sets; their adapters are in use."""

    world: World
    devices: Sequence[int]
    """Indices of the K devices."""
    tests: Problems
    """The test problems of each device; only an oracle looks at their answers before it has decided."""
    taus: Sequence[float]
    """The share of its test prompts that each device may send."""
    biases: Sequence[float] = ()
    """What each device adds to the logit of its own help request; empty for no biases."""
    heard: dict[Hashable, Any] = field(default_factory=dict)
    """What the devices have said to questions with asking disabled (`clients.asking.alone.hear`), and what rules have
    decided; rules and models that look at the same adapters share it, so that one pass over the questions serves them
    all."""


@dataclass(frozen=True)
class Choice:
    """What a rule decided for the N test prompts of one device.

    Raises:
        ValueError: if these differ in length, a score is not finite, or a claim is no chance.
    """

    alone: Flags
    """Whether the device is right with asking disabled, `(N,)`."""
    wishes: Flags
    """Whether it would send the prompt, `(N,)`."""
    scores: Scores
    """How much the prompt needs help, higher for more, `(N,)`; only their order means something."""
    drafts: tuple[str, ...] | None = None
    """What it said before it asked, N of them, "" for nothing; None where the rule decides after the whole answer."""
    claims: Scores | None = None
    """The chance that the device alone is wrong, as the rule has it, in [0, 1], `(N,)`; None if it claims none."""
    drawn: Drawn | None = None
    """What it read and drew until the rule decided; None where that is the answer with asking disabled."""
    again: Drawn | None = None
    """What it reads and draws besides where it asked and nothing comes of it; None for nothing."""

    def __post_init__(self) -> None:
        shapes = self.alone.shape, self.wishes.shape, self.scores.shape
        if shapes != (self.alone.shape,) * 3 or self.alone.ndim != 1:
            raise ValueError(f"alone, wishes and scores of shapes {shapes} must have one entry per test prompt, (N,)")
        if not np.isfinite(self.scores).all():
            raise ValueError(f"scores must be finite; {int((~np.isfinite(self.scores)).sum())} of them are not")
        if self.claims is not None and (
            self.claims.shape != self.alone.shape or not ((self.claims >= 0) & (self.claims <= 1)).all()
        ):
            raise ValueError(
                "claims must be chances in [0, 1] of being wrong alone, one per test prompt; a score that is none "
                "claims nothing: leave them out"
            )


@runtime_checkable
class AskingRule(Protocol):
    """Anything that decides for a pack."""

    def decide(self, pack: Examined) -> list[Choice]:
        """One choice per device, in the order of the pack."""
        ...


@runtime_checkable
class NeedsTheCloud(Protocol):
    """A rule that says whether it looks at the cloud's answers before it decides."""

    @property
    def asks_all(self) -> bool:
        """Whether it needs the cloud's answer to every test prompt, granted or not."""
        ...


def asks_all(rule: AskingRule) -> bool:
    """Whether a rule needs the cloud's answer to every test prompt; one that does not say so needs none."""
    return isinstance(rule, NeedsTheCloud) and rule.asks_all


@runtime_checkable
class ReadsTheQuestion(Protocol):
    """A rule that says whether it decides by the question alone, before the device has said anything."""

    @property
    def by_question(self) -> bool:
        """Whether a device need not answer what it sends."""
        ...


def by_question(rule: AskingRule) -> bool:
    """Whether a rule decides by the question alone; one that does not say so looks at what the device says."""
    return isinstance(rule, ReadsTheQuestion) and rule.by_question


def decide(rule: AskingRule, pack: Examined) -> list[Choice]:
    """What a rule decides, checked; what it has decided before of the same adapters, tests and shares is that.

    Raises:
        ValueError: unless there is one choice per device with one entry for each of its test prompts.
    """
    biases = tuple(pack.biases) if any(pack.biases) else ()
    key = (CHOICES, id(rule), tuple(pack.devices), named(pack.tests), tuple(pack.taus), biases)
    if key not in pack.heard:
        pack.heard[key] = _decided(rule, pack)
    found: list[Choice] = pack.heard[key]
    return found


def named(problems: Problems) -> Hashable:
    """Problems as a key."""
    return tuple(tuple(row) for row in problems)


def _decided(rule: AskingRule, pack: Examined) -> list[Choice]:
    choices = rule.decide(pack)
    expected, given = [len(row) for row in pack.tests], [len(choice.alone) for choice in choices]
    if given != expected:
        raise ValueError(
            f"{type(rule).__name__}.decide gave choices for {given} prompts; return one Choice for each device of the "
            f"pack, in its order, with one entry for each of its tests, here {expected}"
        )
    return choices


def right_alone(problems: Sequence[Problem], texts: Sequence[str]) -> Flags:
    """Whether each answer is right, `(N,)`."""
    return np.array(are_right(list(zip(problems, texts, strict=True))), dtype=bool)


def cloud_right(world: World, problems: Sequence[Problem]) -> Flags:
    """Whether the cloud answers and is right, `(N,)`; what costs anything was bought before the rule was asked."""
    answers = enumerate(at_hand(world.cloud, problems))
    came = {place: answer.text for place, answer in answers if answer is not None}
    right = np.zeros(len(problems), dtype=bool)  # (N,)
    right[list(came)] = are_right([(problems[place], text) for place, text in came.items()])
    return right
