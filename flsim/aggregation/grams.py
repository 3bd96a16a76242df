"""Inner products of devices' updates without dense matrices: all norms, distances and angles follow from them.

    <B_i A_i, B_j A_j>_F  =  tr(A_i^T B_i^T B_j A_j)  =  sum((B_i^T B_j) * (A_i A_j^T))

They belong to the products, so they do not depend on the frame or the rank that a device's factors have. In float64 an
entry is exact to about 1e-15 times S_i S_j, where S is the sum of `|b| |a|` over a device's directions: of two updates
that differ by less than 1e-7 of their size the distance is rounding.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flsim.aggregation.pairs import Matrix, Pair, Pairs, check_layers, weighted_sum

_COLUMNS = 2048  # directions of several devices multiplied at once: two blocks of 32 MB
_ELEMENTS = 2**20  # of a dense block that is looked at and forgotten: 8 MB


def gram(updates: Sequence[Pairs]) -> Matrix:
    """The Gram matrix of K devices in product space, summed over layers.

    Args:
        updates: one per device; ranks may differ.

    Returns:
        `(K, K)`, symmetric; the diagonal holds the squared Frobenius norms.

    Raises:
        ValueError: if there are no updates, or they differ in layers.
    """
    check_layers(updates)
    inner = np.zeros((len(updates), len(updates)))  # (K, K)
    for layer in updates[0]:
        inner += layer_gram([update[layer] for update in updates])
    return inner


def layer_gram(pairs: Sequence[Pair]) -> Matrix:
    """The same for one layer.

    The directions of many devices are multiplied at once and the blocks of every two devices summed up; beyond 2048
    directions in parts, so that memory stays bounded by two concatenated parts.
    """
    inner = np.zeros((len(pairs), len(pairs)))  # (K, K)
    for left, right in itertools.combinations_with_replacement(list(_parts(pairs)), 2):
        inner[left, right] = _block(pairs[left], pairs[right], same=left == right)
    upper = np.triu(inner)  # (K, K)
    return upper + np.triu(upper, 1).T


def vector_gram(updates: Sequence[Mapping[str, NDArray[Any]]]) -> Matrix:
    """The Gram matrix `(K, K)` of K devices' tensors as they are: factor space, if they are adapters or their deltas.

    Args:
        updates: tensors by name, of equal names and shapes.

    Raises:
        ValueError: if there are no updates, or they differ in names or shapes.
    """
    if not updates:
        raise ValueError("there are no updates; at least one is needed")
    shapes = [{name: tensor.shape for name, tensor in update.items()} for update in updates]
    if odd := [index for index, shape in enumerate(shapes) if shape != shapes[0]]:
        raise ValueError(f"the tensors of update {odd[0]} differ in name or shape from those of update 0")
    inner = np.zeros((len(updates), len(updates)))  # (K, K)
    for name in updates[0]:
        flat = [update[name].ravel() for update in updates]
        step = max(1, _ELEMENTS // len(flat))
        for start in range(0, flat[0].size, step):
            rows = np.stack([values[start : start + step] for values in flat], dtype=np.float64)  # (K, step)
            inner += rows @ rows.T  # (K, K)
    return inner


def squared_distances(gram: Matrix) -> Matrix:
    """`|x_i - x_j|^2` for every two devices `(K, K)`, never negative, exactly 0 on the diagonal.

    All devices may share an offset: distances of adapters are those of their deltas from a common start.
    """
    norms = np.diag(gram)  # (K,)
    distances = np.maximum(norms[:, None] + norms[None] - 2 * gram, 0.0)  # (K, K)
    np.fill_diagonal(distances, 0.0)
    return distances


def energy(pair: Pair) -> float:
    """`|b a|_F^2`, from the Grams of the factors or from the product's rows, whichever takes fewer operations."""
    m, n = pair.shape
    if pair.rank * (m + n) < 2 * m * n:
        return max(0.0, float(np.vdot(pair.b.T @ pair.b, pair.a @ pair.a.T)))
    step = max(1, _ELEMENTS // n)
    blocks = (pair.b[start : start + step] @ pair.a for start in range(0, m, step))  # (step, n) each
    return float(sum(np.vdot(block, block) for block in blocks))


def energy_operations(m: int, n: int, rank: int) -> float:
    """Multiplications and additions that `energy` takes; a Gram is symmetric, so half of it is enough."""
    return float(min(rank**2 * (m + n), 2 * m * rank * n))


def _parts(pairs: Sequence[Pair]) -> Iterator[slice]:
    """Consecutive devices that have `_COLUMNS` directions together, or one device."""
    start, columns = 0, 0
    for index, pair in enumerate(pairs):
        if columns and columns + pair.rank > _COLUMNS:
            yield slice(start, index)
            start, columns = index, 0
        columns += pair.rank
    yield slice(start, len(pairs))


def _block(left: Sequence[Pair], right: Sequence[Pair], *, same: bool) -> Matrix:
    """Inner products of every one of `left` with every one of `right` `(L, R)`."""
    one = weighted_sum([(1.0, pair) for pair in left])
    two = one if same else weighted_sum([(1.0, pair) for pair in right])
    inner = one.b.T @ two.b  # (sum r_left, sum r_right); NumPy computes half of it if both are the same
    inner *= one.a @ two.a.T
    by_left = np.add.reduceat(inner, _starts(left), axis=0)  # (L, sum r_right)
    by_both: Matrix = np.add.reduceat(by_left, _starts(right), axis=1)  # (L, R)
    return by_both


def _starts(pairs: Sequence[Pair]) -> NDArray[np.intp]:
    """Where each pair's directions begin."""
    return np.cumsum([0, *(pair.rank for pair in pairs[:-1])], dtype=np.intp)
