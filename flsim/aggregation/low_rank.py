"""The best low-rank approximation of a factored product (Eckart and Young 1936), in whichever way costs least.

    dense         form W = b a, take the eigenvectors of its smaller Gram, and a Rayleigh-Ritz step for precision
    qr            QR of both factors and the singular value decomposition of the small core: W is never formed
    matrix_free   subspace iteration on W x = b (a x), device by device (`flsim/aggregation/subspace.py`)

The first two are exact. The third finds a subspace that is nearly the best: the energy that it leaves out exceeds the
least possible by at most about 1e-6 of itself for devices that share a direction of learning, and by about 1 % for
devices that have nothing in common, whose spectrum is flat. How much energy that is, it estimates, to a few percent.
"""

import math
from dataclasses import dataclass

import numpy as np

from flsim.aggregation.pairs import Matrix, Pair, Terms, weighted_sum
from flsim.aggregation.subspace import block_width, iterated, rounding

METHODS = ("auto", "dense", "qr", "matrix_free")

_SMALL = 256  # a product with a side of at most this is decomposed exactly: that takes milliseconds
_PASSES = 4  # of `matrix_free`, half of them each way: as many as it takes where devices agree, or a little more
_DEFICIENT = 1e-10  # squared ratio of singular values below which a Gram no longer resolves them
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
    """`|W|_F^2` of the product that was approximated; estimated by `matrix_free`."""
    cut: float
    """The part of `energy` that is left out, `|W - (u * s) v|_F^2`."""
    error: float = 0.0
    """The standard error of `energy` and of `cut`; 0 where they are exact."""


def truncated(
    product: Pair | Terms, rank: int, *, method: str = "auto", start: Matrix | None = None, seed: int = 0
) -> LowRank:
    """The rank-`rank` product nearest to `b @ a`, or to a weighted sum of such products, in Frobenius norm.

    Args:
        product: a pair of any rank R, or weights and factors of ranks that add up to R.
        rank: r, at least 1.
        method: `auto` takes the one with the fewest operations (see `cheapest`): up to sides of 256 an exact one.
        start: v `(any, n)` of an earlier approximation, from which `matrix_free` begins; None begins at random.
        seed: of what is random in `matrix_free`.

    Raises:
        ValueError: for a rank below 1, an unknown method, or a start of another width.
    """
    terms = [(1.0, product)] if isinstance(product, Pair) else [term for term in product if term[0]] or product[:1]
    (m, n), inner = terms[0][1].shape, sum(pair.rank for _, pair in terms)
    if rank < 1:
        raise ValueError(f"rank={rank}; an approximation has at least 1 direction")
    if method not in METHODS:
        raise ValueError(f"method={method!r} is unknown; choose one of {', '.join(METHODS)}")
    if start is not None and (start.ndim != 2 or start.shape[1] != n):
        raise ValueError(f"start has shape {start.shape}; expected (any, {n}), the v of an earlier approximation")
    chosen = cheapest(m, n, inner, rank) if method == "auto" else method
    if chosen == "matrix_free":
        block = iterated(terms, rank, start=start, seed=seed)
        whole = float(block.s @ block.s) + block.rest
        return _finished(block.rounding, (block.u, block.s, block.v), rank, whole, block.error)
    pair = product if isinstance(product, Pair) else weighted_sum(terms)
    triplets, whole = _dense(pair, rank) if chosen == "dense" else _qr(pair)
    return _finished(rounding(pair), triplets, rank, whole)


def balanced(low: LowRank, *, scale: float = 1.0) -> Pair:
    """`B = U sqrt(S)` and `A = sqrt(S) V` (FlexLoRA, Bai et al. 2024, arXiv 2402.11505): both factors equally large.

    Args:
        low: the triplets.
        scale: s of the adapter that the pair becomes; it is b / s and a that are equally large.
    """
    root = np.sqrt(low.s / scale)  # (r,)
    return Pair(low.u * (scale * root), root[:, None] * low.v)  # (m, r), (r, n)


def cheapest(m: int, n: int, inner: int, rank: int) -> str:
    """The method with the fewest operations, weighted by how slow they are against a large matrix product.

    With l = min(rank + 8, R, m, n), k = min(m, n), L = max(m, n):

        dense         2 m R n  +  k^2 L  +  8 k^3  +  6 m n r
        qr            3 * 4 (m + n) R^2  +  12 R^3                 (only where R < k)
        matrix_free   2.5 * 4 * 2 R (m + n) l                      (only where k > 256)

    Args:
        m: rows of the product.
        n: its columns.
        inner: R, the width of its factors.
        rank: r, to be kept.
    """
    needed = operations(m, n, inner, rank)
    return min(needed, key=needed.__getitem__)


def operations(m: int, n: int, inner: int, rank: int) -> dict[str, float]:
    """What every method takes, by its name, those that are out of the question infinitely much; see `cheapest`."""
    small, large = min(m, n), max(m, n)
    dense = 2.0 * m * inner * n + small**2 * large + _EIGH * small**3 + 6.0 * m * n * min(rank, small)
    qr = _QR * 4.0 * (m + n) * inner**2 + _SVD * inner**3 if inner < small else math.inf
    passes = _SKINNY * _PASSES * 2.0 * inner * (m + n) * block_width(m, n, inner, rank)
    return {"qr": qr, "dense": dense, "matrix_free": passes if small > _SMALL else math.inf}  # on a tie an exact one


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


def _finished(least: float, triplets: Triplets, rank: int, whole: float, error: float = 0.0) -> LowRank:
    """Cut to `rank`, or fill up with zeros; values up to `least` are rounding and become zero; signs are settled."""
    u, s, v = (part[..., :rank] if side < 2 else part[:rank] for side, part in enumerate(triplets))
    found = int(np.count_nonzero(s > least))
    u, s, v = u[:, :found], s[:found], v[:found]
    largest = np.argmax(np.abs(v), axis=1)  # (found,)
    sign = np.where(np.take_along_axis(v, largest[:, None], axis=1)[:, 0] < 0, -1.0, 1.0)  # (found,)
    left, missing = max(whole - float(s @ s), 0.0), (0, rank - found)
    u, v = u * sign, v * sign[:, None]
    if missing[1]:
        u, s, v = np.pad(u, ((0, 0), missing)), np.pad(s, missing), np.pad(v, (missing, (0, 0)))
    return LowRank(u, s, v, whole, left, error)
