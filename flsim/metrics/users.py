"""A measure over users: every user's own value, their means under each weighting, and how they are spread.

Two means of the same rows, and how far apart they can be; `flsim/metrics/weighting.py` has the others:

    device-000   9 right of 10        example mean  (9 + 1 + 0) / (10 + 2 + 8) = 0.50
    device-001   1 right of  2        user mean     (0.9 + 0.5 + 0.0) / 3      = 0.4667
    device-002   0 right of  8        worst decile  the worst ceil(3 / 10) = 1 user: 0.0
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from flsim.metrics.weighting import mean_by


@dataclass(frozen=True)
class UserSummary:
    """How one measure is spread over users."""

    example_mean: float
    """By examples: sum of totals over sum of weights; a sample stands for all that a user has (`rows.evaluation`)."""
    traffic_mean: float | None
    """By traffic; None where nobody's is known, as in a run of the release before."""
    request_mean: float | None
    """By requests; None where there are none."""
    user_mean: float
    """Mean over users of the user's own value: every user counts once."""
    p10: float
    """10th percentile over users, linear between two users."""
    p50: float
    """Median over users."""
    p90: float
    """90th percentile over users."""
    worst_decile_mean: float
    """Mean of the worst `ceil(users / 10)` users: the lowest values, or the highest where lower is better."""
    users: int
    """How many users were measured."""


@dataclass(frozen=True)
class PairedDifference:
    """One measure of two models on the same users: first minus second, user by user."""

    mean: float
    """Mean difference over the users that both have."""
    standard_error: float | None
    """Standard error of that mean over users; None for fewer than two users."""
    higher: int
    """Users whose value is higher under the first."""
    lower: int
    """Users whose value is lower under the first."""
    users: int
    """Users that both have."""


def per_user(rows: pd.DataFrame) -> pd.Series:
    """Every user's own value: sum of totals over sum of weights of the user's rows.

    Law: multiplying all totals and weights of a user by one factor changes nothing.

    Args:
        rows: rows of one measure, of any number of rounds and tasks.

    Returns:
        Values by device, sorted by device; users without weight are left out.
    """
    return value_of(user_sums(rows))


def user_sums(rows: pd.DataFrame) -> pd.DataFrame:
    """Every user's `total` and `weight`, added up, by device.

    Args:
        rows: rows of one measure, of any number of rounds and tasks.
    """
    if rows.empty:  # as it is of most measures in most runs, and pandas takes no less time over nothing
        return rows.set_index("device")[["total", "weight"]]
    return rows.groupby("device", sort=True)[["total", "weight"]].sum()


def value_of(sums: pd.DataFrame) -> pd.Series:
    """By device, total over weight of `user_sums`; users without weight are left out."""
    has_weight = sums["weight"] > 0
    known = sums if has_weight.all() else sums[has_weight]
    return (known["total"] / known["weight"]).rename("value")


def summarise(
    rows: pd.DataFrame,
    higher_is_better: bool = True,
    *,
    traffic: pd.Series | None = None,
    requests: pd.Series | None = None,
) -> UserSummary:
    """Summarise one measure over users.

    Laws: a permutation of the rows and a split of a row into parts change nothing; when all users have one value, all
    means and percentiles are that value; weights scale away, for all but the example mean user by user, for the
    example mean only together.

    Args:
        rows: rows of one measure.
        higher_is_better: whether the worst users are those with the lowest values.
        traffic: by device, prompts that its stream brings; None if that is not known.
        requests: by device, how often it asked the cloud; None likewise.

    Raises:
        ValueError: when no row has weight.
    """
    own = per_user(rows)
    values = own.to_numpy(dtype=float)  # (U,)
    if values.size == 0:
        raise ValueError("cannot summarise rows without weight; select a model, name and round that were measured")
    p10, p50, p90 = (float(value) for value in np.quantile(values, [0.1, 0.5, 0.9]))
    return UserSummary(
        example_mean=float(rows["total"].sum() / rows["weight"].sum()),
        traffic_mean=mean_by(own, traffic),
        request_mean=mean_by(own, requests),
        user_mean=float(values.mean()),
        p10=p10,
        p50=p50,
        p90=p90,
        worst_decile_mean=worst_decile_mean(values, higher_is_better),
        users=int(values.size),
    )


def worst_decile_mean(values: NDArray[np.float64], higher_is_better: bool = True) -> float:
    """Mean of the worst `ceil(users / 10)` of these values `(U,)`, one per user."""
    worst_first = np.sort(values) if higher_is_better else np.sort(values)[::-1]  # (U,)
    return float(worst_first[: -(-values.size // 10)].mean())


def paired_difference(first: pd.Series, second: pd.Series) -> PairedDifference | None:
    """Compare two models user by user.

    By hand: first 0.9, 0.5, 0.4 and second 0.6, 0.5, 0.5 differ by 0.3, 0.0, -0.1: mean 0.0667, sample standard
    deviation 0.2082, standard error 0.2082 / sqrt(3) = 0.1202, one user higher, one lower.

    Args:
        first: values by device, as `per_user` gives.
        second: the same for the other model.

    Returns:
        The difference over the users in both; None when there is no such user.
    """
    shared = first.index.intersection(second.index)
    if shared.empty:
        return None
    gaps = first.loc[shared].to_numpy(dtype=float) - second.loc[shared].to_numpy(dtype=float)  # (U,)
    return PairedDifference(
        mean=float(gaps.mean()),
        standard_error=float(gaps.std(ddof=1) / math.sqrt(gaps.size)) if gaps.size > 1 else None,
        higher=int((gaps > 0).sum()),
        lower=int((gaps < 0).sum()),
        users=int(gaps.size),
    )


def over_rounds(rows: pd.DataFrame) -> pd.DataFrame:
    """Follow one measure over rounds, at user level.

    Args:
        rows: rows of one measure.

    Returns:
        One line per measured round, by `round`, with the columns `mean`, `p10`, `p90` (over users) and `users`.
    """
    sums = rows.groupby(["round", "device"], sort=True)[["total", "weight"]].sum()
    sums = sums[sums["weight"] > 0]
    by_round = (sums["total"] / sums["weight"]).groupby("round")
    return pd.DataFrame(
        {
            "mean": by_round.mean(),
            "p10": by_round.quantile(0.1),
            "p90": by_round.quantile(0.9),
            "users": by_round.size(),
        }
    )
