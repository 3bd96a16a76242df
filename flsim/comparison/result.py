"""What a comparison found: methods with their measures over seeds, what bounds them, and their pairs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from flsim.comparison.pairing import Pair, differences
from flsim.comparison.runs import Method
from flsim.metrics.intervals import Interval, of_mean_user
from flsim.metrics.measures import SENDING, Measured
from flsim.metrics.offloading import (
    average_gap_recovered,
    call_performance_threshold,
    cost_per_correct,
    performance_gap_recovered,
)

PAIRED = ("accuracy", "local_accuracy")
"""Measures that are paired user by user with winners and losers; differences are taken of all."""


REFERENCES = (
    ("frozen, alone", {"local_accuracy": "frozen_accuracy"}),
    ("frozen, asks at random", {"accuracy": "random_accuracy"}),
    ("cloud LLM", {"accuracy": "cloud_accuracy"}),
)
"""Bounds that every run measures before training: label, and the measures of users that they are read from."""


@dataclass(frozen=True)
class Result:
    """A method, or a run that is a bound, over all seeds."""

    method: Method
    runs: tuple[Measured, ...]
    """In the order of the seeds."""
    means: dict[str, Interval]
    """User means by measure, and what is taken of the mean user: pgr, apgr, cpt_50, cpt_80, cost_per_correct."""
    facts: dict[str, float]
    """Mean over seeds of what is of a whole run, and of the spread over users; nan where not measured."""

    @property
    def label(self) -> str:
        """What it is called."""
        return self.method.label

    @property
    def users(self) -> list[pd.DataFrame]:
        """One table per seed."""
        return [run.users for run in self.runs]

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
    def matrices(self) -> pd.DataFrame:
        """R of every device: `method, seed, stream_seed, device, round, task, accuracy, local_accuracy`."""
        return self._joined(lambda run: run.matrices)

    def _joined(self, part: Callable[[Measured], pd.DataFrame]) -> pd.DataFrame:
        parts = [
            under(result.label, seeds, part(run))
            for result in self.results
            for seeds, run in zip(self.seeds, result.runs, strict=True)
        ]
        return pd.concat(parts, ignore_index=True)


def difference_of(comparison: Compared, label: str) -> dict[str, Interval]:
    """A method minus `against` in every measure of users."""
    return differences(comparison.of(label).users, comparison.of(comparison.against).users)


def under(label: str, seeds: tuple[int, int], frame: pd.DataFrame) -> pd.DataFrame:
    """The frame of one run, with the columns `method`, `seed` and `stream_seed` before its own."""
    own = pd.DataFrame({"method": label, "seed": seeds[0], "stream_seed": seeds[1]}, index=frame.index)
    return pd.concat([own, frame], axis=1)


# FOLDED flsim/comparison/result.py
# Measures of asking that are ratios of means: taken of the mean user, since users' own ratios rest on few
# prompts.

_SHARES = [share / 100 for share in SENDING]


def of_mean_users(runs: Sequence[Measured]) -> dict[str, Interval]:
    """What is taken of the mean user: pgr, apgr, cpt_50, cpt_80 and cost_per_correct; those not measured are left out.

    Args:
        runs: one per seed.
    """
    columns = ["accuracy", "local_accuracy", "cloud_accuracy"]
    ends = ["local_accuracy", "cloud_accuracy", *(f"sending_{share}" for share in SENDING)]
    asked = [run.users.assign(money=run.users["cloud_usage"] * run.facts["price_per_call"]) for run in runs]
    tables = [run.users for run in runs]
    wanted = {
        "pgr": _of_complete(tables, columns, lambda v: performance_gap_recovered(v[0], v[1], v[2])),
        "apgr": _of_complete(tables, ends, _apgr),
        "cpt_50": _of_complete(tables, ends, partial(_cpt, part=0.5)),
        "cpt_80": _of_complete(tables, ends, partial(_cpt, part=0.8)),
        "cost_per_correct": _of_complete(asked, ["money", "accuracy"], lambda v: cost_per_correct(v[0], v[1])),
    }
    return {name: interval for name, interval in wanted.items() if interval is not None}


def gap_recovered_difference(first: Sequence[pd.DataFrame], second: Sequence[pd.DataFrame]) -> Interval | None:
    """APGR of the first minus that of the second, each of its mean user, drawn by the same users and seeds.

    Args:
        first: one table of users per seed.
        second: of the other method, in the order of the same seeds.

    Returns:
        None where it is not defined or not measured for the mean user.
    """
    ends = ["local_accuracy", "cloud_accuracy", *(f"sending_{share}" for share in SENDING)]
    both = [one[ends].join(other[ends].add_suffix("_other")) for one, other in zip(first, second, strict=True)]
    return _of_complete(both, list(both[0].columns), lambda v: _apgr(v[: len(ends)]) - _apgr(v[len(ends) :]))


def _of_complete(
    tables: Sequence[pd.DataFrame], columns: list[str], statistic: Callable[[NDArray[np.float64]], float]
) -> Interval | None:
    """`of_mean_user` over the users who have all columns; None if a seed has no such user."""
    complete = [table[columns].dropna() for table in tables]
    return of_mean_user(complete, statistic) if all(len(table) for table in complete) else None


def _apgr(values: NDArray[np.float64]) -> float:
    """Of the device alone, the cloud alone and the curve between them; nan where the cloud is no better."""
    weak, strong, *curve = values.tolist()
    return average_gap_recovered(_SHARES, curve, weak, strong) if strong > weak else float("nan")


def _cpt(values: NDArray[np.float64], part: float) -> float:
    """The same of CPT."""
    weak, strong, *curve = values.tolist()
    return call_performance_threshold(part, _SHARES, curve, weak, strong) if strong > weak else float("nan")
