"""Samplers: which devices of a round's cohort are asked to learn.

One that has `observe(measures)` is told after each round what the devices reported, one that has `begin(config)` meets
the run before its first round, and one that has `tell(now)` hears before each choice what time it is in the run.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from flsim.config.schema import Config, ConfigError
from flsim.config.system import SystemConfig
from flsim.flower.messages import Measures
from flsim.seeding import generator
from flsim.system.availability import Availability
from flsim.system.seconds import MICROSECONDS


@runtime_checkable
class Observes(Protocol):
    """A part that goes by earlier rounds; what it keeps on itself is saved with the strategy."""

    def observe(self, measures: Sequence[Measures]) -> None:
        """Note what the round's devices reported, sorted by device, after it was aggregated."""
        ...


@runtime_checkable
class MeetsTheRun(Protocol):
    """A part that needs to know the run; it is introduced again after a resume, so it need not keep what it learns."""

    def begin(self, config: Config) -> None:
        """Get to know the run's settings.

        Raises:
            ConfigError: if the part cannot work with them.
        """
        ...


@runtime_checkable
class HearsTheTime(Protocol):
    """A sampler that goes by what time it is."""

    def tell(self, now: int | None) -> None:
        """Note the microseconds since the run began; None where there is no `system`."""
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
        order = shuffled(cohort, round_, seed)
        return first_of(self.share, sorted(order, key=lambda device: self.rewards.get(device, -1.0)))

    def observe(self, measures: Sequence[Measures]) -> None:
        """Note the rewards."""
        self.rewards.update({one.device: one.reward for one in measures})


@dataclass
class FairShare:
    """The devices whose updates have counted least often, so that nobody is far ahead; ties in a random order.

    Who comes too late, or fails, has not counted, and is asked again.
    """

    share: float = 0.5
    """Above 0, at most 1; at least one device is chosen."""
    counts: dict[int, int] = field(default_factory=dict, init=False)
    """Of each device that has taken part, how often."""

    def __post_init__(self) -> None:
        """Refuse a share that chooses nobody or more than there are."""
        RandomShare(self.share)

    def choose(self, cohort: Sequence[int], round_: int, seed: int) -> list[int]:
        """The lowest counts."""
        order = shuffled(cohort, round_, seed)
        return first_of(self.share, sorted(order, key=lambda device: self.counts.get(device, 0)))

    def observe(self, measures: Sequence[Measures]) -> None:
        """Count who took part."""
        self.counts.update({one.device: self.counts.get(one.device, 0) + 1 for one in measures})


@dataclass
class LeastAvailable:
    """The devices that are least likely to be there in the next round, so that those who stay are left for it.

    REFL's choice of participants (Abdelmoniem et al. 2023, arXiv 2111.01108): of each device the share of
    the time from one to two rounds from now at which it is there, the lowest first, ties in a random order. A round
    is taken to be as long as rounds were in a running mean. REFL has devices forecast their hours; ours know them.
    """

    share: float = 0.5
    """Above 0, at most 1; at least one device is chosen."""
    round_s: float = 600.0
    """Seconds that a round is taken to last before one is over."""
    smoothing: float = 0.75
    """Share of the newest round in the mean, above 0 and at most 1."""
    now: int | None = field(default=None, init=False)
    """Microseconds since the run began."""

    def __post_init__(self) -> None:
        """Refuse settings without meaning."""
        RandomShare(self.share)
        if not (0 < self.round_s < math.inf and 0 < self.smoothing <= 1):
            raise ValueError(
                f"round_s={self.round_s} and smoothing={self.smoothing} of LeastAvailable must be above 0, round_s "
                f"finite and smoothing at most 1"
            )
        self._availability: Availability | None = None

    def __getstate__(self) -> dict[str, Any]:
        """All but the hours, which may be a large trace and come again with the run."""
        return {**vars(self), "_availability": None}

    def begin(self, config: Config) -> None:
        """Learn when devices are there.

        Raises:
            ConfigError: where nothing says so.
        """
        system = system_of(config, self, "when devices are there")
        self._availability = Availability.of(system.availability, config.stream.seed)

    def tell(self, now: int | None) -> None:
        """Note the time."""
        self.now = now

    def choose(self, cohort: Sequence[int], round_: int, seed: int) -> list[int]:
        """Those with the least of the next round."""
        there, now = self._availability, self.now
        if there is None or now is None:
            raise ConfigError(
                "LeastAvailable was not told when devices are there or what time it is; it works in a run of flsim "
                "that has a system, as the sampler of a strategy of strategies/ that no other wraps"
            )
        length = max(1, round(self.round_s * MICROSECONDS))
        rest = {device: there.share(device, now + length, now + 2 * length) for device in cohort}
        return first_of(self.share, sorted(shuffled(cohort, round_, seed), key=lambda device: rest[device]))

    def observe(self, measures: Sequence[Measures]) -> None:
        """Move the mean: a round is as long as the last of those that counted."""
        longest = max(seconds_of(self, one) for one in measures)
        self.round_s += self.smoothing * (longest - self.round_s)


def shuffled(cohort: Sequence[int], round_: int, seed: int) -> list[int]:
    """A cohort in a random order of the round."""
    return [int(device) for device in generator(seed, "sampler", round_).permutation(sorted(cohort))]


def first_of(share: float, ranked: Sequence[int]) -> list[int]:
    """This share of devices from the first on, at least one, sorted."""
    return sorted(ranked[: max(1, round(share * len(ranked)))])


def seconds_of(sampler: object, measures: Measures) -> float:
    """How long a device's round took.

    Raises:
        ConfigError: where nobody measured it.
    """
    if measures.seconds is None:
        raise ConfigError(
            f"{type(sampler).__name__} goes by how long devices take, and the reply of device {measures.device} does "
            f"not say so; it works in a run of flsim that has a system"
        )
    return measures.seconds


def system_of(config: Config, sampler: object, what: str) -> SystemConfig:
    """The system of a run.

    Raises:
        ConfigError: where there is none.
    """
    if config.system is None:
        raise ConfigError(
            f"strategy.sampler {type(sampler).__name__} goes by {what}, and there is no system that says so; describe "
            f"one, such as system.end.kind=all (docs/systems.md), or choose another sampler, such as RandomShare"
        )
    return config.system
