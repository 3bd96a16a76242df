"""What one run says: measures of its users and of the whole, curves over rounds, and the matrices R."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Real

import pandas as pd

from flsim.config.schema import ConfigError
from flsim.metrics.calibration import of_all
from flsim.metrics.formulas import AtEnd, MeanUser, Trained
from flsim.metrics.measures import MEASURES, Measure
from flsim.metrics.run_rows import RunRows
from flsim.metrics.time_to import course_of
from flsim.metrics.users import over_rounds
from flsim.metrics.weighting import EXAMPLES, REQUESTS, TRAFFIC, Weighting


@dataclass(frozen=True)
class Measured:
    """One run."""

    users: pd.DataFrame
    """A line per device, a column per measure of users; nan where it was not measured."""
    examples: pd.DataFrame
    """How many examples each of these values is of, or, of a measure made of several, how many test items the user has;
    nan where that is not known."""
    curves: pd.DataFrame
    """Columns `measure, round, mean, p10, p90, users`: the mean user and its band."""
    matrices: pd.DataFrame
    """R of every device: columns `device, round, task, accuracy, alone_accuracy`, a line per phase end."""
    claims: pd.DataFrame
    """What the asking rule claims of being wrong alone at the end: sums of all users by tenth of the claim."""
    facts: dict[str, float]
    """Measures of the whole run; nan where not measured."""
    course: pd.DataFrame = field(default_factory=pd.DataFrame)
    """What it had cost at every test, and how right its mean user was, as `flsim.metrics.time_to.course_of` gives."""
    classes: pd.Series = field(default_factory=lambda: pd.Series(dtype="category"))
    """By device, the class that it is of; empty without a system."""

    def weights(self, weighting: Weighting) -> pd.DataFrame:
        """What every user weighs in the mean of every measure, shaped as `users`; 0 where that is not known."""
        if weighting == EXAMPLES:
            return self.examples.fillna(0.0)
        column = {TRAFFIC: "traffic", REQUESTS: "requests"}.get(weighting)
        own = pd.Series(1.0, self.users.index) if column is None else self.users[column].fillna(0.0)
        return pd.DataFrame(dict.fromkeys(self.users.columns, own), index=self.users.index)


def measure(run: RunRows, more: Sequence[Measure] = ()) -> Measured:
    """Measure a run.

    Args:
        run: its rows.
        more: measures beside those of the table.

    Raises:
        ConfigError: if the formula of a measure returns something else than it may.
    """
    users: dict[str, pd.Series] = {}
    examples: dict[str, pd.Series] = {}
    facts: dict[str, float] = {}
    for one in (*MEASURES.values(), *more):
        if isinstance(one.of, MeanUser):
            continue
        found = one.of(run)
        if isinstance(found, pd.Series):
            users[one.name] = found.astype(float)
            examples[one.name] = one.of.examples(run) if isinstance(one.of, AtEnd | Trained) else run.items
        elif isinstance(found, Real):
            facts[one.name] = float(found)
        else:
            raise ConfigError(
                f"the formula of measure {one.name!r} returned {type(found).__name__}; it may return a pandas Series "
                f"with a value per device, or a number of the whole run"
            )
    devices = sorted(run.accuracy.index)
    values, counts = (pd.DataFrame(own).reindex(devices).rename_axis("device") for own in (users, examples))
    claims, course = of_all(run.claims), course_of(run)
    return Measured(values, counts, _curves(run, more), _matrices(run), claims, facts, course, run.classes)


def _curves(run: RunRows, more: Sequence[Measure]) -> pd.DataFrame:
    """Of the measures that are followed."""
    parts = [
        over_rounds(one.rows(run)).reset_index().assign(measure=one.name)
        for one in (*MEASURES.values(), *more)
        if one.followed
    ]
    return pd.concat(parts, ignore_index=True)[["measure", "round", "mean", "p10", "p90", "users"]]


def _matrices(run: RunRows) -> pd.DataFrame:
    ends = [phase.last_round for phase in run.phases]
    parts = []
    for name in ("accuracy", "alone_accuracy"):
        tested = run.tested(name)
        tested = tested[tested["round"].isin([0, *ends]) & (tested["weight"] > 0)]
        tested = tested.set_index(["device", "round", "task"])
        parts.append((tested["total"] / tested["weight"]).rename(name))
    return pd.concat(parts, axis=1).sort_index().reset_index()
