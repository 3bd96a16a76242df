"""What one run says: measures of its users and of the whole, curves over rounds, and the matrices R."""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

import pandas as pd

from flsim.config.schema import ConfigError
from flsim.metrics.formulas import MeanUser
from flsim.metrics.measures import MEASURES, Measure
from flsim.metrics.run_rows import RunRows
from flsim.metrics.users import over_rounds


@dataclass(frozen=True)
class Measured:
    """One run."""

    users: pd.DataFrame
    """A line per device, a column per measure of users; nan where it was not measured."""
    curves: pd.DataFrame
    """Columns `measure, round, mean, p10, p90, users`: the mean user and its band."""
    matrices: pd.DataFrame
    """R of every device: columns `device, round, task, accuracy, alone_accuracy`, a line per phase end."""
    facts: dict[str, float]
    """Measures of the whole run; nan where not measured."""


def measure(run: RunRows, more: Sequence[Measure] = ()) -> Measured:
    """Measure a run.

    Args:
        run: its rows.
        more: measures beside those of the table.

    Raises:
        ConfigError: if the formula of a measure returns something else than it may.
    """
    users: dict[str, pd.Series] = {}
    facts: dict[str, float] = {}
    for one in (*MEASURES.values(), *more):
        if isinstance(one.of, MeanUser):
            continue
        found = one.of(run)
        if isinstance(found, pd.Series):
            users[one.name] = found.astype(float)
        elif isinstance(found, Real):
            facts[one.name] = float(found)
        else:
            raise ConfigError(
                f"the formula of measure {one.name!r} returned {type(found).__name__}; it may return a pandas Series "
                f"with a value per device, or a number of the whole run"
            )
    table = pd.DataFrame(users).reindex(sorted(run.accuracy.index)).rename_axis("device")
    return Measured(table, _curves(run, more), _matrices(run), facts)


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
