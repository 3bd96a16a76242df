"""Intervals for means over users and seeds, by the bootstrap (Efron 1979) on both levels.

Users of one seed share a fleet, a stream and a run, so they are no independent draws: seeds are drawn first, with
replacement, then users within each drawn seed. With few seeds the interval is rough; it says so by being wide.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from flsim.seeding import generator


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


def over_users_and_seeds(values: Sequence[NDArray[np.float64]], *, draws: int = 4000) -> Interval:
    """Mean over seeds of the mean over users.

    Laws: the order of users and seeds changes nothing but the draw; adding a constant to all values shifts all three
    numbers by it; equal values give an interval of no width.

    Args:
        values: one array of users `(U_s,)` per seed, none of them empty.
        draws: bootstrap samples.

    Raises:
        ValueError: if there is no seed, or one without users.
    """
    if not values or any(len(of_seed) == 0 for of_seed in values):
        raise ValueError("an interval needs at least one seed, and at least one user in each")
    rng = generator(0, "bootstrap")
    arrays = [np.asarray(of_seed, dtype=np.float64) for of_seed in values]
    means = np.empty(draws)
    for draw in range(draws):
        seeds = [arrays[place] for place in rng.integers(len(arrays), size=len(arrays))]
        means[draw] = np.mean([users[rng.integers(len(users), size=len(users))].mean() for users in seeds])
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(np.mean([users.mean() for users in arrays])), float(low), float(high))


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
