"""The frame of a factored product: of all equal products, the one whose factors lie nearest to the old ones.

`B A = (B R) (R^T A)` for every orthogonal R, so a fresh singular value decomposition may turn all directions although
the product has hardly moved, and whatever is kept per factor (moments of an optimizer, a mean of factors) loses its
meaning. The nearest frame is the orthogonal Procrustes problem (Schönemann 1966; Golub and Van Loan, Matrix
Computations, 6.4.1).
"""

import numpy as np

from flsim.aggregation.pairs import Pair


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
