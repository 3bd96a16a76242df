"""Two methods on the same users: differences user by user and seed by seed, who wins, and who is hurt."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from flsim.metrics.intervals import Interval, of_columns

_SAME = 1e-12  # accuracies are ratios of small counts: what differs less is equal


@dataclass(frozen=True)
class Hurt:
    """A user who is worse off."""

    seeds: tuple[int, int]
    """Of the run and of its stream."""
    device: str
    value: float
    """With the method."""
    other: float
    """With what it is compared with."""


@dataclass(frozen=True)
class Pair:
    """A method against another, on one measure of which more is better."""

    label: str
    against: str
    measure: str
    difference: Interval
    """First minus second: mean over seeds of the mean over users."""
    win_rate: float
    """Share of (seed, user) pairs that are higher with the first; those that are equal count half."""
    hurt: tuple[Hurt, ...]
    """Users who are lower with the first, the most hurt first."""
    pairs: int
    """How many (seed, user) pairs there are."""


def differences(
    first: Sequence[pd.DataFrame], second: Sequence[pd.DataFrame], weights: Sequence[pd.DataFrame] | None = None
) -> dict[str, Interval]:
    """First minus second of every measure, paired by user within each seed.

    Args:
        first: one table per seed, a line per user, a column per measure.
        second: of the other method, in the order of the same seeds.
        weights: what users weigh, shaped as `second`, whose they are; None weighs all alike.

    Returns:
        By measure; those that both have for no user with weight are left out.

    Raises:
        ValueError: if a seed has no user in common.
    """
    gaps = []
    for one, other in zip(first, second, strict=True):
        users = one.index.intersection(other.index)
        gaps.append(one.loc[users] - other.loc[users])
    if weights is None:
        return of_columns(gaps)
    return of_columns(gaps, [own.loc[gap.index, gap.columns] for own, gap in zip(weights, gaps, strict=True)])


def pair(
    names: tuple[str, str],
    first: Sequence[pd.DataFrame],
    second: Sequence[pd.DataFrame],
    seeds: Sequence[tuple[int, int]],
    *,
    measure: str,
    weights: Sequence[pd.DataFrame] | None = None,
) -> Pair | None:
    """Compare two methods on one measure; the win rate counts every user once, whatever it weighs.

    By hand: 0.6, 0.5, 0.2 against 0.4, 0.5, 0.3 differ by 0.2, 0 and -0.1: a mean of 0.0333, a win rate of 1.5 / 3, and
    the third user is hurt.

    Args:
        names: of both methods.
        first: as for `differences`.
        second: as for `differences`.
        seeds: of each pair of tables.
        measure: a column of them.
        weights: as for `differences`.

    Returns:
        None if no user with weight has it in both.
    """
    lines = [
        (own, str(device), float(one.loc[device, measure]), float(other.loc[device, measure]))
        for own, one, other in zip(seeds, first, second, strict=True)
        for device in one.index.intersection(other.index)
    ]
    known = [Hurt(*line) for line in lines if not np.isnan(line[2] - line[3])]
    if not known:
        return None
    gaps = np.array([user.value - user.other for user in known])  # (pairs,)
    worse = sorted((user for user, gap in zip(known, gaps, strict=True) if gap < -_SAME), key=_by_loss)
    found = differences([t[[measure]] for t in first], [t[[measure]] for t in second], weights).get(measure)
    if found is None:
        return None
    win_rate = float(np.mean((gaps > _SAME) + 0.5 * (np.abs(gaps) <= _SAME)))
    return Pair(names[0], names[1], measure, found, win_rate, tuple(worse), len(known))


def _by_loss(user: Hurt) -> tuple[float, tuple[int, int], str]:
    return (user.value - user.other, user.seeds, user.device)
