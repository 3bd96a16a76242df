"""The task stream: which problems each device meets in which round (non-IID over devices, shifting over rounds).

Every device has its own Dirichlet mixture over tasks, over the families of a task and over the levels of a
family (Hsu et al. 2019, arXiv 1909.06335, applied to three layers), and its own number of prompts per step. A schedule
moves the whole fleet, or each device in its own time, from phase to phase. Everything is a pure function of the
stream's seed, except the training questions, which follow the run's seed. Where a task is a data set, a device
draws from the items that it has been dealt (`flsim/tasks/sets.py`) in place of families and levels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from random import Random

import numpy as np

from flsim.config.schema import Config, ConfigError, StreamConfig
from flsim.devices import device_index
from flsim.problems.families import draw, families_of
from flsim.problems.problem import Problem
from flsim.seeding import generator, python_random
from flsim.tasks.sets import DataTask, data_tasks


@dataclass(frozen=True)
class Phase:
    """A stretch of rounds with the same tasks."""

    name: str
    tasks: tuple[str, ...]
    first_round: int
    last_round: int


@dataclass(frozen=True)
class TaskStream:
    """The stream of a whole fleet."""

    config: StreamConfig
    rounds: int
    data: tuple[DataTask, ...] = ()
    """The data sets among its tasks; phases and mixtures are known without, their questions are not."""

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        """All tasks of the stream, in order of appearance."""
        return tuple(dict.fromkeys(task for phase in self.config.phases for task in phase))

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
        """Probability of each task for a device at a round; sums to 1, zero for tasks out of phase."""
        mixture = dict.fromkeys(self.tasks, 0.0)
        for weight, phase in zip(self.phase_weights(device, round_), self.phases, strict=True):
            shares = self._dirichlet(len(phase.tasks), "groups", device, *phase.tasks)
            for task, share in zip(phase.tasks, shares, strict=True):
                mixture[task] += weight * float(share)
        return mixture

    def prompts_per_step(self, device: str, mean: int) -> int:
        """Prompts of one local step: log-normal with mean `mean`, clipped to between `mean / 2` and `2 mean`."""
        return int(np.clip(round(mean * self.quantity(device)), max(1, mean // 2), 2 * mean))

    def quantity(self, device: str) -> float:
        """How many times the mean number of prompts a device would meet, if none were clipped."""
        return _quantity(self.config.quantity_sigma, self.config.seed, device)

    def training_problems(self, device: str, round_: int, step: int, *, count: int, seed: int) -> list[Problem]:
        """The questions of one local step, from the train split."""
        mixture = self.mixture(device, round_)
        rng = python_random(seed, "questions", device, round_, step)
        tasks = rng.choices(list(mixture), list(mixture.values()), k=count)
        return [self._draw(device, task, "train", rng) for task in tasks]

    def evaluation_problems(
        self, device: str, split: str, *, per_task: int, items: int | str | None = None
    ) -> dict[str, list[Problem]]:
        """The device's own test set per task of the stream; the same in every round and for every method.

        Args:
            device: its name.
            split: such as `test`.
            per_task: problems of a generated task.
            items: most items of a data set, each at most once; `ALL` takes all that the device has of the split, None
                at most `per_task`.
        """
        most = per_task if items is None else items
        generated = tuple(task for task in self.tasks if task not in self._sets)
        drawn = iter(_tests(self.config.alpha, self.config.seed, generated, device, split, per_task))
        sets = {}
        for task in self.tasks:
            if task in self._sets:
                own = python_random(self.config.seed, "evaluation", split, device, task)
                count = None if isinstance(most, str) else most
                sets[task] = self._sets[task].draw_set(device_index(device), split, count, own)
            else:
                sets[task] = list(next(drawn))
        return sets

    def items_held(self, device: str, split: str) -> dict[str, int]:
        """How many items of a split a device has, for every task that is a data set; a generated task has no end."""
        return {name: own.source.size(device_index(device), split) for name, own in self._sets.items()}

    def demand(self, split: str, reader: str) -> None:
        """Refuse a device that has no item of a split of some data set.

        Args:
            split: that is read.
            reader: who reads it, for the error.

        Raises:
            ConfigError: naming the data set, the devices and the mend.
        """
        for task in self.data:
            try:
                task.source.demand(split, f"Since {reader} reads them, use fewer devices, or leave that out")
            except ConfigError as error:
                raise ConfigError(f"data.{task.name}: {str(error).removeprefix('data: ')}") from error

    @cached_property
    def _sets(self) -> dict[str, DataTask]:
        return {task.name: task for task in self.data}

    def _draw(self, device: str, task: str, split: str, rng: Random) -> Problem:
        if task in self._sets:
            return self._sets[task].draw(device_index(device), split, rng)
        return _generated(self.config.alpha, self.config.seed, device, task, split, rng)

    def _lag(self, device: str) -> int:
        if self.config.schedule != "staggered":
            return 0
        return int(generator(self.config.seed, "lag", device).integers(0, self.config.lag_rounds + 1))

    def _dirichlet(self, size: int, *names: str) -> tuple[float, ...]:
        return _shares(self.config.alpha, size, self.config.seed, names)


@lru_cache(maxsize=256)
def _tests(
    alpha: float, seed: int, tasks: tuple[str, ...], device: str, split: str, per_task: int
) -> tuple[tuple[Problem, ...], ...]:
    """A device's problems of generated tasks; a pure function of its names, cached, as every test asks for them again.

    Seven questions in eight are drawn in vain, since they are of another split.
    """
    rng = python_random(seed, "evaluation", split, device)
    return tuple(tuple(_generated(alpha, seed, device, task, split, rng) for _ in range(per_task)) for task in tasks)


def _generated(alpha: float, seed: int, device: str, task: str, split: str, rng: Random) -> Problem:
    """A problem of a generated task, of the device's own mixture of families and levels."""
    families = families_of(task)
    family = rng.choices(families, _shares(alpha, len(families), seed, ("families", device, task)))[0]
    levels = _shares(alpha, len(family.levels), seed, ("levels", device, task, family.name))
    return draw(family, rng.choices(family.levels, levels)[0], split, rng)


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
    tasks: Sequence[str], split: str, *, count: int, rng: Random, data: Sequence[DataTask] = ()
) -> list[Problem]:
    """Draw different questions, the tasks in turn, every family of a task and every level of a family equally likely.

    A data set that has fewer gives what it has.

    Args:
        tasks: tasks; at least one.
        split: `train`, `validation` or `test`.
        count: how many; each task gets its share, up to one.
        rng: drawn from.
        data: the stream's data sets.
    """
    sets = {own.name: iter(own.proxy_set(split, count, rng)) for own in data if own.name in tasks}
    turn, found = list(tasks), dict[str, Problem]()
    while turn and len(found) < count:
        task = turn[len(found) % len(turn)]
        problem = next(sets[task], None) if task in sets else _drawn(task, split, rng)
        if problem is None:
            turn.remove(task)
        else:
            found.setdefault(problem.question, problem)
    return list(found.values())


def _drawn(task: str, split: str, rng: Random) -> Problem:
    family = rng.choice(families_of(task))
    return draw(family, rng.choice(family.levels), split, rng)


def stream_of(config: Config) -> TaskStream:
    """The task stream of a run.

    Raises:
        ConfigError: if a data set that it names cannot be read, judged or dealt.
    """
    needs = ("train", config.evaluation.split)  # whoever reads another split demands it (`TaskStream.demand`)
    return TaskStream(config.stream, config.rounds, data_tasks(config.stream, config.data, config.fleet.devices, needs))
