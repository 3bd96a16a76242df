"""Reducers: how weighted updates become one; the mean, and what one device with a huge update cannot rule."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from flsim.aggregation.reducers import geometric_median, median, multi_krum, trimmed_mean

Floats = NDArray[np.float64]


@runtime_checkable
class Combining(Protocol):
    """Reduces to a linear combination of the updates, so it serves in any space that has inner products."""

    def coefficients(self, gram: Callable[[], Floats], shares: Floats) -> Floats:
        """The coefficient of each update, `(K,)`; they add up to 1.

        Args:
            gram: gives the inner products of the updates `(K, K)`; costly, so asked only by who needs them.
            shares: the weights of the updates `(K,)`, adding up to 1.
        """
        ...


@runtime_checkable
class Coordinatewise(Protocol):
    """Reduces number by number, so it needs tensors of one shape: the factors, not their products."""

    def reduce(self, values: Floats) -> Floats:
        """`(n,)` from the updates `(K, n)`."""
        ...


@dataclass(frozen=True)
class Mean:
    """The weighted mean."""

    def coefficients(self, gram: Callable[[], Floats], shares: Floats) -> Floats:
        """The shares."""
        return shares


@dataclass(frozen=True)
class MultiKrum:
    """The plain mean of the updates that lie closest to their neighbours (Blanchard et al. 2017, arXiv 1703.02757)."""

    byzantine: float = 0.2
    """Share of devices that may be malicious, at least 0 and below a half; rounded up to whole devices. Krum promises
    something only for n >= 2 f + 3 updates; when fewer came in a round, f is what they allow."""
    keep: int | None = None
    """How many updates are averaged; 1 is Krum; None keeps all but as many as may be malicious."""

    def __post_init__(self) -> None:
        """Refuse shares that no reducer can stand."""
        _refuse_share("byzantine", self.byzantine)
        if self.keep is not None and self.keep < 1:
            raise ValueError(f"keep={self.keep} must be at least 1: so many updates are averaged; leave it out for all")

    def coefficients(self, gram: Callable[[], Floats], shares: Floats) -> Floats:
        """1 / m for those kept, 0 for the others; the shares where fewer than three came."""
        count = len(shares)
        if count < 3:
            return shares
        feared = min(math.ceil(self.byzantine * count - 1e-9), (count - 3) // 2)
        most = count - feared
        return multi_krum(gram(), byzantine=feared, keep=most if self.keep is None else min(self.keep, most))


@dataclass(frozen=True)
class GeometricMedian:
    """The point with the least weighted sum of distances (RFA, Pillutla et al. 2022, arXiv 1912.13445, algorithm 1)."""

    iterations: int = 100
    """At most so many of Weiszfeld's."""
    smoothing: float = 1e-6
    """Distances below this count as this; in the unit of the updates' norm."""

    def __post_init__(self) -> None:
        """Refuse what would not iterate, or could divide by zero."""
        if self.iterations < 1 or not self.smoothing > 0:
            raise ValueError(f"iterations={self.iterations} must be at least 1 and smoothing={self.smoothing} above 0")

    def coefficients(self, gram: Callable[[], Floats], shares: Floats) -> Floats:
        """Shares divided by the distances to the median."""
        return geometric_median(gram(), shares, iterations=self.iterations, smoothing=self.smoothing)


@dataclass(frozen=True)
class TrimmedMean:
    """The mean of each number without the largest and the smallest (Yin et al. 2018, arXiv 1803.01498); no weights."""

    share: float = 0.2
    """Share of devices that is dropped at each end, at least 0 and below a half; rounded down to whole devices."""

    def __post_init__(self) -> None:
        """Refuse to drop everything."""
        _refuse_share("share", self.share)

    def reduce(self, values: Floats) -> Floats:
        """`(n,)`."""
        return trimmed_mean(values, self.share)


@dataclass(frozen=True)
class Median:
    """The median of each number (Yin et al. 2018, arXiv 1803.01498); no weights."""

    def reduce(self, values: Floats) -> Floats:
        """`(n,)`."""
        return median(values)


def _refuse_share(name: str, share: float) -> None:
    if not 0 <= share < 0.5:
        raise ValueError(f"{name}={share} must be at least 0 and below 0.5: half of the devices must be honest")
