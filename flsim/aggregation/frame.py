"""The factors of a low-rank product for a device to go on with: as near as can be to those it had before.

A product does not say how large its factors are, nor which way they point. A fresh singular value decomposition would
turn them, make A and B equally large although training began with B = 0, and leave directions that the product lacks
with A = B = 0, where no gradient ever wakes them. So the factors get the old ratio of norms, lacking directions get B =
0 and what the old A has there, and all are turned towards the old ones.
"""

import numpy as np

from flsim.aggregation.low_rank import LowRank
from flsim.aggregation.pairs import Matrix, Pair

# The frame of a factored product is the one, of all equal products, whose factors lie nearest to the old ones. Since
# `B A = (B R) (R^T A)` for every orthogonal R, a fresh singular value decomposition may turn all directions although
# the product has hardly moved, and whatever is kept per factor (an optimizer's moments, a mean of factors) loses its
# meaning. The nearest frame is the orthogonal Procrustes problem (Schönemann 1966; Golub and Van Loan, Matrix
# Computations, 6.4.1).


def aligned(pair: Pair, previous: Pair, *, scale: float = 1.0) -> Pair:
    """The same product in the frame nearest to that of `previous`.

    R is the polar factor of `B^T B_prev + A A_prev^T`: it minimises `|B R - B_prev|^2 + |R^T A - A_prev|^2` over
    orthogonal R, so up to rounding the distance never grows.

    Args:
        pair: `(m, r)` and `(r, n)`.
        previous: of the same shapes; pad the smaller rank first.
        scale: s of the adapter that the pair becomes; distances are those of its own factors, b / s and a.

    Raises:
        ValueError: if the shapes differ.
    """
    if (pair.shape, pair.rank) != (previous.shape, previous.rank):
        raise ValueError(
            f"the pair is {pair.shape} of rank {pair.rank}, the previous one {previous.shape} of rank {previous.rank}; "
            "they must agree (see `padded`)"
        )
    likeness = pair.b.T @ previous.b / scale**2 + pair.a @ previous.a.T  # (r, r)
    left, _, right = np.linalg.svd(likeness)
    turn = left @ right  # (r, r)
    return Pair(pair.b @ turn, turn.T @ pair.a)


_LACKING = 1e-12  # of the largest singular value


def framed(low: LowRank, old: Pair, *, scale: float) -> Pair:
    """A pair with the product of `low` in the frame of `old`.

    Args:
        low: of rank r.
        old: of rank r; its b has the scale folded in.
        scale: s = alpha / r of both adapters.
    """
    present = low.s > _LACKING * max(float(low.s[0]), np.finfo(np.float64).tiny)  # (r,)
    root = np.where(present, np.sqrt(low.s / scale), 0.0)  # (r,)
    a = root[:, None] * low.v  # (r, n)
    tilt = _norm(old.a) / _norm(a) if present.any() and _norm(old.a) > 0 else 1.0
    b = low.u * (scale * root / tilt)  # (m, r)
    a = np.where(present[:, None], tilt * a, 0.0)  # (r, n)
    if not present.all():
        a[~present] = _left_over(old.a, low.v[present], int((~present).sum()))
    return aligned(Pair(b, a), old, scale=scale)


def _left_over(old: Matrix, used: Matrix, count: int) -> Matrix:
    """The strongest directions `(count, n)` of the old A `(r, n)` outside the row space `used` (p, n)."""
    outside = old - (old @ used.T) @ used  # (r, n)
    _, s, v = np.linalg.svd(outside, full_matrices=False)
    left: Matrix = np.zeros((count, old.shape[1]))  # (count, n); a layer narrower than the rank has fewer directions
    left[: len(s)] = s[:count, None] * v[:count]
    return left


def _norm(matrix: Matrix) -> float:
    return float(np.linalg.norm(matrix))
