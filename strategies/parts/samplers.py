"""Samplers: which devices of a round's cohort are asked to learn.

One that has `observe(measures)` is told after each round what the devices reported.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from flsim.flower.messages import Measures
from flsim.seeding import generator


@runtime_checkable
class Observes(Protocol):
    """A part that goes by earlier rounds; what it keeps on itself is saved with the strategy."""

    def observe(self, measures: Sequence[Measures]) -> None:
        """Note what the round's devices reported, sorted by device, after it was aggregated."""
        ...


class Sampler(Protocol):
    """Chooses from a cohort."""

    def choose(self, cohort: Sequence[int], round_: int, seed: int) -> list[int]:
        """The devices that learn in this round, sorted, at least one; a pure function of arguments and state."""
        ...


@dataclass(frozen=True)
class Everyone:
    """The whole cohort."""

    def choose(self, cohort: Sequence[int], round_: int, seed: int) -> list[int]:
        """All of it."""
        return sorted(cohort)


@dataclass(frozen=True)
class First:
    """Only the first devices of the cohort: with a client that pools all data, one central learner."""

    count: int = 1
    """How many, at least 1."""

    def __post_init__(self) -> None:
        """Refuse a number that chooses nobody."""
        if self.count < 1:
            raise ValueError(f"count={self.count} must be at least 1, or nobody learns")

    def choose(self, cohort: Sequence[int], round_: int, seed: int) -> list[int]:
        """The first of them."""
        return sorted(cohort)[: self.count]


@dataclass(frozen=True)
class RandomShare:
    """A random share of the cohort, without replacement (McMahan et al. 2017, arXiv 1602.05629: their C)."""

    share: float = 0.5
    """Above 0, at most 1; at least one device is chosen."""

    def __post_init__(self) -> None:
        """Refuse a share that chooses nobody or more than there are."""
        if not 0 < self.share <= 1:
            raise ValueError(
                f"share={self.share} must be above 0 and at most 1: it is the part of a cohort that learns"
            )

    def choose(self, cohort: Sequence[int], round_: int, seed: int) -> list[int]:
        """So many of it, by the run's seed and the round."""
        count = max(1, round(self.share * len(cohort)))
        drawn = generator(seed, "sampler", round_).choice(sorted(cohort), count, replace=False)
        return sorted(int(device) for device in drawn)


@dataclass
class WorstOff:
    """The devices with the lowest reward when they last learned; who never did comes first.

    Power-of-choice (Cho et al. 2022, arXiv 2010.01243) with the whole cohort as candidates and 1 - reward as the loss.
    """

    share: float = 0.5
    """Above 0, at most 1; at least one device is chosen."""
    rewards: dict[int, float] = field(default_factory=dict)
    """Of each device that has learned, the latest."""

    def __post_init__(self) -> None:
        """Refuse a share that chooses nobody or more than there are."""
        RandomShare(self.share)

    def choose(self, cohort: Sequence[int], round_: int, seed: int) -> list[int]:
        """The lowest rewards; ties in a random order."""
        count = max(1, round(self.share * len(cohort)))
        order = generator(seed, "sampler", round_).permutation(sorted(cohort))
        worst_first = sorted((int(device) for device in order), key=lambda device: self.rewards.get(device, -1.0))
        return sorted(worst_first[:count])

    def observe(self, measures: Sequence[Measures]) -> None:
        """Note the rewards."""
        self.rewards.update({one.device: one.reward for one in measures})
