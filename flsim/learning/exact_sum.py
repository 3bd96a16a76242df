"""Weighted sums of tensors whose bits depend on nothing but what was added: no order, no grouping, no worker.

A sum of floats depends on the order of its addends, so devices that finish in any order would have to be waited for and
sorted. Here every product `weight * value`, a float64, is rounded to a whole number of quanta of 2^-60, and integers
add up the same in every order. Two int64 hold a sum, `high * 2^-20 + low * 2^-60`: products below 2, as those of deltas
nearly always are, go into `low` alone, and are carried over into `high` before it could overflow.

What is lost per product is at most half of 2^-60 (4e-19), less than what a float32 resolves for any value above 2e-11;
the sum itself loses nothing. Products up to 2^24 (1.7e7) may be added, a quarter of a million of them; what lies
beyond, or is not finite, is refused before anything is added.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

_HIGH, _LOW = 20, 60  # bits behind the point
LARGEST = 2.0**24
"""Largest magnitude of one `weight * value`."""
MOST = 2**18
"""Most tensors in one sum: 2^18 products of 2^44 high quanta each stay within an int64."""

_CARRIED = _LOW - _HIGH
_QUANTA = 2.0**_LOW
"""Quanta in 1."""
_SMALL = 2.0
"""A product below this goes into `low` alone."""
_FULL = 2.0**62
"""Quanta beyond which `low` is carried over. That leaves up to 2^40 in it, and so a number of a sum of n tensors is at
most `_FULL + n 2^40`, which an int64 holds for all n up to `MOST`."""
_BLOCK = 12288
"""Numbers that are worked on at a time, so that they stay in the processor's cache."""

Layout = tuple[tuple[str, tuple[int, ...]], ...]


class OutOfRangeError(ValueError):
    """A weight or a weighted value that no exact sum takes."""


