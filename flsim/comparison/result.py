"""What a comparison found: methods with their measures over seeds, what bounds them, and their pairs."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from flsim.comparison.measures import Measured
from flsim.comparison.pairing import Pair, differences
from flsim.comparison.runs import Method
from flsim.metrics.intervals import Interval

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
