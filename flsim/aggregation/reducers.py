"""How the updates of K devices become one: means and their robust relatives.

Some only ever form a weighted sum of the updates and are therefore functions of the Gram matrix alone: `mean`,
`multi_krum`, `geometric_median` return the K coefficients, which sum to 1. In product space their result does not
depend on the frame of the devices' factors. The others look at every coordinate by itself: `trimmed_mean`, `median`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flsim.aggregation.grams import squared_distances
from flsim.aggregation.pairs import Matrix


def mean(weights: Sequence[float] | Matrix) -> Matrix:
    """The weights as shares `(K,)`.

    Raises:
        ValueError: unless they are finite, at least 0, and one is above 0.
    """
    shares: Matrix = np.asarray(weights, dtype=np.float64)  # (K,)
    if shares.ndim != 1 or not (np.isfinite(shares).all() and (shares >= 0).all() and shares.any()):
        raise ValueError(f"the weights are {weights}; they must be finite, at least 0, and not all 0")
    scaled: Matrix = shares / shares.max()  # (K,); no sum of large weights overflows
    scaled /= scaled.sum()
    return scaled


def multi_krum(gram: Matrix, byzantine: int, keep: int = 1) -> Matrix:
    """Equal shares for the `keep` updates that lie closest to their neighbours (Blanchard et al. 2017, section 4).

    An update's score is the sum of its n - f - 2 smallest squared distances to others; the lowest scores are kept, on a
    tie the earlier update. `keep = 1` is Krum.

    Args:
        gram: `(n, n)` inner products of the updates.
        byzantine: f, how many of them may be arbitrary.
        keep: m, how many are averaged, from 1 to n - f: among more there is surely one of the f.

    Returns:
        Coefficients `(n,)`.

    Raises:
        ValueError: if n < 2 f + 3, for which the paper promises nothing, or `keep` is out of range.
    """
    count = len(gram)
    if byzantine < 0 or count < 2 * byzantine + 3:
        raise ValueError(
            f"Krum with byzantine={byzantine} needs byzantine >= 0 and at least 2 * {byzantine} + 3 = "
            f"{2 * byzantine + 3} updates and got {count}; allow fewer Byzantine devices or take a larger cohort"
        )
    if not 1 <= keep <= count - byzantine:
        raise ValueError(
            f"keep={keep}; of {count} updates with {byzantine} Byzantine, 1 to {count - byzantine} are kept"
        )
    distances = squared_distances(gram)  # (n, n)
    np.fill_diagonal(distances, np.inf)
    scores = np.sort(distances, axis=1)[:, : count - byzantine - 2].sum(axis=1)  # (n,)
    shares = np.zeros(count)  # (n,)
    shares[np.argsort(scores, kind="stable")[:keep]] = 1 / keep
    return shares


def geometric_median(
    gram: Matrix, weights: Sequence[float] | Matrix, *, iterations: int = 100, smoothing: float = 1e-6
) -> Matrix:
    """The point with the least weighted sum of distances to the updates (RFA: Pillutla et al. 2022, arXiv 1912.13445).

    The smoothed Weiszfeld algorithm (algorithm 2) from the weighted mean: weights are divided by the distance to the
    point of before, which is itself a combination of the updates, so that the Gram matrix says how far it lies:
    `|v - x_i|^2 = (D c)_i - c^T D c / 2` with D the squared distances. It stops early once no coefficient moves by
    1e-12.

    Args:
        gram: `(K, K)` inner products of the updates.
        weights: of the devices `(K,)`, at least 0.
        iterations: at most so many; a single outlier fades about K-fold in each.
        smoothing: distances below this count as this; in the unit of the updates' norm.

    Returns:
        Coefficients `(K,)`.

    Raises:
        ValueError: for unusable weights, fewer than one iteration, or a smoothing that is not above 0.
    """
    if iterations < 1 or not smoothing > 0:
        raise ValueError(f"iterations={iterations} must be at least 1 and smoothing={smoothing} above 0")
    shares = mean(weights)  # (K,)
    if len(shares) != len(gram):
        raise ValueError(f"there are {len(shares)} weights for {len(gram)} updates; one each is needed")
    apart = squared_distances(gram)  # (K, K)
    found = shares  # (K,)
    for _ in range(iterations):
        to_all = apart @ found  # (K,)
        distance = np.sqrt(np.maximum(to_all - found @ to_all / 2, 0.0))  # (K,)
        before, found = found, mean(shares / np.maximum(distance, smoothing))
        if np.abs(found - before).max() <= 1e-12:
            break
    return found


def trimmed_mean(values: NDArray[Any], share: float) -> Matrix:
    """The mean of each coordinate without its largest and smallest values (Yin et al. 2018, arXiv 1803.01498, def. 2).

    Args:
        values: `(K, ...)`, one device a row.
        share: of the devices, left out at each end, rounded down; at least 0 and below 0.5.

    Returns:
        `(...)`, the same bits in whatever order the devices come.

    Raises:
        ValueError: for a share out of range.
    """
    if not 0 <= share < 0.5:
        raise ValueError(f"share={share}; of each end at least 0 and less than 0.5 of the devices can be trimmed")
    count = len(values)
    cut = int(share * count + 1e-9)  # 0.29 of 100 devices are 29, not 28.999999999999996
    kept = np.sort(np.asarray(values, dtype=np.float64), axis=0)[cut : count - cut]  # (K - 2 cut, ...)
    middle: Matrix = kept.mean(axis=0)  # (...)
    return middle


def median(values: NDArray[Any]) -> Matrix:
    """The median of each coordinate (Yin et al. 2018, definition 1), of two middle values their mean.

    Args:
        values: `(K, ...)`, one device a row.

    Returns:
        `(...)`.
    """
    middle: Matrix = np.median(np.asarray(values, dtype=np.float64), axis=0)  # (...)
    return middle
