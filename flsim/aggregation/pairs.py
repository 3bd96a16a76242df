"""A device's adapter as what it adds to each layer, `s B A`, and sums and differences of such products, kept factored.

Devices may differ in rank and alpha, so `s = alpha / r` is folded into B before anything is added, and the receiver's
own s is divided out at the end. A weighted sum of products is the product of concatenated factors,

    sum_k w_k B_k A_k  =  [w_1 B_1 ... w_K B_K] [A_1; ...; A_K]

(the stacking of FLoRA, Wang et al. 2024, arXiv 2409.05976), hence exact at any ranks and without a dense `(m, n)`
matrix.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flsim.models.adapter import Adapter, lora_of

Matrix = NDArray[np.float64]

_A, _B = ".lora_A.weight", ".lora_B.weight"  # peft's endings


@dataclass(frozen=True, eq=False)
class Pair:
    """The factors of one layer's product `b @ a`.

    Raises:
        ValueError: if they cannot be multiplied, or their rank is 0.
    """

    b: Matrix
    """`(m, R)`, the scale folded in; m is the layer's output width."""
    a: Matrix
    """`(R, n)`; n is the layer's input width."""

    def __post_init__(self) -> None:
        """Check the shapes."""
        if self.b.ndim != 2 or self.a.ndim != 2 or self.b.shape[1] != self.a.shape[0] or not self.b.shape[1]:
            raise ValueError(
                f"b has shape {self.b.shape} and a {self.a.shape}; a pair is (m, R) and (R, n) with the same R >= 1"
            )

    @property
    def rank(self) -> int:
        """R, the inner width; the product's own rank is at most that."""
        return int(self.b.shape[1])

    @property
    def shape(self) -> tuple[int, int]:
        """`(m, n)` of the product."""
        return int(self.b.shape[0]), int(self.a.shape[1])

    def product(self) -> Matrix:
        """The dense product `(m, n)`."""
        product: Matrix = self.b @ self.a  # (m, n)
        return product


Pairs = Mapping[str, Pair]
"""By layer: peft's name of the tensors without `.lora_A.weight` and `.lora_B.weight`."""


@dataclass(frozen=True, eq=False)
class Factors:
    """The same as an adapter holds it: in float32, with the scale beside it."""

    b: NDArray[np.float32]
    """`(m, R)`."""
    a: NDArray[np.float32]
    """`(R, n)`."""
    scale: float
    """By which the product counts."""

    @property
    def rank(self) -> int:
        """R."""
        return int(self.b.shape[1])

    @property
    def shape(self) -> tuple[int, int]:
        """`(m, n)` of the product."""
        return int(self.b.shape[0]), int(self.a.shape[1])

    @property
    def pair(self) -> Pair:
        """In float64, the scale folded in."""
        b = self.b.astype(np.float64)  # (m, R)
        b *= self.scale
        return Pair(b, self.a.astype(np.float64))


Terms = Sequence[tuple[float, Pair | Factors]]
"""A sum of products of one layer: weight and factors of every term, of equal shape; weights may have any sign."""


class AdapterPairs(Mapping[str, Pair]):
    """The pairs of an adapter, each made when it is asked for: in float64 all of a large cohort's would fill memory."""

    def __init__(self, adapter: Adapter, scale: float) -> None:
        self._layers = dict.fromkeys(_layers_of(adapter))  # in order
        self._adapter = adapter
        self._scale = _checked(scale)

    def __getitem__(self, layer: str) -> Pair:
        return self.factors(layer).pair

    def factors(self, layer: str) -> Factors:
        """Those of a layer as they are: of a large cohort, converting them takes as long as all that is done with them.

        Raises:
            KeyError: if there is no such layer.
        """
        if layer not in self._layers:
            raise KeyError(layer)
        return Factors(self._adapter[layer + _B], self._adapter[layer + _A], self._scale)

    def __contains__(self, layer: object) -> bool:  # else it would be made to see whether it is there
        return layer in self._layers

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)


def pairs_of(adapter: Adapter, scale: float) -> AdapterPairs:
    """What the adapter adds to each layer.

    Args:
        adapter: A `(r, in)` and B `(out, r)` of every layer, by peft's names, and what is learned beside them, which is
            no product and is passed over; it must not change afterwards.
        scale: s = alpha / r of this very adapter (alpha / sqrt(r) for rank-stabilised LoRA); above 0.

    Raises:
        ValueError: for a tensor without its partner, factors of different rank, or a scale that is no factor.
    """
    return AdapterPairs(adapter, scale)


def adapter_of(pairs: Pairs, scale: float) -> Adapter:
    """The adapter that adds these products, under peft's names, A before B as `flsim.models.adapter` orders them.

    `adapter_of(pairs_of(adapter, scale), scale)` is `adapter` bit for bit.

    Args:
        pairs: by layer.
        scale: s = alpha / r of whoever receives the adapter; above 0.
    """
    _checked(scale)
    adapter: Adapter = {}
    for layer, pair in pairs.items():
        adapter[layer + _A] = pair.a.astype(np.float32)  # (r, in)
        adapter[layer + _B] = (pair.b / scale).astype(np.float32)  # (out, r)
    return adapter


