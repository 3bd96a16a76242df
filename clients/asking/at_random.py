"""Ask at random: a share of the prompts, whatever they are; a rule that is not above it has learned nothing."""

import math
from dataclasses import dataclass

import numpy as np

from clients.asking.alone import answers_alone
from clients.asking.rule import Choice, Examined, right_alone
from flsim.seeding import generator
from flsim.world import World


@dataclass(frozen=True)
class AtRandom:
    """The first prompts of a fixed permutation of each device's: the same ones in every round and for every learner."""

    share: float | None = None
    """Of the prompts, rounded down, in [0, 1]; None is the device's tau. Those of the reference model `random`."""

    def __post_init__(self) -> None:
        """Refuse what is no share."""
        if self.share is not None and not (isinstance(self.share, int | float) and 0 <= self.share <= 1):
            raise ValueError(
                f"share={self.share!r} must be in [0, 1]: it is a share of the prompts; leave it out to send as many "
                f"as the budget allows"
            )

    def decide(self, pack: Examined) -> list[Choice]:
        """One choice per device."""
        tried = answers_alone(pack.world, pack.tests)
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
    order: list[int] = generator(world.config.stream.seed, "random asking", device).permutation(count).tolist()
    return order
