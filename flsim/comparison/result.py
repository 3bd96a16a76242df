"""What a comparison found: methods with their measures over seeds, what bounds them, and their pairs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from flsim.comparison.pairing import Pair, differences
from flsim.comparison.runs import Method
from flsim.metrics.formulas import MeanUser, gap_recovered_on_average
from flsim.metrics.intervals import Interval, of_columns, of_mean_user
from flsim.metrics.measured import Measured
from flsim.metrics.measures import MEASURES, Measure
from flsim.metrics.run_rows import Life
from flsim.metrics.weighting import UNIFORM, Weighting

PAIRED = ("accuracy", "alone_accuracy")
"""Measures that are paired user by user with winners and losers; differences are taken of all."""


REFERENCES = {
    "base_accuracy": "alone_accuracy",
    "frozen_accuracy": "alone_accuracy",
    "random_accuracy": "accuracy",
    "cloud_accuracy": "accuracy",
}
"""What every run measures before training as a bound, and the measure whose column it stands in."""


@dataclass(frozen=True)
class Result:
    """A method, or a run that is a bound, over all seeds."""

    method: Method
    runs: tuple[Measured, ...]
    """In the order of the seeds."""
    means: dict[str, Interval]
    """Means over users by measure, and the ratios of the mean user, such as pgr and apgr; weighed as the comparison."""
    facts: dict[str, float]
    """Mean over seeds of measures of the whole run; nan where not measured."""

    @property
    def label(self) -> str:
        """What it is called."""
        return self.method.label

    @property
    def users(self) -> list[pd.DataFrame]:
        """One table per seed."""
        return [run.users for run in self.runs]

    def weights(self, weighting: Weighting) -> list[pd.DataFrame]:
        """What users weigh in the mean of every measure, one table per seed."""
        return [run.weights(weighting) for run in self.runs]

    def value(self, name: str) -> float:
        """The mean of a measure, or a fact; nan if there is neither."""
        return self.means[name].mean if name in self.means else self.facts.get(name, float("nan"))


@dataclass(frozen=True)
class Compared:
    """Methods side by side, and what bounds them: all that tables, figures and the page are made of."""

    results: tuple[Result, ...]
    """The methods, in the order given."""
    bounds: tuple[Result, ...]
    """Runs that serve as bounds only."""
    references: dict[str, dict[str, Interval]]
    """What does not learn, measured by the runs themselves: label -> measure -> user mean."""
    against: str
    """The method that the others are paired with."""
    alone: str
    """By what users are harmed: a label, or `frozen, asks at random`."""
    pairs: tuple[Pair, ...]
    """Every other method and bound run against `against`, for each of `PAIRED`."""
    shown: tuple[Measure, ...]
    """What the second part of the main table shows."""
    own: tuple[Measure, ...] = ()
    """Measures that are not in the table of measures."""
    weighting: Weighting = UNIFORM
    """What users weigh in means and differences, wherever no other is named."""
    life: Life = field(default_factory=Life)
    """What measures of training and test together take."""
    aim: float | None = None
    """The accuracy that was named as the one to reach; None if none was."""

    @property
    def measures(self) -> tuple[Measure, ...]:
        """All measures that were taken."""
        return (*MEASURES.values(), *self.own)

    @property
    def spend(self) -> float:
        """S: cloud calls per prompt at which accuracies are compared."""
        return self.results[0].method.config.budget.tau if self.life.spend is None else self.life.spend

    @property
    def seeds(self) -> list[tuple[int, int]]:
        """The runs' seeds and their streams'."""
        return [run.seeds for run in self.results[0].method.runs]

    def of(self, label: str) -> Result:
        """The method or bound of that name."""
        return next(result for result in (*self.results, *self.bounds) if result.label == label)

    def pair(self, label: str, measure: str = "accuracy") -> Pair | None:
        """A method against `against`; None for that one itself, or if it was not measured."""
        return next((pair for pair in self.pairs if (pair.label, pair.measure) == (label, measure)), None)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """Columns `method, seed, stream_seed, measure, round, mean, p10, p90, users`."""
        return self._joined(lambda run: run.curves)

    @cached_property
    def courses(self) -> pd.DataFrame:
        """What it took: `method, seed, stream_seed, round`, costs so far, and accuracy under every weighting."""
        return self._joined(lambda run: run.course.reset_index())

    @cached_property
    def matrices(self) -> pd.DataFrame:
        """R of every device: `method, seed, stream_seed, device, round, task, accuracy, alone_accuracy`."""
        return self._joined(lambda run: run.matrices)

    def _joined(self, part: Callable[[Measured], pd.DataFrame]) -> pd.DataFrame:
        parts = [
            under(result.label, seeds, part(run))
            for result in self.results
            for seeds, run in zip(self.seeds, result.runs, strict=True)
        ]
        return pd.concat(parts, ignore_index=True)


def difference_of(comparison: Compared, label: str, weighting: Weighting | None = None) -> dict[str, Interval]:
    """A method minus `against` in every measure of users; users weigh what they weigh under `against`.

    Args:
        comparison: of finished runs.
        label: of the method.
        weighting: of users; None takes the comparison's.
    """
    base, chosen = comparison.of(comparison.against), weighting or comparison.weighting
    return differences(comparison.of(label).users, base.users, base.weights(chosen))


def means_of(runs: Sequence[Measured], weighting: Weighting, more: Sequence[Measure] = ()) -> dict[str, Interval]:
    """Means over users by measure, and the ratios of the mean user, under a weighting; what nobody has is left out.

    Args:
        runs: one per seed.
        weighting: of users.
        more: measures beside those of the table.
    """
    weights = [run.weights(weighting) for run in runs]
    return {**of_columns([run.users for run in runs], weights), **of_mean_users(runs, more, weighting)}


def under(label: str, seeds: tuple[int, int], frame: pd.DataFrame) -> pd.DataFrame:
    """The frame of one run, with the columns `method`, `seed` and `stream_seed` before its own."""
    own = pd.DataFrame({"method": label, "seed": seeds[0], "stream_seed": seeds[1]}, index=frame.index)
    return pd.concat([own, frame], axis=1)


def of_mean_users(
    runs: Sequence[Measured], more: Sequence[Measure] = (), weighting: Weighting = UNIFORM
) -> dict[str, Interval]:
    """The ratios of the mean user, such as pgr and apgr, by measure; those not measured are left out.

    Args:
        runs: one per seed.
        more: measures beside those of the table.
        weighting: of users, by what they weigh in accuracy.
    """
    users = [run.users for run in runs]
    weights = [run.weights(weighting)["accuracy"] for run in runs]
    wanted = {
        one.name: _of_complete(users, list(one.of.needs), one.of.ratio, weights)
        for one in (*MEASURES.values(), *more)
        if isinstance(one.of, MeanUser)
    }
    return {name: interval for name, interval in wanted.items() if interval is not None}


def gap_recovered_difference(
    first: Sequence[pd.DataFrame], second: Sequence[pd.DataFrame], weights: Sequence[pd.Series] | None = None
) -> Interval | None:
    """APGR of the first minus that of the second; as `ratio_difference`."""
    return ratio_difference(gap_recovered_on_average(), first, second, weights)


def ratio_difference(
    one: MeanUser,
    first: Sequence[pd.DataFrame],
    second: Sequence[pd.DataFrame],
    weights: Sequence[pd.Series] | None = None,
) -> Interval | None:
    """A ratio of the first's mean user minus that of the second's, drawn by the same users and seeds.

    Args:
        one: the ratio.
        first: one table of users per seed.
        second: of the other method, in the order of the same seeds.
        weights: of the users of each seed; None weighs all alike.

    Returns:
        None where it is not defined or not measured for the mean user.
    """
    needs = list(one.needs)
    both = [own[needs].join(other[needs].add_suffix("_other")) for own, other in zip(first, second, strict=True)]
    columns = list(both[0].columns)
    return _of_complete(both, columns, lambda v: one.ratio(v[: len(needs)]) - one.ratio(v[len(needs) :]), weights)


def _of_complete(
    tables: Sequence[pd.DataFrame],
    columns: list[str],
    statistic: Callable[[NDArray[np.float64]], float],
    weights: Sequence[pd.Series] | None,
) -> Interval | None:
    """`of_mean_user` over the users who have all columns; None if a seed has no such user, or none with weight."""
    complete = [table[columns].dropna() for table in tables]
    own = None if weights is None else [w.reindex(table.index) for w, table in zip(weights, complete, strict=True)]
    if not all(len(table) for table in complete) or (own is not None and not all(w.sum() > 0 for w in own)):
        return None
    return of_mean_user(complete, statistic, own)
