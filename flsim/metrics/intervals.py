"""Intervals for means over users and seeds, by the bootstrap (Efron 1979) on both levels.

Users of one seed share a fleet, a stream and a run, so they are no independent draws: seeds are drawn first, with
replacement, then users within each drawn seed. With few seeds the interval is rough; it says so by being wide, except
with a single seed, where it only says how much users differ.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from flsim.seeding import generator

DRAWS = 4000
"""Bootstrap samples."""


@dataclass(frozen=True)
class Interval:
    """A mean with the 95 % interval of its bootstrap."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of 0."""
        return self.low > 0 or self.high < 0


def over_users_and_seeds(
    values: Sequence[NDArray[np.float64]],
    *,
    weights: Sequence[NDArray[np.float64]] | None = None,
    draws: int = DRAWS,
) -> Interval:
    """Mean over seeds of the mean over users, which is weighed anew among the users of every draw.

    Laws: the order of users and seeds changes nothing but the draw; adding a constant to all values shifts all three
    numbers by it; equal values give an interval of no width.

    Args:
        values: one array of users `(U_s,)` per seed, none of them empty.
        weights: of these users, at least 0; None weighs all alike.
        draws: bootstrap samples.

    Raises:
        ValueError: if there is no seed, or one without users.
    """
    columns = [np.asarray(of_seed, dtype=np.float64)[:, None] for of_seed in values]
    heavy = None if weights is None else [np.asarray(own, dtype=np.float64)[:, None] for own in weights]
    drawn = _drawn_means(columns, draws, heavy)[:, 0]  # (D,)
    return _interval(_mean_users(columns, heavy)[0], drawn)


def of_columns(tables: Sequence[pd.DataFrame], weights: Sequence[pd.DataFrame] | None = None) -> dict[str, Interval]:
    """The interval of every measure at once, each over the users that have it.

    Args:
        tables: one per seed, a line per user, a column per measure; nan where a user has none.
        weights: of the same shapes, what each user weighs in each mean, at least 0; None weighs all alike.

    Returns:
        By measure; those that no user with weight has are left out.

    Raises:
        ValueError: as for `over_users_and_seeds`.
    """
    columns = [table.to_numpy(dtype=float) for table in tables]  # (U_s, M) each
    heavy = None if weights is None else [own.to_numpy(dtype=float) for own in weights]  # (U_s, M) each
    drawn, means = _drawn_means(columns, DRAWS, heavy), _mean_users(columns, heavy)  # (D, M), (M,)
    names = [str(name) for name in tables[0].columns]
    return {name: _interval(means[m], drawn[:, m]) for m, name in enumerate(names) if not np.isnan(means[m])}


def of_mean_user(
    tables: Sequence[pd.DataFrame],
    statistic: Callable[[NDArray[np.float64]], float],
    weights: Sequence[pd.Series] | None = None,
) -> Interval | None:
    """A statistic of the mean user, such as a ratio of two means, with the interval of its bootstrap.

    Args:
        tables: as for `of_columns`; no user lacks a value.
        statistic: of the mean user's values `(M,)`; nan where it is not defined.
        weights: of the users of each table, at least 0; None weighs all alike.

    Returns:
        None if the statistic is not defined for the mean user; draws for which it is not are left out.
    """
    columns = [table.to_numpy(dtype=float) for table in tables]  # (U_s, M) each
    heavy = None if weights is None else [own.to_numpy(dtype=float)[:, None] for own in weights]  # (U_s, 1) each
    drawn, mean = _drawn_means(columns, DRAWS, heavy), statistic(_mean_users(columns, heavy))
    return None if np.isnan(mean) else _interval(mean, np.array([statistic(means) for means in drawn]))


def paired_over_users(first: Sequence[pd.Series], second: Sequence[pd.Series]) -> Interval:
    """First minus second, user by user within each seed.

    Args:
        first: values by device, one series per seed.
        second: the same of the other method, in the order of the same seeds.

    Raises:
        ValueError: if the seeds differ in number or a seed has no user in common.
    """
    gaps = []
    for one, other in zip(first, second, strict=True):
        users = one.index.intersection(other.index)
        gaps.append(one.loc[users].to_numpy(dtype=float) - other.loc[users].to_numpy(dtype=float))
    return over_users_and_seeds(gaps)


def _interval(mean: float, drawn: NDArray[np.float64]) -> Interval:
    with np.errstate(invalid="ignore"):  # between two infinite draws, such as of money per right answer, lies nan
        low, high = np.nanquantile(drawn, [0.025, 0.975])
    return Interval(float(mean), float(low), float(high))


def _mean_users(
    columns: Sequence[NDArray[np.float64]], weights: Sequence[NDArray[np.float64]] | None
) -> NDArray[np.float64]:
    """Mean over seeds of the mean over users of each column, `(M,)`; nan is left out."""
    once = [np.ones((1, len(of_seed))) for of_seed in columns]
    means: NDArray[np.float64] = _means(columns, once, weights)[0]
    return means


def _drawn_means(
    columns: Sequence[NDArray[np.float64]], draws: int, weights: Sequence[NDArray[np.float64]] | None
) -> NDArray[np.float64]:
    """The same of every bootstrap sample, `(D, M)`."""
    if not columns or any(len(of_seed) == 0 for of_seed in columns):
        raise ValueError("an interval needs at least one seed, and at least one user in each")
    return _means(columns, _counts(tuple(len(of_seed) for of_seed in columns), draws), weights)


def _means(
    columns: Sequence[NDArray[np.float64]],
    counts: Sequence[NDArray[Any]],
    weights: Sequence[NDArray[np.float64]] | None,
) -> NDArray[np.float64]:
    """Means `(D, M)` of samples that hold user u of seed s `counts[s][d, u]` times; a seed counts as often as drawn."""
    total = weight = np.zeros((len(counts[0]), columns[0].shape[1]))  # (D, M)
    heavy = [np.ones((1, 1))] * len(columns) if weights is None else weights  # (U_s, M), or broadcast to it
    for values, counted, own in zip(columns, counts, heavy, strict=True):
        known, times = ~np.isnan(values) * own, counted.astype(float)  # (U_s, M), (D, U_s)
        users = times @ known  # (D, M)
        sums = times @ (np.where(known > 0, values, 0.0) * own)  # (D, M)
        drawn = np.where(users > 0, times.sum(axis=1, keepdims=True) / len(values), 0.0)  # (D, M)
        total = total + drawn * sums / np.where(users > 0, users, 1.0)
        weight = weight + drawn
    return np.divide(total, weight, out=np.full_like(total, np.nan), where=weight > 0)


@lru_cache(maxsize=8)
def _counts(users: tuple[int, ...], draws: int) -> list[NDArray[np.uint16]]:
    """How often each bootstrap sample holds each user, `(D, U_s)` per seed; the same draws for all measures."""
    rng = generator(0, "bootstrap")
    counts = [np.zeros((draws, size), dtype=np.uint16) for size in users]
    for draw in range(draws):
        for place in rng.integers(len(users), size=len(users)):
            drawn = rng.integers(users[place], size=users[place])
            counts[place][draw] += np.bincount(drawn, minlength=users[place]).astype(np.uint16)
    return counts
