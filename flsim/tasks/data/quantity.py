"""Unequal quantities: how large a share of the items each device gets, and whole numbers in place of shares."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flsim.config import ConfigError
from flsim.seeding import generator


def lognormal_shares(devices: int, *, sigma: float, seed: int = 0) -> tuple[float, ...]:
    """Unequal quantities: log-normal with this sigma of the logarithm, summing to 1; sigma 0 makes them equal."""
    if not 0 <= sigma < np.inf:
        raise ConfigError(f"partition: sigma is {sigma}; it must be 0 or more, and finite")
    draws = [generator(seed, "quantity", device).normal(0.0, sigma) for device in range(devices)]
    sizes = np.exp(np.array(draws) - max(draws, default=0.0))
    return tuple(float(size) for size in sizes / sizes.sum())


def dirichlet_shares(devices: int, *, alpha: float, seed: int = 0) -> tuple[float, ...]:
    """Unequal quantities: one draw of a symmetric Dirichlet, `alpha` for each device; inf makes them equal."""
    if not alpha > 0:
        raise ConfigError(f"partition: alpha is {alpha}; it must be above 0, or inf")
    if np.isinf(alpha):
        return (1.0 / devices,) * devices
    return tuple(float(share) for share in generator(seed, "quantities").dirichlet([alpha] * devices))


def apportioned(quotas: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Whole numbers in place of quotas, each rounded down or up, their sum that of the quotas if that is whole.

    Systematic rounding: quotas are laid end to end, and each gets the whole numbers that its stretch covers after a
    random offset; so the expected count is the quota. By hand: quotas 1.5, 1.5, offset 0.2: the ends are at 1.7 and
    3.2, so the counts are 1 and 2.

    Args:
        quotas: at least 0, shape `(D,)`.
        rng: drawn from once.

    Returns:
        Counts, shape `(D,)`.
    """
    ends = np.floor(np.round(np.cumsum(quotas), 9) + rng.uniform(0.0, 1.0)).astype(np.int64)  # (D,)
    return np.asarray(np.diff(ends, prepend=0), dtype=np.int64)


def checked_shares(shares: Sequence[float] | None, devices: int) -> NDArray[np.float64]:
    """Shares as an array, `(D,)`; equal ones for None.

    Raises:
        ConfigError: if they do not fit the devices, are negative, or do not sum to 1.
    """
    if devices < 1:
        raise ConfigError(f"partition: devices is {devices}; it must be at least 1")
    if shares is None:
        return np.full(devices, 1.0 / devices)
    found = np.array(shares, dtype=np.float64)
    if found.shape != (devices,) or not (found >= 0).all() or not np.isclose(found.sum(), 1.0):
        raise ConfigError(f"partition: shares must be {devices} numbers of at least 0 that sum to 1, not {shares}")
    return found
