"""What a cohort's updates say about the aggregation: the bias of averaging factors, agreement, sizes, effective count.

The mean of products differs from the product of means by a covariance, summed over devices with shares w_k:

    sum_k w_k B_k A_k  -  (sum_k w_k B_k) (sum_k w_k A_k)  =  sum_k w_k (B_k - B) (A_k - A)

The right side is a product of concatenated factors again, and free of cancellation: it is found to about 1e-14 of
itself, and is exactly 0 if all devices are equal.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flsim.aggregation.grams import energy, energy_operations, layer_gram
from flsim.aggregation.pairs import Matrix, Pair, Pairs, check_layers, layer_difference, padded, weighted_sum
from flsim.aggregation.reducers import mean

_ROUNDING = 64 * np.finfo(np.float64).eps


@dataclass(frozen=True, eq=False)
class Health:
    """The read-outs of one aggregation."""

    bias: float
    """Error of averaging factors instead of products, relative to the mean product in Frobenius norm, over all layers;
    0 if the devices are equal or nothing has moved, inf if the products cancel while their factors do not."""
    cosine: float | None
    """Mean cosine of the angle between two devices' moves, in product space; None if fewer than two devices moved."""
    norms: Matrix
    """Frobenius norm of each device's move in product space `(K,)`; 0 if it cannot be told from rounding."""
    with_mean: Matrix
    """Cosine of the angle between each device's move and the weighted mean move, in product space `(K,)`; nan for a
    device that did not move, and for all where the moves cancel."""
    effective_devices: float
    """`(sum w)^2 / sum w^2`: how many equally weighted devices would average out as much noise."""


def health(
    updates: Sequence[Pairs], weights: Sequence[float] | Matrix, *, start: Sequence[Pairs] | None = None
) -> Health:
    """Measure a cohort, layer by layer.

    A norm is exact to about 1e-14 of the first-order size of the move, `sum |b' - b| |a'| + |b| |a' - a|`. Moves below
    1e-7 of that (a device that only turned its frame) count as none. It costs about one `gram`; with `start`, four.

    Args:
        updates: every device's whole adapter as pairs; with unequal ranks the bias is that of zero padding.
        weights: of the devices `(K,)`, at least 0.
        start: the adapter that each device began with, of which the move is the difference; None: at a product of zero.

    Raises:
        ValueError: for unusable weights, or updates that differ in number, layers or shapes.
    """
    shares = mean(weights)  # (K,)
    begun = [None] * len(updates) if start is None else start
    if not len(shares) == len(updates) == len(begun):
        raise ValueError(f"{len(updates)} updates, {len(shares)} weights and {len(begun)} starts; one each is needed")
    check_layers([*updates, *(start or [])])
    inner, size = np.zeros((len(shares), len(shares))), np.zeros(len(shares))  # (K, K), (K,)
    error = whole = 0.0
    distinct = {id(old): old for old in begun if old is not None}  # mostly one
    for layer in updates[0]:
        pairs, first = [update[layer] for update in updates], {key: old[layer] for key, old in distinct.items()}
        moves = [
            new if old is None else layer_difference(new, first[id(old)]) for new, old in zip(pairs, begun, strict=True)
        ]
        inner += layer_gram(moves)
        size += np.array([_size(move) for move in moves])
        error += energy(_covariance(pairs, shares))
        whole += energy(weighted_sum(list(zip(shares.tolist(), pairs, strict=True))))
    norms = np.sqrt(np.maximum(np.diag(inner), 0.0))  # (K,)
    norms[norms**2 <= _ROUNDING * size] = 0.0
    effective = float(1 / (shares @ shares))
    return Health(_ratio(error, whole), _cosine(inner, norms), norms, _with_mean(inner, norms, shares), effective)


def operations(adapter: Pairs, devices: int) -> float:
    """About how many multiplications `health` with `start` takes for so many devices with adapters like this one.

    Per layer (m, n) of rank r: half a Gram of K moves in 2 r directions each, `2 (K r)^2 (m + n)`, and the energies of
    two sums of rank K r.
    """
    needed = 0.0
    for layer in adapter.values():
        (m, n), width = layer.shape, devices * layer.rank
        needed += 2.0 * width**2 * (m + n) + energy_operations(m, n, width)  # two energies, half of it multiplications
    return needed


def _ratio(error: float, whole: float) -> float:
    if not error:
        return 0.0
    return math.sqrt(error / whole) if whole else math.inf


def _covariance(pairs: Sequence[Pair], shares: Matrix) -> Pair:
    """`sum_k w_k (B_k - B) (A_k - A)` as one pair."""
    rank = max(pair.rank for pair in pairs)
    filled = [padded(pair, rank) for pair in pairs]
    b = _centred(np.stack([pair.b for pair in filled]), shares)  # (K, m, r)
    a = _centred(np.stack([pair.a for pair in filled]), shares)  # (K, r, n)
    b *= shares[:, None, None]
    return Pair(np.concatenate(list(b), axis=1), a.reshape(-1, a.shape[2]))  # (m, K r), (K r, n)


def _centred(values: Matrix, shares: Matrix) -> Matrix:
    """Values `(K, ...)` less their mean; taken from the first device, so that equal ones leave exactly zero."""
    apart: Matrix = values - values[0]  # (K, ...)
    apart -= np.tensordot(shares, apart, axes=1)  # (...)
    return apart


def _cosine(inner: Matrix, norms: Matrix) -> float | None:
    moved = norms > 0  # (K,)
    count = int(moved.sum())
    if count < 2:
        return None
    unit = inner[np.ix_(moved, moved)] / np.outer(norms[moved], norms[moved])  # (moved, moved)
    return float((unit.sum() - np.trace(unit)) / (count * (count - 1)))


def _with_mean(inner: Matrix, norms: Matrix, shares: Matrix) -> Matrix:
    along = inner @ shares  # (K,)
    length = math.sqrt(max(float(shares @ along), 0.0))
    whole = float(shares @ norms)  # what the mean's length would be if all moved alike
    told = (norms > 0) & (length > _ROUNDING * whole)  # (K,)
    found = np.full(len(norms), np.nan)  # (K,)
    found[told] = np.clip(along[told] / (norms[told] * length), -1.0, 1.0)
    return found


def _size(move: Pair) -> float:
    """The square of `sum |b| |a|` over directions: what rounding is relative to."""
    return float((np.linalg.norm(move.b, axis=0) @ np.linalg.norm(move.a, axis=1)) ** 2)  # of (R,) and (R,)
