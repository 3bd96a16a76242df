"""Who is tested, when, and on which questions: the panel of a fleet, the rounds that results are read at, test sets."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from flsim.config.schema import EvaluationConfig, FleetConfig
from flsim.devices import device_name
from flsim.problems.problem import Problem
from flsim.seeding import generator
from flsim.tasks.stream import TaskStream

SOURCE = {"test": "validation", "validation": "train"}
"""Where questions come from that something is set on, such as a threshold, by `evaluation.split`."""

_AT_ONCE = 1024  # devices that are drawn at a time
_FIRST, _OF_EACH = 2000, 20  # devices of the sample that strata are taken from: so many, or so many for each of a panel
_LARGE = 100_000  # devices, above which a permutation of the fleet takes longer than a round should


@lru_cache(maxsize=8)
def panel(part: float | None, devices: int, seed: int) -> Sequence[int]:
    """The devices that are tested, sorted: a simple random sample, drawn once, and part of every larger one.

    Laws: every set of n devices is equally likely, so that a mean over the panel is unbiased for that over the fleet;
    it depends on nothing else that a run may vary, so that methods are paired on the same users.

    Args:
        part: `evaluation.devices`; of a share at least that share, rounded up.
        devices: size of the fleet.
        seed: of the stream.
    """
    if part is None:
        return range(devices)
    count, rng = _count(part, devices), generator(seed, "panel")
    drawn = rng.permutation(devices)[:count].tolist() if devices <= _LARGE else _distinct(rng, devices, count)
    return tuple(sorted(drawn))


def panel_of(evaluation: EvaluationConfig, fleet: FleetConfig, stream: TaskStream) -> Sequence[int]:
    """The panel of a fleet, sorted: `panel`, or one that is spread over strata; of data sets nothing is asked."""
    if evaluation.devices is None or evaluation.strata is None:
        return panel(evaluation.devices, fleet.devices, stream.config.seed)
    return _spread(evaluation.devices, evaluation.strata, fleet, stream)


def is_tested(evaluation: EvaluationConfig, fleet: FleetConfig, stream: TaskStream, device: int) -> bool:
    """Whether a device is of the panel of a fleet."""
    tested = panel_of(evaluation, fleet, stream)
    place = bisect_left(tested, device)
    return place < len(tested) and tested[place] == device


@lru_cache(maxsize=8)
def _spread(part: float, strata: str, fleet: FleetConfig, stream: TaskStream) -> Sequence[int]:
    """A panel with the share of every stratum, up to a device.

    A larger simple sample, of all in a small fleet, is sorted by stratum, in random order within, and every so-many-th
    is taken from a random place on (systematic sampling, Madow and Madow 1944, after double sampling, Neyman 1938).
    Laws: each device of the fleet is in it with chance n / N, so that plain means stay unbiased; of a stratum that has
    the share s of the larger sample, floor(s n) or ceil(s n) are in it.
    """
    count = _count(part, fleet.devices)
    drawn = panel(min(fleet.devices, max(_FIRST, _OF_EACH * count)), fleet.devices, stream.config.seed)
    rng = generator(stream.config.seed, "panel", strata)
    mixed = rng.permutation(len(drawn)).tolist()
    ordered = sorted((drawn[place] for place in mixed), key=lambda device: _stratum(strata, device, fleet, stream))
    places = (rng.uniform() + np.arange(count)) * (len(ordered) / count)  # (n,)
    return tuple(sorted(ordered[min(int(place), len(ordered) - 1)] for place in places))


def _stratum(strata: str, device: int, fleet: FleetConfig, stream: TaskStream) -> float:
    """A number by which a device is sorted, equal for those of a stratum."""
    if strata == "rank":
        return fleet.ranks[device % len(fleet.ranks)] if fleet.ranks else 0
    name = device_name(device)
    if strata == "traffic":
        return stream.quantity(name)
    met = [stream.mixture(name, phase.last_round) for phase in stream.phases]
    sums = [sum(own[task] for own in met) for task in stream.tasks]
    return sums.index(max(sums))


def _count(part: float, devices: int) -> int:
    """How many devices a panel has."""
    return int(part) if part >= 1 else max(1, math.ceil(part * devices - 1e-9))  # 0.07 * 100 is 7.000000000000001


def _distinct(rng: np.random.Generator, devices: int, count: int) -> list[int]:
    """The first `count` different ones of devices that are drawn with replacement: as likely as any other such list."""
    found: dict[int, None] = {}
    while len(found) < count:
        found |= dict.fromkeys(rng.integers(devices, size=_AT_ONCE).tolist())
    return list(found)[:count]


@lru_cache(maxsize=4096)  # devices, as for test sets
def set_apart(stream: TaskStream, device: str, split: str, per_task: int) -> tuple[tuple[Problem, ...], ...]:
    """Up to so many questions of each task of a device, without repeats, of a split that is not measured."""
    sets = stream.evaluation_problems(device, split, per_task=per_task)
    return tuple(tuple({problem.question: problem for problem in own}.values()) for own in sets.values())


def milestones(stream: TaskStream) -> set[int]:
    """The rounds that results are read at: before training, the ends of phases, and the last."""
    return {0, stream.rounds, *(phase.last_round for phase in stream.phases)}


def is_small(stream: TaskStream, evaluation: EvaluationConfig, round_: int) -> bool:
    """Whether a round's test has fewer prompts than others."""
    return evaluation.prompts_between is not None and round_ not in milestones(stream)


def set_of_tests(stream: TaskStream, evaluation: EvaluationConfig, device: str, round_: int = 0) -> tuple[Problem, ...]:
    """A device's test set, its tasks spread evenly over it, so that none comes first to the budget.

    Of tasks with equally many problems that is one of each in turn. A smaller set is part of the larger one.

    Args:
        stream: of the fleet.
        evaluation: how it is tested.
        device: its name.
        round_: of the test.
    """
    most = evaluation.prompts_between if is_small(stream, evaluation, round_) else None
    return _tests(stream, device, evaluation.split, evaluation.prompts_per_task, evaluation.items, most)


@lru_cache(maxsize=4096)  # devices; drawing a test set takes as long as answering it
def _tests(
    stream: TaskStream, device: str, split: str, per_task: int, items: int | str | None, most: int | None
) -> tuple[Problem, ...]:
    drawn = stream.evaluation_problems(device, split, per_task=per_task, items=items).values()
    sets = [own[:most] for own in drawn]  # what was drawn is in random order
    placed = [((n + 0.5) / len(own), problem) for own in sets for n, problem in enumerate(own)]
    return tuple(problem for _, problem in sorted(placed, key=lambda pair: pair[0]))  # stable: equal ones by task
