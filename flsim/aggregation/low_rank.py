"""The best low-rank approximation of a factored product (Eckart and Young 1936), in whichever way costs least.

    dense         form W = b a, take the eigenvectors of its smaller Gram, and a Rayleigh-Ritz step for precision
    qr            QR of both factors and the singular value decomposition of the small core: W is never formed
    matrix_free   subspace iteration on W x = b (a x) with a random block (Halko, Martinsson and Tropp 2011, arXiv
                  0909.4061, algorithm 4.4): oversampling 8, two power passes, orthogonalised in between

The first two are exact. The third finds a subspace that is nearly the best: the norm of what it leaves out exceeded
the least possible by less than 1e-5 of itself for devices that share a direction of learning, and by about 1 % for
devices that have nothing in common, whose spectrum is flat. All of them are a few large matrix products on concatenated
factors, however many devices these came from.
"""

import math
from dataclasses import dataclass

import numpy as np

from flsim.aggregation.grams import energy, energy_operations
from flsim.aggregation.pairs import Matrix, Pair
from flsim.seeding import generator

METHODS = ("auto", "dense", "qr", "matrix_free")

_SMALL = 256  # a product with a side of at most this is decomposed exactly: that takes milliseconds
_OVERSAMPLING = 8
_POWER_PASSES = 2
_DEFICIENT = 1e-10  # squared ratio of singular values below which a Gram no longer resolves them
_ROUNDING = 16 * np.finfo(np.float64).eps
# what an operation costs against one of a large matrix product, measured on one core
_SKINNY, _QR, _EIGH, _SVD = 2.5, 3.0, 8.0, 12.0

Triplets = tuple[Matrix, Matrix, Matrix]  # u (m, r'), s (r',), v (r', n)


@dataclass(frozen=True, eq=False)
class LowRank:
    """`(u * s) @ v`: singular triplets, the largest value first; directions that the product lacks are zero.

    Of every direction the largest entry of v is positive, so that equal products give equal triplets.
    """

    u: Matrix
    """`(m, r)`."""
    s: Matrix
    """`(r,)`, falling."""
    v: Matrix
    """`(r, n)`."""
    energy: float
    """`|W|_F^2` of the product that was approximated; nan if it was not measured."""
    cut: float
    """The part of `energy` that is left out, `|W - (u * s) v|_F^2`; nan if it was not measured."""


def truncated(
    pair: Pair, rank: int, *, method: str = "auto", start: Matrix | None = None, seed: int = 0, measure: bool = True
) -> LowRank:
    """The rank-`rank` product nearest to `b @ a` in Frobenius norm.

    Args:
        pair: of any rank R.
        rank: r, at least 1.
        method: `auto` takes the one with the fewest operations (see `cheapest`).
        start: v `(any, n)` of an earlier approximation, from which `matrix_free` begins; None begins at random.
        seed: of the random block of `matrix_free`.
        measure: find `energy` and `cut`. For R beyond m or n this costs several times `matrix_free` itself; the other
            two have it for nothing.

    Raises:
        ValueError: for a rank below 1, an unknown method, or a start of another width.
    """
    m, n = pair.shape
    if rank < 1:
        raise ValueError(f"rank={rank}; an approximation has at least 1 direction")
    if method not in METHODS:
        raise ValueError(f"method={method!r} is unknown; choose one of {', '.join(METHODS)}")
    if start is not None and (start.ndim != 2 or start.shape[1] != n):
        raise ValueError(f"start has shape {start.shape}; expected (any, {n}), the v of an earlier approximation")
    chosen = cheapest(m, n, pair.rank, rank, measure=measure) if method == "auto" else method
    if chosen == "matrix_free":
        whole = energy(pair) if measure else math.nan
        return _finished(pair, _matrix_free(pair, rank, start, seed), rank, whole)
    triplets, whole = _dense(pair, rank) if chosen == "dense" else _qr(pair)
    return _finished(pair, triplets, rank, whole if measure else math.nan)


def balanced(low: LowRank, *, scale: float = 1.0) -> Pair:
    """`B = U sqrt(S)` and `A = sqrt(S) V` (FlexLoRA, Bai et al. 2024, arXiv 2402.11505): both factors equally large.

    Args:
        low: the triplets.
        scale: s of the adapter that the pair becomes; it is b / s and a that are equally large.
    """
    root = np.sqrt(low.s / scale)  # (r,)
    return Pair(low.u * (scale * root), root[:, None] * low.v)  # (m, r), (r, n)


