"""What the rules of a domain come to: measures of users over seeds, and differences user by user."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from experiments.real_outcomes.rules import NAMES, rows_by_rule
from flsim.comparison.pairing import differences
from flsim.comparison.result import gap_recovered_difference, of_mean_users
from flsim.config.schema import Config
from flsim.metrics.intervals import Interval, of_columns
from flsim.metrics.measured import Measured, measure
from flsim.metrics.rows import evaluation, latest
from flsim.metrics.run_rows import RunRows
from flsim.metrics.users import per_user
from flsim.tasks.stream import TaskStream

BAND = 0.03
"""How far from tau usage may be, up or down."""


@dataclass(frozen=True)
class Outcome:
    """One rule over all seeds."""

    runs: tuple[Measured, ...]
    """One per seed; beside the usual measures of users `wishes`, the share of test prompts it would send."""
    means: Mapping[str, Interval]
    """By measure, `apgr` among them where the cloud is better than the device."""
    within: float
    """Share of (seed, user) pairs whose wishes are within tau +- `BAND`."""

    @property
    def users(self) -> list[pd.DataFrame]:
        """One table per seed."""
        return [run.users for run in self.runs]


def outcomes_of(configs: Sequence[Config]) -> dict[str, Outcome]:
    """Every rule's outcome on the finished runs of one domain.

    Args:
        configs: of the runs, one per seed.
    """
    found: dict[str, list[Measured]] = {name: [] for name in NAMES}
    for config in configs:
        for name, rows in rows_by_rule(config).items():
            found[name].append(_measured(config, rows))
    return {name: _outcome(runs, configs[0].budget.tau) for name, runs in found.items()}


def difference(one: Outcome, other: Outcome) -> dict[str, Interval]:
    """First minus second, paired by user and seed; of `apgr` the mean user's."""
    gaps = differences(one.users, other.users)
    recovered = gap_recovered_difference(one.users, other.users)
    return gaps if recovered is None else {**gaps, "apgr": recovered}


def _measured(config: Config, rows: pd.DataFrame) -> Measured:
    run = measure(RunRows(rows, TaskStream(config.stream, config.rounds).phases, config.budget.tau))
    wishes = per_user(latest(evaluation(rows, model="global", name="cloud_requests")))
    return replace(run, users=run.users.assign(wishes=wishes))


def _outcome(runs: Sequence[Measured], tau: float) -> Outcome:
    tables = [run.users for run in runs]
    wishes = pd.concat([table["wishes"] for table in tables])
    within = float(((wishes - tau).abs() <= BAND + 1e-9).mean())
    return Outcome(tuple(runs), {**of_columns(tables), **of_mean_users(runs)}, within)
