"""Subspace iteration: the leading triplets of a sum of products that is never formed, nor its factors put side by side.

All that is asked of `W = sum_k w_k B_k A_k` is what it does to a few columns at a time, `W x` and `W^T y`, device by
device (Halko, Martinsson and Tropp 2011, arXiv 0909.4061, algorithm 4.4). A pass goes from a basis on one side to its
image on the other; the image's singular values are those of W within the basis, and what they lack shrinks from pass
to pass by `(sigma_{l+1} / sigma_r)^2` or more. So after each it is known what all others could bring: most are spared.

What lies beyond the block is not measured but estimated, from what W does to random columns x on which the block does
not depend: for standard normal x, `E |(W - P) x|^2 = |W - P|_F^2` whatever P is. The first pass takes them along.
"""

import math
from dataclasses import dataclass

import numpy as np

from flsim.aggregation.pairs import Matrix, Terms
from flsim.seeding import generator

OVERSAMPLING = 8
"""Columns of the block beyond the rank that is asked for."""
MOST_PASSES = 6
"""Three to and fro; a flat spectrum takes them all."""
PROBES = 8
"""Random columns that the rest is estimated from: to about `1 / (2 sqrt(d))` of itself if d directions share it."""
_NEGLIGIBLE = 1e-6
"""Of the energy that is cut: what all further passes together may still bring when the iteration ends."""
_ROUNDING = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class Block:
    """Triplets `(u * s) @ v` of a few directions more than asked for, and how much lies beyond them."""

    u: Matrix
    """`(m, l)`."""
    s: Matrix
    """`(l,)`, falling."""
    v: Matrix
    """`(l, n)`."""
    rest: float
    """`|W - (u * s) v|_F^2`, an unbiased estimate."""
    error: float
    """The standard error of `rest`, of the probes' scatter."""


def block_width(m: int, n: int, inner: int, rank: int) -> int:
    """L, how many directions are followed: `OVERSAMPLING` more than asked for, if there are as many."""
    return min(rank + OVERSAMPLING, inner, m, n)


def iterated(terms: Terms, rank: int, *, start: Matrix | None, seed: int) -> Block:
    """The block after as many passes as it takes.

    It ends when all that further passes can bring the first `rank` directions is below 1e-6 of what is cut, or after
    `MOST_PASSES`. Two passes are the least: the first says nothing of what it lacks.

    Args:
        terms: weights and pairs of equal shape.
        rank: r, how many directions shall be near to the best.
        start: `(any, n)`, of which the first r are directions on the right to begin with; the others of the block are
            random in any case, so that nothing new is overlooked. None is all at random.
        seed: of the random part of the block, and of the probes.
    """
    (m, n), inner = terms[0][1].shape, sum(pair.rank for _, pair in terms)
    basis = _first(None if start is None else start[:rank], n, block_width(m, n, inner, rank), seed)  # (n, l)
    width = basis.shape[1]
    probes = generator(seed, "probes").standard_normal((n, PROBES))  # (n, p)
    both = _forward(terms, np.concatenate([basis, probes], axis=1))  # (m, l + p)
    image, probed = both[:, :width], both[:, width:]  # (m, l), (m, p)
    forward, passes, kept = True, 1, 0.0
    while True:
        onward, core = np.linalg.qr(image)  # (m or n, l), (l, l)
        x, s, y = np.linalg.svd(core)
        missed = probed - (image @ (basis.T @ probes) if forward else basis @ (image.T @ probes))  # (m, p)
        rests = np.einsum("ij,ij->j", missed, missed)  # (p,)
        before, kept = kept, float(s[:rank] @ s[:rank])
        if passes == MOST_PASSES or (passes > 1 and _settled(s, rank, kept - before, float(rests.mean()))):
            break
        forward, passes, basis = not forward, passes + 1, onward
        image = (_forward if forward else _backward)(terms, basis)  # (m or n, l)
    there, here = onward @ x, basis @ y.T  # (m, l) and (n, l), or the other way round
    left, right = (there, here.T) if forward else (here, there.T)  # (m, l), (l, n)
    return Block(left, s, right, float(rests.mean()), float(rests.std(ddof=1)) / math.sqrt(PROBES))


def rounding(terms: Terms) -> float:
    """A singular value below this is the rounding of the sum in float64: `16 eps sum_k |w_k| sum_i |b_i| |a_i|`."""
    size = 0.0
    for weight, pair in terms:
        by_column = np.sqrt(np.einsum("ij,ij->j", pair.b, pair.b))  # (r,)
        by_row = np.sqrt(np.einsum("ij,ij->i", pair.a, pair.a))  # (r,)
        size += abs(weight) * float(by_column @ by_row)
    return 16 * _ROUNDING * size


def _first(start: Matrix | None, n: int, width: int, seed: int) -> Matrix:
    """An orthonormal block `(n, l)`: the start as far as it goes, and random columns."""
    block = generator(seed, "subspace").standard_normal((n, width))  # (n, l)
    if start is not None:
        known = start[start.any(axis=1)][:width].T  # (n, at most l); a missing direction leads nowhere
        block[:, : known.shape[1]] = known
    return np.linalg.qr(block)[0]


def _settled(s: Matrix, rank: int, gain: float, rest: float) -> bool:
    """Whether the passes to come are of no account, after one that gained the first `rank` directions so much."""
    within, energy = min(rank, s.size), float(s @ s)
    if gain <= 4 * _ROUNDING * energy:
        return True
    shrinks = float((s[-1] / s[within - 1]) ** 2) if s[within - 1] > 0 else 1.0
    if shrinks >= 1:
        return False
    cut = rest + float(s[within:] @ s[within:])
    return gain * shrinks / (1 - shrinks) <= _NEGLIGIBLE * cut


def _forward(terms: Terms, columns: Matrix) -> Matrix:
    """`W x` `(m, c)` of columns `(n, c)`."""
    image = np.zeros((terms[0][1].shape[0], columns.shape[1]))  # (m, c)
    for weight, pair in terms:
        image += pair.b @ (weight * (pair.a @ columns))
    return image


def _backward(terms: Terms, columns: Matrix) -> Matrix:
    """`W^T y` `(n, c)` of columns `(m, c)`."""
    image = np.zeros((terms[0][1].shape[1], columns.shape[1]))  # (n, c)
    for weight, pair in terms:
        image += pair.a.T @ (weight * (pair.b.T @ columns))
    return image
