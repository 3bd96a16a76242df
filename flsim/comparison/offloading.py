"""Measures of asking that are ratios of means: taken of the mean user, since users' own ratios rest on few prompts."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from flsim.comparison.measures import SENDING, Measured
from flsim.metrics.intervals import Interval, of_mean_user
from flsim.metrics.offloading import (
    average_gap_recovered,
    call_performance_threshold,
    cost_per_correct,
    performance_gap_recovered,
)

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
