"""Subspace iteration: the leading triplets of a sum of products that is never formed, nor its factors put side by side.

All that is asked of `W = sum_k w_k B_k A_k` is what it does to a few columns at a time, `W x` and `W^T y`, device by
device (Halko, Martinsson and Tropp 2011, arXiv 0909.4061, algorithm 4.4). A pass goes from a basis on one side to its
image on the other; the image's singular values are those of W within the basis, and what they lack shrinks from pass
to pass by `(sigma_{l+1} / sigma_r)^2` or more. So after each it is known what all others could bring: most are spared.

What lies beyond the block is not measured but estimated, from what W does to random columns x on which the block does
not depend: for x of length sqrt(n) in any direction, `E |(W - P) x|^2 = |W - P|_F^2`, whatever P is. The first pass
takes them along. They have one length, since all layers share them, and would share the error of a wrong one.

Where factors come in float32, passes before the last read them as they are, in half the time: they only have to find
the subspace, and the last one, in float64, what W does in it. Where float32 could blur what is cut, all is float64.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flsim.aggregation.pairs import Factors, Matrix, Pair, Terms
from flsim.seeding import generator

OVERSAMPLING = 8
"""Columns of the block beyond the rank that is asked for."""
MOST_PASSES = 6
"""Three to and fro; a flat spectrum takes them all."""
PROBES = 8
"""Random columns that the rest is estimated from: to about `1 / (2 sqrt(d))` of itself if d directions share it."""
_NEGLIGIBLE = 1e-6
"""Of the energy that is cut: what all further passes together may still bring when the iteration ends."""
_CLEAR = 1e-4
"""Of the energy beyond the block: float32's rounding, at most so much of it, is of no account."""
_EPS, _EPS_32 = float(np.finfo(np.float64).eps), float(np.finfo(np.float32).eps)

Floats = type[np.float32] | type[np.float64]


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
    rounding: float
    """Values up to this are rounding: the sum of what they are of the terms."""


def block_width(m: int, n: int, inner: int, rank: int) -> int:
    """L, how many directions are followed: `OVERSAMPLING` more than asked for, if there are as many."""
    return min(rank + OVERSAMPLING, inner, m, n)


def iterated(terms: Terms, rank: int, *, start: Matrix | None, seed: int) -> Block:
    """The block after as many passes as it takes.

    It ends when all that further passes can bring the first `rank` directions is below 1e-6 of what is cut, or after
    `MOST_PASSES`. Two passes are the least: the first says nothing of what it lacks.

    Args:
        terms: weights and factors of equal shape; those in float32 are made wider one at a time.
        rank: r, how many directions shall be near to the best.
        start: `(any, n)`, of which the first r are directions on the right to begin with; the others of the block are
            random in any case, so that nothing new is overlooked. None is all at random.
        seed: of the random part of the block, and of the probes.
    """
    narrow = all(isinstance(factors, Factors) for _, factors in terms)
    found = _passes(terms, rank, start, seed, np.float32) if narrow else None
    found = found or _passes(terms, rank, start, seed, np.float64)
    assert found is not None  # float64 has the digits that are asked for
    return found


def _passes(terms: Terms, rank: int, start: Matrix | None, seed: int, dtype: Floats) -> Block | None:
    """The same, in this type and last in float64; None if that has too few digits."""
    (m, n), inner = terms[0][1].shape, sum(factors.rank for _, factors in terms)
    least = sum(abs(weight) * rounding(factors) for weight, factors in terms)
    blur = 0.0 if dtype == np.float64 else (least / (16 * _EPS) * _EPS_32) ** 2
    basis = _first(None if start is None else start[:rank], n, block_width(m, n, inner, rank), seed)  # (n, l)
    probes = generator(seed, "probes").standard_normal((n, PROBES))  # (n, p)
    probes *= math.sqrt(n) / np.linalg.norm(probes, axis=0)
    both = _forward(terms, np.concatenate([basis, probes], axis=1), dtype)  # (m, l + p)
    image, probed = both[:, :-PROBES], both[:, -PROBES:]  # (m, l), (m, p)
    forward, passes, kept = True, 1, 0.0
    while True:
        onward, core = np.linalg.qr(image)  # (m or n, l), (l, l)
        x, s, y = np.linalg.svd(core)
        missed = probed - (image @ (basis.T @ probes) if forward else basis @ (image.T @ probes))  # (m, p)
        rests = np.einsum("ij,ij->j", missed, missed)  # (p,)
        rest, before, kept = float(rests.mean()), kept, float(s[:rank] @ s[:rank])
        if blur > _CLEAR * rest:
            return None
        left, shrinks = _outlook(s, rank, kept - before if passes > 1 else math.inf, rest)
        if dtype == np.float64 and (left <= _NEGLIGIBLE or passes == MOST_PASSES):
            break
        if left * shrinks <= _NEGLIGIBLE or passes + 1 == MOST_PASSES:
            dtype = np.float64
        forward, passes, basis = not forward, passes + 1, onward
        image = (_forward if forward else _backward)(terms, basis, dtype)  # (m or n, l)
    there, here = onward @ x, basis @ y.T  # (m, l) and (n, l), or the other way round
    left_ones, right_ones = (there, here.T) if forward else (here, there.T)  # (m, l), (l, n)
    return Block(left_ones, s, right_ones, rest, float(rests.std(ddof=1)) / math.sqrt(PROBES), least)


