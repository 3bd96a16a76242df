"""Ask above a threshold: the one that lets a device send the share tau of its calibration questions.

RouteLLM (Ong et al. 2024, arXiv 2406.18665) sets it so, by a quantile of the scores. Equal scores are put in a random
order that is fixed per device and split: a rule whose scores are all equal then sends a share tau at random.
With pacing the threshold moves with what is left of the budget (`clients/asking/pacing.py`).

Calibration questions are a device's own, of its tasks and mixture, from a split that is not the one to be measured on:
for tests the `validation` split, and while settings are chosen on `validation`, `train`, by a draw of its own. A
question's split is a hash of its text, so no calibration question is ever in the measured set.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from clients.asking.alone import Alone, hear
from clients.asking.pacing import paced, ranked
from clients.asking.rule import Choice, Examined, Flags, Scores, right_alone
from clients.device.answering import Problems
from clients.device.world import World
from flsim.devices import device_name
from flsim.problems.problem import Problem
from flsim.seeding import generator
from flsim.tasks.stream import TaskStream
from flsim.tasks.testing import SOURCE, set_apart


def calibration_questions(world: World, device: int, per_task: int) -> list[Problem]:
    """Up to `per_task` questions of each task of the stream, without repeats."""
    return [problem for own in set_apart(*_which(world, device), per_task) for problem in own]


def calibration_halves(world: World, device: int, per_task: int) -> tuple[list[Problem], list[Problem]]:
    """The same questions, half of each task's to learn from, and the others to set a threshold on."""
    sets = set_apart(*_which(world, device), per_task)
    learned = [problem for own in sets for problem in own[: len(own) // 2]]
    return learned, [problem for own in sets for problem in own[len(own) // 2 :]]


def enough(calibration: int, *, least: int) -> None:
    """Refuse a number of questions per task that a threshold cannot be set on.

    Raises:
        ValueError: unless it is a whole number of at least `least`.
    """
    if not isinstance(calibration, int) or isinstance(calibration, bool) or calibration < least:
        halves = "; half of them are learned from, the others set the threshold" if least > 1 else ""
        raise ValueError(
            f"calibration={calibration!r} must be a whole number of at least {least}: questions per task{halves}"
        )


def _which(world: World, device: int) -> tuple[TaskStream, str, str]:
    return world.stream, device_name(device), SOURCE[world.split]


Score = Callable[[Alone], Scores]
"""How much each of N prompts needs help, `(N,)`, from the device's own answers."""


Learn = Callable[[Alone, Flags], Score]
"""A score that was learned from answers and whether they are right, `(N,)`, of one device."""


Claim = Callable[[Scores, Alone], Scores | None]
"""The chance of being wrong alone that scores `(N,)` of answers stand for, `(N,)`; None if they stand for none."""


@dataclass(frozen=True)
class Scored(ABC):
    """A rule with a score that is the same for all devices, and a threshold for each."""

    calibration: int = 32
    """Questions per task and device that the threshold is set on."""
    pacing: bool = False
    """Whether the threshold is set anew at every prompt, by what is left of the budget; all of it is then used."""

    looks_at_entropies: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        enough(self.calibration, least=1)
        yes_or_no(self.pacing)

    def decide(self, pack: Examined) -> list[Choice]:
        """One choice per device."""
        parts = {"entropies": self.looks_at_entropies, "pacing": self.pacing}
        return by_threshold(pack, self.score, self.calibration, claim=self.claim, **parts)

    @abstractmethod
    def score(self, alone: Alone) -> Scores:
        """How much each of N prompts needs help, `(N,)`."""

    def claim(self, scores: Scores, alone: Alone) -> Scores | None:
        """The chance of being wrong alone that the scores stand for, `(N,)`; None: only their order means something."""
        return None


@dataclass(frozen=True)
class Learned(ABC):
    """A rule whose score is learned anew at every evaluation, since what a device gets wrong changes as it learns."""

    calibration: int = 32
    """Questions per task and device; half of them to learn from, the others to set the threshold on."""
    c: float = 1.0
    """Inverse weight of the ridge penalty."""
    pacing: bool = False
    """Whether the threshold is set anew at every prompt, by what is left of the budget; all of it is then used."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        enough(self.calibration, least=2)
        positive(self.c)
        yes_or_no(self.pacing)

    def decide(self, pack: Examined) -> list[Choice]:
        """One choice per device."""
        return by_learned_threshold(pack, self.learn, self.calibration, pacing=self.pacing, claim=self.claim)

    @abstractmethod
    def learn(self, alone: Alone, right: Flags) -> Score:
        """A score from answers and whether they are right, `(N,)`, of one device."""

    def claim(self, scores: Scores, alone: Alone) -> Scores | None:
        """As of `Scored`."""
        return None


@dataclass(frozen=True)
class Threshold:
    """A place in the order of scores."""

    score: float
    tie: float
    """Among equal scores, the tie-break that must be exceeded."""

    def exceeded(self, scores: Scores, ties: Scores) -> Flags:
        """Which prompts lie above it, `(N,)`."""
        above: Flags = (scores > self.score) | ((scores == self.score) & (ties > self.tie))
        return above


def calibrated(scores: Scores, ties: Scores, tau: float) -> Threshold:
    """The threshold that exactly floor(tau n) of n calibration questions exceed.

    Args:
        scores: of the calibration questions, `(n,)`, n > 0.
        ties: their tie-breaks, `(n,)`, no two equal.
        tau: the share that may be sent.
    """
    allowed = affordable(tau, len(scores))
    if allowed >= len(scores):
        return Threshold(-math.inf, -math.inf)
    at = neediest_first(scores, ties)[allowed]
    return Threshold(float(scores[at]), float(ties[at]))


def affordable(tau: float, count: int) -> int:
    """How many of `count` prompts a share tau is: floor(tau N), of the tau that was written."""
    return math.floor(tau * count + 1e-9)  # 0.29 * 100 is 28.999999999999996


def neediest_first(scores: Scores, ties: Scores) -> list[int]:
    """Places of the scores from the highest to the lowest, equal ones by their tie-breaks."""
    order: list[int] = np.lexsort((-ties, -scores)).tolist()
    return order


def tie_breaks(world: World, device: int, split: str, count: int) -> Scores:
    """Numbers in [0, 1) that order equal scores, a pure function of (stream.seed, device, split), `(N,)`."""
    return generator(world.stream_seed, "asking ties", device, split).random(count)


def by_threshold(
    pack: Examined,
    score: Score,
    calibration: int,
    *,
    entropies: bool = False,
    pacing: bool = False,
    claim: Claim | None = None,
) -> list[Choice]:
    """The choices of a rule that asks where its score is above each device's threshold.

    Args:
        pack: to decide for.
        score: the same for all devices.
        calibration: questions per task to set a threshold on.
        entropies: whether the score looks at these.
        pacing: whether the threshold is set anew at every prompt, by what is left of the budget.
        claim: the chance of being wrong alone that a score stands for; None if it stands for none.
    """
    scores = [score] * len(pack.devices)
    return by_thresholds(pack, scores, calibration, entropies=entropies, pacing=pacing, claim=claim)


def by_thresholds(
    pack: Examined,
    scores: Sequence[Score],
    calibration: int,
    *,
    entropies: bool = False,
    pacing: bool = False,
    claim: Claim | None = None,
) -> list[Choice]:
    """The same with a score for each device, in the order of the pack."""
    known = [calibration_questions(pack.world, device, calibration) for device in pack.devices]
    return _above(pack, scores, known, entropies=entropies, pacing=pacing, claim=claim)


def by_learned_threshold(
    pack: Examined, learn: Learn, calibration: int, *, pacing: bool = False, claim: Claim | None = None
) -> list[Choice]:
    """The same for a score that is first learned, device by device, on the other half of the calibration questions."""
    halves = [calibration_halves(pack.world, device, calibration) for device in pack.devices]
    lessons, known = [half[0] for half in halves], [half[1] for half in halves]
    tried = hear(pack, lessons)
    scores = [learn(own, right_alone(row, own.answers)) for row, own in zip(lessons, tried, strict=True)]
    return _above(pack, scores, known, pacing=pacing, claim=claim)


def _above(
    pack: Examined,
    scores: Sequence[Score],
    known: Problems,
    *,
    entropies: bool = False,
    pacing: bool = False,
    claim: Claim | None = None,
) -> list[Choice]:
    """Set each device's threshold on its known questions, and decide for its tests."""
    measured = pack.world.split
    seen = hear(pack, known, entropies=entropies)
    tried = hear(pack, pack.tests, entropies=entropies)
    choices = []
    for k, (device, score) in enumerate(zip(pack.devices, scores, strict=True)):
        reference, found = score(seen[k]), score(tried[k])  # (n,), (N,)
        ties = tie_breaks(pack.world, device, measured, len(found))  # (N,)
        if pacing:
            wishes = paced(ranked(found, ties, reference), affordable(pack.taus[k], len(found)))  # (N,)
        else:
            order = tie_breaks(pack.world, device, SOURCE[measured], len(reference))  # (n,)
            wishes = calibrated(reference, order, pack.taus[k]).exceeded(found, ties)  # (N,)
        claims = None if claim is None else claim(found, tried[k])  # (N,)
        choices.append(Choice(right_alone(pack.tests[k], tried[k].answers), wishes, found, claims=claims))
    return choices


def positive(c: float) -> None:
    """Refuse a penalty that cannot be fitted.

    Raises:
        ValueError: unless `c` is a finite number above 0.
    """
    if not (isinstance(c, int | float) and 0 < c < np.inf):
        raise ValueError(f"c={c!r} must be above 0 and finite: the smaller, the stronger the penalty; 1 is usual")


def yes_or_no(pacing: bool) -> None:
    """Refuse what is neither.

    Raises:
        ValueError: unless `pacing` is true or false.
    """
    if not isinstance(pacing, bool):
        raise ValueError(f"pacing={pacing!r} must be true or false: whether the threshold moves with what is left")
