"""Oort: devices are chosen by what their data teach and by how long they take, with room for those nobody knows yet."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from flsim.config.schema import Config
from flsim.flower.messages import Measures
from flsim.seeding import generator
from strategies.parts.samplers import RandomShare, seconds_of, system_of


@dataclass(frozen=True)
class Known:
    """What Oort knows of a device that took part."""

    utility: float
    seconds: float
    round: int
    """In which it last did, by Oort's own count."""


@dataclass
class Oort:
    """Devices whose data teach much and that are fast, beside some that nobody knows yet.

    Oort (Lai et al. 2021, OSDI, arXiv 2010.06081). Its utility of a device with n examples is n times the root of their
    mean squared loss. Here a device reports its mean reward; with 1 - reward as the loss of a response that is
    `n sqrt(1 - reward)`, exactly so where rewards are 0 or 1, and ours for others. In a round r
    the score is the utility, cut at a quantile and scaled to [0, 1], plus `sqrt(0.1 ln(r) / last)` for what was seen
    long ago, times `(T / t)^2` for a device whose rounds take t seconds and more than T.
    """

    share: float = 0.5
    """Above 0, at most 1; at least one device is chosen."""
    exploration: float = 0.9
    """The part of those chosen that never took part, while there are any."""
    decay: float = 0.98
    """What that part is multiplied by in each round."""
    least_exploration: float = 0.3
    """What it does not fall below."""
    clip: float = 0.9
    """The quantile at which utilities are cut."""
    cutoff: float = 0.95
    """Devices that have at least so much of the score of the last that would be taken are drawn from, by score."""
    penalty: float = 2.0
    """The exponent for slow devices; 0 goes by utility alone."""
    percentile: float = 30.0
    """Of the durations; it is T. The pacer moves it."""
    widening: float = 5.0
    """By how many points the pacer moves it: up where utility stalls, down where it leaps."""
    pace: int = 20
    """After how many rounds the pacer looks."""
    known: dict[int, Known] = field(default_factory=dict, init=False)
    """By device."""
    gains: list[float] = field(default_factory=list, init=False)
    """Of each round, the mean utility of devices that had taken part before; for the pacer, of twice its rounds."""
    rounds: int = field(default=0, init=False)
    """That were observed."""

    def __post_init__(self) -> None:
        """Refuse settings without meaning."""
        RandomShare(self.share)
        for name, low, high in (
            *((name, 0, 1) for name in ("exploration", "decay", "least_exploration", "clip", "cutoff")),
            *(("penalty", 0, 100), ("percentile", 0, 100), ("widening", 0, 100), ("pace", 1, 10**6)),
        ):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name}={getattr(self, name)} of Oort must be in [{low}, {high}]")

    def begin(self, config: Config) -> None:
        """Refuse a run that measures no time.

        Raises:
            ConfigError: naming what is missing.
        """
        system_of(config, self, "how long devices take")

    def choose(self, cohort: Sequence[int], round_: int, seed: int) -> list[int]:
        """Some that are new, at random, and of the others those with high scores."""
        rng, count = generator(seed, "sampler", round_), max(1, round(self.share * len(cohort)))
        known = [device for device in sorted(cohort) if device in self.known]
        new = [device for device in sorted(cohort) if device not in self.known]
        part = max(self.least_exploration, self.exploration * self.decay ** (self.rounds + 1))
        exploited = min(count - int(count * part), len(known))
        explored = min(count - exploited, len(new))
        taken = self._best(known, count - explored, rng) + rng.choice(new or [0], explored, replace=False).tolist()
        return sorted(int(device) for device in taken)

    def scores(self, devices: Sequence[int]) -> dict[int, float]:
        """The score of each of these, which have all taken part; at least one."""
        utilities = {device: self.known[device].utility for device in devices}
        ranked = sorted(utilities.values())
        top, least = ranked[min(int(len(ranked) * self.clip), len(ranked) - 1)], ranked[0]
        scale = max(ranked[-1] - least, 1e-4)
        preferred = self.preferred()
        return {
            device: (
                (min(utility, top) - least) / scale
                + math.sqrt(0.1 * math.log(self.rounds + 1) / self.known[device].round)
            )
            * slowed(self.known[device].seconds, preferred, self.penalty)
            for device, utility in utilities.items()
        }

    def observe(self, measures: Sequence[Measures]) -> None:
        """Note what devices are worth and how long they took, and let the pacer look."""
        news = {one.device: (utility(one), seconds_of(self, one)) for one in measures}
        again = [worth for device, (worth, _) in news.items() if device in self.known]
        self.rounds += 1
        self.gains = [*self.gains, sum(again) / len(again) if again else 0.0][-2 * self.pace :]
        self.known.update({device: Known(*seen, self.rounds) for device, seen in news.items()})
        if self.rounds % self.pace or self.rounds < 2 * self.pace:
            return
        before, lately = sum(self.gains[: self.pace]), sum(self.gains[self.pace :])
        if abs(lately - before) <= 0.1 * before:
            self.percentile = min(100.0, self.percentile + self.widening)
        elif abs(lately - before) >= 5 * before:
            self.percentile = max(self.widening, self.percentile - self.widening)

    def _best(self, known: Sequence[int], count: int, rng: np.random.Generator) -> list[int]:
        """So many by their scores, drawn from those that are near the best."""
        if not count:
            return []
        scores = self.scores(known)
        ranked = sorted(known, key=lambda device: (-scores[device], device))
        near = [device for device in ranked if scores[device] >= self.cutoff * scores[ranked[count - 1]]]
        weights = np.array([scores[device] + 1e-9 for device in near])  # (N,)
        drawn: list[int] = rng.choice(near, count, replace=False, p=weights / weights.sum()).tolist()
        return drawn

    def preferred(self) -> float:
        """T, in seconds; infinite once the pacer lets everybody in."""
        durations = sorted(one.seconds for one in self.known.values())
        place = int(len(durations) * self.percentile / 100)
        return math.inf if self.percentile >= 100 else durations[min(place, len(durations) - 1)]


def utility(measures: Measures) -> float:
    """What a device's data teach: `n sqrt(1 - reward)`; a reward beyond 0 or 1 counts as that."""
    return measures.num_examples * math.sqrt(1 - min(1.0, max(0.0, measures.reward)))


def slowed(seconds: float, preferred: float, penalty: float = 2.0) -> float:
    """The factor of a device's score for its time: 1 up to the preferred one, `(preferred / seconds)^penalty` above."""
    return 1.0 if seconds <= preferred else (preferred / seconds) ** penalty
