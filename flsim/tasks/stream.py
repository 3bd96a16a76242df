"""The task stream: which problems each device meets in which round (non-IID over devices, shifting over rounds).

Every device has its own Dirichlet mixture over task groups, over the families of a group and over the levels of a
family (Hsu et al. 2019, arXiv 1909.06335, applied to three layers), and its own number of prompts per step. A schedule
moves the whole fleet, or each device in its own time, from phase to phase. Everything is a pure function of the
stream's seed, except the training questions, which follow the run's seed. Where a task group is a data set, a device
draws from the items that it has been dealt (`flsim/tasks/groups.py`) in place of families and levels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from random import Random

import numpy as np

from flsim.config.schema import Config, StreamConfig
from flsim.devices import device_index
from flsim.problems.families import draw, families_of
from flsim.problems.problem import Problem
from flsim.seeding import generator, python_random
from flsim.tasks.groups import DataGroup, data_groups


@dataclass(frozen=True)
class Phase:
    """A stretch of rounds with the same task groups."""

    name: str
    tasks: tuple[str, ...]
    first_round: int
    last_round: int


@dataclass(frozen=True)
class TaskStream:
    """The stream of a whole fleet."""

    config: StreamConfig
    rounds: int
    data: tuple[DataGroup, ...] = ()
    """The data sets among its task groups; phases and mixtures are known without, their questions are not."""

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        """All task groups of the stream, in order of appearance."""
        return tuple(dict.fromkeys(group for phase in self.config.phases for group in phase))

    @cached_property
    def phases(self) -> tuple[Phase, ...]:
        """The nominal phases; with `recurring` each return is a phase of its own. Equal task lists share a letter."""
        length = self.config.phase_rounds or max(1, self.rounds // len(self.config.phases))
        count = -(-self.rounds // length) if self.config.schedule == "recurring" else len(self.config.phases)
        kinds = list(dict.fromkeys(self.config.phases))
        phases = []
        for number in range(count):
            tasks = self.config.phases[number % len(self.config.phases)]
            first = number * length + 1
            last = self.rounds if number == count - 1 else min(first + length - 1, self.rounds)
            if first <= self.rounds:
                phases.append(Phase(chr(ord("A") + kinds.index(tasks)), tasks, first, last))
        return tuple(phases)

    def phase_weights(self, device: str, round_: int) -> tuple[float, ...]:
        """How much of each phase a device is in at a round; sums to 1."""
        if self.config.schedule == "joint":
            rounds = [phase.last_round - phase.first_round + 1 for phase in self.phases]
            return tuple(count / sum(rounds) for count in rounds)
        weights = [0.0] * len(self.phases)
        lag = self._lag(device)
        if self.config.schedule == "ramp" and self.config.lag_rounds > 0:
            for number, phase in enumerate(self.phases):
                arrived = min(1.0, max(0.0, (round_ - phase.first_round + 1) / (self.config.lag_rounds + 1)))
                arrived = 1.0 if number == 0 else arrived
                weights = [weight * (1 - arrived) for weight in weights]
                weights[number] += arrived
            return tuple(weights)
        current = max(
            (n for n, phase in enumerate(self.phases) if phase.first_round + (lag if n else 0) <= round_), default=0
        )
        weights[current] = 1.0
        return tuple(weights)

    def mixture(self, device: str, round_: int) -> dict[str, float]:
        """Probability of each task group for a device at a round; sums to 1, zero for groups out of phase."""
        mixture = dict.fromkeys(self.tasks, 0.0)
        for weight, phase in zip(self.phase_weights(device, round_), self.phases, strict=True):
            shares = self._dirichlet(len(phase.tasks), "groups", device, *phase.tasks)
            for group, share in zip(phase.tasks, shares, strict=True):
                mixture[group] += weight * float(share)
        return mixture

    def prompts_per_step(self, device: str, mean: int) -> int:
        """Prompts of one local step: log-normal with mean `mean`, clipped to between `mean / 2` and `2 mean`."""
        factor = _quantity(self.config.quantity_sigma, self.config.seed, device)
        return int(np.clip(round(mean * factor), max(1, mean // 2), 2 * mean))

    def training_problems(self, device: str, round_: int, step: int, *, count: int, seed: int) -> list[Problem]:
        """The questions of one local step, from the train split."""
        mixture = self.mixture(device, round_)
        rng = python_random(seed, "questions", device, round_, step)
        groups = rng.choices(list(mixture), list(mixture.values()), k=count)
        return [self._draw(device, group, "train", rng) for group in groups]

    def evaluation_problems(self, device: str, split: str, *, per_task: int) -> dict[str, list[Problem]]:
        """The device's own test set per task group of the stream; the same in every round and for every method.

        Of a data set the device meets all its own items of the split before one comes again.
        """
        rng = python_random(self.config.seed, "evaluation", split, device)
        sets = {}
        for group in self.tasks:
            if group in self._sets:
                own = python_random(self.config.seed, "evaluation", split, device, group)
                sets[group] = self._sets[group].draw_set(device_index(device), split, per_task, own)
            else:
                sets[group] = [self._draw(device, group, split, rng) for _ in range(per_task)]
        return sets

    @cached_property
    def _sets(self) -> dict[str, DataGroup]:
        return {group.name: group for group in self.data}

    def _draw(self, device: str, group: str, split: str, rng: Random) -> Problem:
        if group in self._sets:
            return self._sets[group].draw(device_index(device), split, rng)
        families = families_of(group)
        family = rng.choices(families, self._dirichlet(len(families), "families", device, group))[0]
        levels = self._dirichlet(len(family.levels), "levels", device, group, family.name)
        return draw(family, rng.choices(family.levels, levels)[0], split, rng)

    def _lag(self, device: str) -> int:
        if self.config.schedule != "staggered":
            return 0
        return int(generator(self.config.seed, "lag", device).integers(0, self.config.lag_rounds + 1))

    def _dirichlet(self, size: int, *names: str) -> tuple[float, ...]:
        return _shares(self.config.alpha, size, self.config.seed, names)


@lru_cache(maxsize=100_000)
def _shares(alpha: float, size: int, seed: int, names: tuple[str, ...]) -> tuple[float, ...]:
    """One Dirichlet draw, a pure function of its names; cached, since every question needs three."""
    if np.isinf(alpha):
        return (1.0 / size,) * size
    return tuple(float(share) for share in generator(seed, *names).dirichlet([alpha] * size))


@lru_cache(maxsize=100_000)
def _quantity(sigma: float, seed: int, device: str) -> float:
    """How many times the mean number of prompts a device has, log-normal with mean 1."""
    return float(np.exp(generator(seed, "quantity", device).normal(-(sigma**2) / 2, sigma)))


# Questions of no device: what a server may ask by itself, drawn over all families and levels alike.
#
# Of a data set they are any of its items of the split, whoever holds them: there are no others.


def proxy_problems(
    groups: Sequence[str], split: str, *, count: int, rng: Random, data: Sequence[DataGroup] = ()
) -> list[Problem]:
    """Draw different questions, the groups in turn, every family of a group and every level of a family equally likely.

    A data set that has fewer gives what it has.

    Args:
        groups: task groups; at least one.
        split: `train`, `validation` or `test`.
        count: how many; each group gets its share, up to one.
        rng: drawn from.
        data: the stream's data sets.
    """
    sets = {own.name: iter(own.proxy_set(split, count, rng)) for own in data if own.name in groups}
    turn, found = list(groups), dict[str, Problem]()
    while turn and len(found) < count:
        group = turn[len(found) % len(turn)]
        problem = next(sets[group], None) if group in sets else _drawn(group, split, rng)
        if problem is None:
            turn.remove(group)
        else:
            found.setdefault(problem.question, problem)
    return list(found.values())


def _drawn(group: str, split: str, rng: Random) -> Problem:
    family = rng.choice(families_of(group))
    return draw(family, rng.choice(family.levels), split, rng)


def stream_of(config: Config) -> TaskStream:
    """The task stream of a run.

    Raises:
        ConfigError: if a data set that it names cannot be read, judged or dealt.
    """
    return TaskStream(config.stream, config.rounds, data_groups(config.stream, config.data, config.fleet.devices))
