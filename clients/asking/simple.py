"""Rules without a score of their own, between which all others lie: always, never, at random, and as if one knew.

None of them claims a chance of being wrong: three do not look at the prompt, and the oracle knows, which tells nothing
of a forecast.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from clients.asking.alone import all_alike, hear
from clients.asking.rule import Choice, Examined, cloud_right, right_alone
from clients.device.world import World
from flsim.seeding import generator


@dataclass(frozen=True)
class Always:
    """A wish for every prompt: the budget goes to the first ones, and with tau = 1 it is the cloud alone.

    All prompts score alike, so that its curve is that of asking at random.
    """

    by_question: ClassVar[bool] = True

    def decide(self, pack: Examined) -> list[Choice]:
        """One choice per device."""
        return all_alike(pack, wish=True)


@dataclass(frozen=True)
class Never:
    """No wishes: the device alone, the lower bound of every curve.

    All prompts score alike, so that its curve is that of asking at random.
    """

    def decide(self, pack: Examined) -> list[Choice]:
        """One choice per device."""
        return all_alike(pack, wish=False)


@dataclass(frozen=True)
class AtRandom:
    """A share of the prompts, whatever they are: a rule that is not above it has learned nothing.

    They are the first of a fixed permutation of each device's prompts, the same in every round and for every learner.
    """

    share: float | None = None
    """Of the prompts, rounded down, in [0, 1]; None is the device's tau. Those of the reference model `random`."""

    by_question: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse what is no share."""
        if self.share is not None and not (isinstance(self.share, int | float) and 0 <= self.share <= 1):
            raise ValueError(
                f"share={self.share!r} must be in [0, 1]: it is a share of the prompts; leave it out to send as many "
                f"as the budget allows"
            )

    def decide(self, pack: Examined) -> list[Choice]:
        """One choice per device."""
        tried = hear(pack, pack.tests)
        return [
            self._choice(random_order(pack.world, device, len(tests)), right_alone(tests, own.answers), tau)
            for device, tests, own, tau in zip(pack.devices, pack.tests, tried, pack.taus, strict=True)
        ]

    def _choice(self, order: list[int], alone: np.ndarray, tau: float) -> Choice:
        sent = order[: math.floor((tau if self.share is None else self.share) * len(order) + 1e-9)]
        wishes, scores = np.zeros(len(order), dtype=bool), np.zeros(len(order))
        wishes[sent] = True
        scores[order] = np.arange(len(order), 0, -1)
        return Choice(alone, wishes, scores)


def random_order(world: World, device: int, count: int) -> list[int]:
    """A permutation of a device's test prompts, a pure function of (stream.seed, device, count)."""
    order: list[int] = generator(world.stream_seed, "random asking", device).permutation(count).tolist()
    return order


@dataclass(frozen=True)
class Oracle:
    """A wish where the device alone is wrong and the cloud right, and no other: the upper bound of all rules.

    No rule is more accurate under the same budget: sending another prompt gains nothing. (RouteLLM's optimal accuracy,
    arXiv 2406.18665: right alone, and up to the budget those that only the cloud has right.)
    """

    asks_all: ClassVar[bool] = True
    """It needs the cloud's answer to every test prompt."""

    def decide(self, pack: Examined) -> list[Choice]:
        """One choice per device; what the cloud would spoil scores lowest, so that the curve is the highest, too."""
        choices = []
        for tests, own in zip(pack.tests, hear(pack, pack.tests), strict=True):
            alone = right_alone(tests, own.answers)  # (N,)
            gains = cloud_right(pack.world, tests).astype(np.float64) - alone  # (N,)
            choices.append(Choice(alone, gains > 0, gains))
        return choices