def rounding(factors: Pair | Factors) -> float:
    """A singular value below this is the rounding of a product in float64: `16 eps sum_i |b_i| |a_i|`."""
    by_column = np.sqrt(np.einsum("ij,ij->j", factors.b, factors.b))  # (R,)
    by_row = np.sqrt(np.einsum("ij,ij->i", factors.a, factors.a))  # (R,)
    size = float(by_column @ by_row)
    return 16 * _EPS * (size if isinstance(factors, Pair) else factors.scale * size)


def _first(start: Matrix | None, n: int, width: int, seed: int) -> Matrix:
    """An orthonormal block `(n, l)`: the start as far as it goes, and random columns."""
    block = generator(seed, "subspace").standard_normal((n, width))  # (n, l)
    if start is not None:
        known = start[start.any(axis=1)][:width].T  # (n, at most l); a missing direction leads nowhere
        block[:, : known.shape[1]] = known
    return np.linalg.qr(block)[0]


def _outlook(s: Matrix, rank: int, gain: float, rest: float) -> tuple[float, float]:
    """What all passes to come may still bring the first `rank` directions, and by how much each shrinks that.

    Args:
        s: the block's values `(l,)` after a pass.
        rank: r.
        gain: in energy, of these directions by this pass; inf if nobody knows.
        rest: energy beyond the block.

    Returns:
        The first as a share of the energy that is cut; both inf, or 1, where nothing can be said.
    """
    within, energy = min(rank, s.size), float(s @ s)
    if abs(gain) <= 4 * _EPS * energy:
        return 0.0, 1.0
    shrinks = float((s[-1] / s[within - 1]) ** 2) if s[within - 1] > 0 else 1.0
    cut = rest + float(s[within:] @ s[within:])
    if math.isinf(gain) or shrinks >= 1 or cut == 0:
        return math.inf, 1.0
    return abs(gain) * shrinks / (1 - shrinks) / cut, shrinks


def _in(dtype: Floats, terms: Terms) -> Iterator[tuple[float, NDArray[Any], NDArray[Any]]]:
    """Weight, b and a of one term after the other; in float64 memory holds no more than one of them at a time."""
    for weight, factors in terms:
        scale = 1.0 if isinstance(factors, Pair) else factors.scale
        yield weight * scale, factors.b.astype(dtype, copy=False), factors.a.astype(dtype, copy=False)


def _forward(terms: Terms, columns: Matrix, dtype: Floats) -> Matrix:
    """`W x` `(m, c)` of columns `(n, c)`, each term's part in this type and their sum in float64."""
    image, columns = np.zeros((terms[0][1].shape[0], columns.shape[1])), columns.astype(dtype)  # (m, c), (n, c)
    for weight, b, a in _in(dtype, terms):
        image += b @ (weight * (a @ columns))
    return image


def _backward(terms: Terms, columns: Matrix, dtype: Floats) -> Matrix:
    """`W^T y` `(n, c)` of columns `(m, c)`, likewise."""
    image, columns = np.zeros((terms[0][1].shape[1], columns.shape[1])), columns.astype(dtype)  # (n, c), (m, c)
    for weight, b, a in _in(dtype, terms):
        image += a.T @ (weight * (b.T @ columns))
    return image