class ExactSum:
    """A running weighted sum of equally named and shaped tensors.

    Laws, for any tensors and weights: sums over the same addends are equal bit for bit, in whatever order they were
    added and however they were split into sums that were merged; an empty sum merges without effect.
    """

    def __init__(self) -> None:
        self.weight = Fraction(0)
        """Sum of the weights, exact."""
        self.count = 0
        """How many tensors were added."""
        self._layout: Layout = ()
        self._high: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._low: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._fill = 0.0  # the largest magnitude that a number of `low` may have, in quanta

    def add(self, weight: float, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Add `weight * tensors`.

        Args:
            weight: finite, at least 0; with 0 the values are not looked at.
            tensors: by name; of the same names and shapes as what was added before.

        Raises:
            OutOfRangeError: for a weight or a weighted value beyond the range; the sum is then as it was.
            ValueError: for other names or shapes than before, or too many addends; likewise.
        """
        if not (np.isfinite(weight) and weight >= 0):
            raise OutOfRangeError(f"the weight is {weight}; it must be finite and at least 0")
        layout = tuple((name, tensors[name].shape) for name in sorted(tensors))
        self._check(layout, 1)
        runs = list(in_runs([tensors[name] for name, _ in layout])) if weight > 0 else []
        most = _largest(float(weight), runs, tensors)
        self._begin(layout)
        if weight > 0:
            small = most < _SMALL and math.isfinite(weight * _QUANTA)
            self._make_room(most * _QUANTA + 1.0 if small else 2.0**_CARRIED)
            add, place = self._add_small if small else self._add_large, 0
            for values in runs:
                add(weight, values, place)
                place += values.size
        self.weight += Fraction(float(weight))
        self.count += 1

    def merge(self, other: "ExactSum") -> None:
        """Add what another sum holds.

        Raises:
            ValueError: if its tensors have other names or shapes, or too many were added.
        """
        if not other.count:
            return
        self._check(other._layout, other.count)
        if self.count:
            self._make_room(other._fill)
            self._high += other._high
            self._low += other._low
        else:
            self._layout, self._fill = other._layout, other._fill
            self._high, self._low = other._high.copy(), other._low.copy()
        self.weight += other.weight
        self.count += other.count

    def mean(self) -> dict[str, NDArray[np.float64]]:
        """The sum divided by the sum of weights, correct to about one bit of a float64.

        Raises:
            ValueError: if the weights add up to zero.
        """
        if not self.weight:
            raise ValueError("there is no mean: the weights add up to 0")
        values = np.empty(self._low.size)
        for here in _blocks(values.size):
            high, low = _carried(self._high[here], self._low[here])
            values[here] = (high * 2.0**-_HIGH + low * 2.0**-_LOW) / float(self.weight)
        parts = np.split(values, _ends(self._layout)[:-1]) if self._layout else []
        return {name: part.reshape(shape) for (name, shape), part in zip(self._layout, parts, strict=True)}

    def _check(self, layout: Layout, count: int) -> None:
        if self.count and layout != self._layout:
            odd = sorted(set(layout) ^ set(self._layout))
            raise ValueError(f"the tensors differ in name or shape from those before them, first in {odd[0]}")
        if self.count + count > MOST:
            raise ValueError(f"a sum holds at most {MOST} addends")

    def _begin(self, layout: Layout) -> None:
        """Make room, if nothing was added yet."""
        if not self.count:
            self._layout = layout
            self._high, self._low = np.zeros((2, _ends(layout)[-1] if layout else 0), dtype=np.int64)

    def _make_room(self, more: float) -> None:
        """Carry `low` over if it may be too full for so many quanta more."""
        if self._fill + more > _FULL:
            for here in _blocks(self._low.size):
                self._high[here], self._low[here] = _carried(self._high[here], self._low[here])
            self._fill = 2.0**_CARRIED
        self._fill += more

    def _add_small(self, weight: float, values: NDArray[Any], place: int) -> None:
        """Weigh values whose products are below `_SMALL` and add them from a place on."""
        factor = np.float64(weight * _QUANTA)  # a scaling by a power of two is exact; products of float32 are float64
        for here in _blocks(values.size):
            quanta = np.rint(values[here] * factor).astype(np.int64)
            self._low[place + here.start : place + here.stop] += quanta

    def _add_large(self, weight: float, values: NDArray[Any], place: int) -> None:
        """Weigh any values and add them from a place on; a difference between a number and its rounding is exact."""
        for here in _blocks(values.size):
            there = slice(place + here.start, place + here.stop)
            product = values[here] * np.float64(weight)
            whole = np.rint(product * 2.0**_HIGH)
            self._high[there] += whole.astype(np.int64)
            self._low[there] += np.rint((product - whole * 2.0**-_HIGH) * _QUANTA).astype(np.int64)


def in_runs(tensors: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    """The numbers of tensors in order, in flat arrays; small ones share an array, as a call costs more than they do."""
    run: list[NDArray[Any]] = []
    for tensor in tensors:
        values = tensor.ravel()
        if run and sum(part.size for part in run) + values.size > _BLOCK:
            yield run[0] if len(run) == 1 else np.concatenate(run)
            run = []
        run.append(values)
    if run:
        yield run[0] if len(run) == 1 else np.concatenate(run)


def _blocks(size: int) -> Iterator[slice]:
    return (slice(start, min(start + _BLOCK, size)) for start in range(0, size, _BLOCK))


def _carried(high: NDArray[np.int64], low: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The same sum with `low` in [0, 2^40): the one way to write it, so that equal sums are divided alike."""
    return high + (low >> _CARRIED), low & ((1 << _CARRIED) - 1)


def _ends(layout: Layout) -> NDArray[np.int64]:
    """Where each tensor ends in the vector."""
    return np.cumsum([math.prod(shape) for _, shape in layout], dtype=np.int64)


def _largest(weight: float, runs: Iterable[NDArray[Any]], tensors: Mapping[str, NDArray[Any]]) -> float:
    """The largest magnitude of a product of the weight with numbers in runs; 0 of none.

    Raises:
        OutOfRangeError: if it is beyond `LARGEST`, or not finite, with the name of the first tensor that holds such.
    """
    products = [abs(product) for values in runs for product in _ends_of(weight, values)]
    if all(product <= LARGEST for product in products):  # which a NaN is not
        return max(products, default=0.0)
    for name in sorted(tensors):
        for product in _ends_of(weight, tensors[name]):
            if not abs(product) <= LARGEST:
                raise OutOfRangeError(f"{name} holds {product:g} after weighting; allowed is up to {LARGEST:g}")
    raise AssertionError("a tensor holds what its run does")


def _ends_of(weight: float, values: NDArray[Any]) -> tuple[float, float]:
    """The weighted least and largest number, and 0 if it is beyond."""
    return weight * float(values.min(initial=0.0)), weight * float(values.max(initial=0.0))