def weighted_sum(terms: Terms) -> Pair:
    """`sum_k w_k B_k A_k` of one layer, exact, as one pair of rank `sum_k r_k`.

    Args:
        terms: at least one; a term of weight 0 takes no rank.

    Raises:
        ValueError: if there are no terms, or the products differ in shape.
    """
    _check_shapes([factors for _, factors in terms])
    used = [(weight, factors) for weight, factors in terms if weight != 0] or terms[:1]
    rank, (m, n) = sum(factors.rank for _, factors in used), used[0][1].shape
    b, a, start = np.empty((m, rank)), np.empty((rank, n)), 0
    for weight, factors in used:
        pair = factors if isinstance(factors, Pair) else factors.pair
        columns = slice(start, start := start + pair.rank)
        np.multiply(pair.b, weight, out=b[:, columns])  # (m, r_k)
        a[columns] = pair.a  # (r_k, n)
    return Pair(b, a)


def total(terms: Sequence[tuple[float, Pairs]]) -> Pairs:
    """`weighted_sum` of every layer; all of them in memory, so that large cohorts rather go layer by layer.

    Raises:
        ValueError: if there are no terms, or they differ in layers or in the shape of a layer's product.
    """
    check_layers([pairs for _, pairs in terms])
    return {layer: weighted_sum([(weight, pairs[layer]) for weight, pairs in terms]) for layer in terms[0][1]}


def layer_difference(new: Pair, old: Pair) -> Pair:
    """`B' A' - B A` of one layer, exact, as a pair of rank r' + r.

    It is written as `(B' - B) A' + B (A' - A)`, directions that only one side has being added at the end: both terms
    are of the size of the move, so that nothing large cancels when a device has moved little.

    Raises:
        ValueError: if the products differ in shape.
    """
    _check_shapes([new, old])
    both = min(new.rank, old.rank)
    b_new, b_old = new.b[:, :both], old.b[:, :both]  # (m, both)
    a_new, a_old = new.a[:both], old.a[:both]  # (both, n)
    b = [b_new - b_old, b_old, new.b[:, both:], -old.b[:, both:]]
    a = [a_new, a_new - a_old, new.a[both:], old.a[both:]]
    return Pair(np.concatenate(b, axis=1), np.concatenate(a))  # (m, r' + r), (r' + r, n)


def difference(new: Pairs, old: Pairs) -> Pairs:
    """`layer_difference` of every layer.

    Raises:
        ValueError: if the two differ in layers or in the shape of a layer's product.
    """
    check_layers([new, old])
    return {layer: layer_difference(pair, old[layer]) for layer, pair in new.items()}


def padded(pair: Pair, rank: int) -> Pair:
    """The same product in `rank` directions, the new ones zero; the pair itself if it has as many.

    Raises:
        ValueError: if the pair has more directions than that.
    """
    if rank < pair.rank:
        raise ValueError(f"a pair of rank {pair.rank} cannot be padded to rank {rank}; use `cropped` or `truncated`")
    more = rank - pair.rank
    if not more:
        return pair
    return Pair(np.pad(pair.b, ((0, 0), (0, more))), np.pad(pair.a, ((0, more), (0, 0))))


def cropped(pair: Pair, rank: int) -> Pair:
    """Its first `rank` directions, or all if it has fewer: the best ones if they are sorted by singular value.

    Raises:
        ValueError: if the rank is below 1.
    """
    if rank < 1:
        raise ValueError(f"rank {rank} leaves nothing; a pair has at least 1 direction")
    return Pair(pair.b[:, :rank], pair.a[:rank])


def check_layers(updates: Sequence[Pairs]) -> None:
    """Refuse updates of different layers, or none.

    Raises:
        ValueError: naming the first layer that not all of them have.
    """
    if not updates:
        raise ValueError("there are no updates; at least one is needed")
    layers = set(updates[0])
    for index, pairs in enumerate(updates):
        if odd := sorted(layers.symmetric_difference(pairs)):
            raise ValueError(f"update {index} and update 0 differ in layers, first {odd[0]!r}; all must adapt the same")


def _layers_of(adapter: Adapter) -> list[str]:
    layers = [name.removesuffix(_A) for name in adapter if name.endswith(_A)]
    if odd := sorted({layer + ending for layer in layers for ending in (_A, _B)} ^ lora_of(adapter).keys()):
        raise ValueError(
            f"{odd[0]!r} stands alone or is missing; an adapter holds `<layer>{_A}` and `<layer>{_B}` of every layer"
        )
    for layer in layers:
        a, b = adapter[layer + _A].shape, adapter[layer + _B].shape
        if len(a) != 2 or len(b) != 2 or a[0] != b[1]:
            raise ValueError(f"{layer!r} has A of shape {a} and B of {b}; they must be (r, in) and (out, r)")
    return layers


def _check_shapes(pairs: Sequence[Pair | Factors]) -> None:
    if not pairs:
        raise ValueError("there are no pairs to add; at least one is needed")
    for index, pair in enumerate(pairs):
        if pair.shape != pairs[0].shape:
            raise ValueError(f"product {index} has shape {pair.shape}, product 0 {pairs[0].shape}; they must agree")


def _checked(scale: float) -> float:
    if not (np.isfinite(scale) and scale > 0):
        raise ValueError(f"the scale is {scale}; alpha / r must be finite and above 0")
    return scale