def cheapest(m: int, n: int, inner: int, rank: int, *, measure: bool = True) -> str:
    """The method with the fewest operations, weighted by how slow they are against a large matrix product.

    With l = min(rank + 8, R, m, n), k = min(m, n), L = max(m, n):

        dense         2 m R n  +  k^2 L  +  8 k^3  +  6 m n r
        qr            3 * 4 (m + n) R^2  +  12 R^3                 (only where R < k)
        matrix_free   2.5 * 12 R (m + n) l  +  what `energy` takes (only where k > 256)

    Args:
        m: rows of the product.
        n: its columns.
        inner: R, the width of its factors.
        rank: r, to be kept.
        measure: whether the energy is asked for.
    """
    small, large = min(m, n), max(m, n)
    block = min(rank + _OVERSAMPLING, inner, small)
    dense = 2.0 * m * inner * n + small**2 * large + _EIGH * small**3 + 6.0 * m * n * min(rank, small)
    qr = _QR * 4.0 * (m + n) * inner**2 + _SVD * inner**3 if inner < small else math.inf
    free = _SKINNY * 12.0 * inner * (m + n) * block if small > _SMALL else math.inf
    free += energy_operations(m, n, inner) if measure else 0.0
    operations = {"qr": qr, "dense": dense, "matrix_free": free}  # on a tie an exact one
    return min(operations, key=operations.__getitem__)


def _dense(pair: Pair, rank: int) -> tuple[Triplets, float]:
    product = pair.product()  # (m, n)
    whole = float(np.vdot(product, product))
    if product.shape[0] >= product.shape[1]:
        return _leading(product, rank), whole
    v, s, u = _leading(product.T, rank)
    return (u.T, s, v.T), whole


def _leading(tall: Matrix, rank: int) -> Triplets:
    """The first triplets of a tall dense matrix.

    A Gram resolves singular values only down to 1e-8 of the largest; where the kept ones come near that, the matrix
    itself is decomposed. Otherwise the eigenvectors' span holds the energy to the last bits, and decomposing the matrix
    within it gives orthonormal directions and values that are as exact as the matrix.
    """
    values, vectors = np.linalg.eigh(tall.T @ tall)  # (k,) rising, (k, k)
    keep = min(rank, values.size)
    if values[-keep] <= _DEFICIENT * values[-1]:
        u, s, v = np.linalg.svd(tall, full_matrices=False)
        return u[:, :keep], s[:keep], v[:keep]
    span = vectors[:, -keep:]  # (k, r)
    q, core = np.linalg.qr(tall @ span)  # (L, r), (r, r)
    x, s, y = np.linalg.svd(core)
    return q @ x, s, y @ span.T


def _qr(pair: Pair) -> tuple[Triplets, float]:
    left, left_core = np.linalg.qr(pair.b)  # (m, p), (p, R)
    right, right_core = np.linalg.qr(pair.a.T)  # (n, q), (q, R)
    x, s, y = np.linalg.svd(left_core @ right_core.T, full_matrices=False)
    return (left @ x, s, y @ right.T), float(s @ s)


def _matrix_free(pair: Pair, rank: int, start: Matrix | None, seed: int) -> Triplets:
    b, a = pair.b, pair.a
    block = min(rank + _OVERSAMPLING, pair.rank, *pair.shape)
    probe = generator(seed, "subspace").standard_normal((a.shape[1], block))  # (n, l)
    if start is not None:
        known = start[start.any(axis=1)][:block].T  # (n, at most l); a missing direction leads nowhere
        probe[:, : known.shape[1]] = known
    q = _orthonormal(b @ (a @ probe))  # (m, l)
    for _ in range(_POWER_PASSES):
        z = _orthonormal(a.T @ (b.T @ q))  # (n, l)
        q = _orthonormal(b @ (a @ z))  # (m, l)
    x, s, v = np.linalg.svd((q.T @ b) @ a, full_matrices=False)  # of (l, n)
    return q @ x, s, v


def _orthonormal(columns: Matrix) -> Matrix:
    return np.linalg.qr(columns)[0]


def _finished(pair: Pair, triplets: Triplets, rank: int, whole: float) -> LowRank:
    """Cut to `rank`, or fill up with zeros; directions that are only rounding become zero; signs are settled."""
    u, s, v = (part[..., :rank] if side < 2 else part[:rank] for side, part in enumerate(triplets))
    found = int(np.count_nonzero(s > _rounding(pair)))
    u, s, v = u[:, :found], s[:found], v[:found]
    largest = np.argmax(np.abs(v), axis=1)  # (found,)
    sign = np.where(np.take_along_axis(v, largest[:, None], axis=1)[:, 0] < 0, -1.0, 1.0)  # (found,)
    missing = (0, rank - found)
    return LowRank(
        np.pad(u * sign, ((0, 0), missing)),
        np.pad(s, missing),
        np.pad(v * sign[:, None], (missing, (0, 0))),
        whole,
        float(np.maximum(whole - s @ s, 0.0)),  # nan stays nan
    )


def _rounding(pair: Pair) -> float:
    """A singular value below this is the rounding of a product in float64: `16 eps sum_i |b_i| |a_i|`."""
    by_column = np.sqrt(np.einsum("ij,ij->j", pair.b, pair.b))  # (R,)
    by_row = np.sqrt(np.einsum("ij,ij->i", pair.a, pair.a))  # (R,)
    return float(_ROUNDING * (by_column @ by_row))
