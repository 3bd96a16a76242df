"""Weighted sums of tensors whose bits depend on nothing but what was added: no order, no grouping, no worker.

A sum of floats depends on the order of its addends, so devices that finish in any order would have to be waited for and
sorted. Here every product `weight * value`, a float64, is cut into two integers,

    high = round(product / 2^-20)        low = round((product - high * 2^-20) / 2^-60)

and integers add up the same in every order. What is lost per product is at most half of 2^-60 (9e-19), less than what a
float32 resolves for any value above 2e-11; the sum itself loses nothing. Products up to 2^24 (1.7e7) may be added, half
a million of them; what lies beyond, or is not finite, is refused before anything is added.
"""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

_HIGH, _LOW = 20, 60  # bits behind the point
LARGEST = 2.0**24
"""Largest magnitude of one `weight * value`."""
MOST = 2**18
"""Most tensors in one sum: 2^18 products of 2^44 high quanta each stay within an int64."""

_BLOCK = 8192
_MAGIC = 1.5 * 2.0**52
"""A number below 2^51 plus this is rounded to a whole one, ties to even, whose bits are those of an integer beyond
`_BITS`: a cast would go number by number."""
_BITS = int(np.float64(_MAGIC).view(np.int64))

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
        if weight > 0:
            _refuse_beyond(float(weight), tensors)
        self._begin(layout)
        if weight > 0:
            start = 0
            for name, _ in layout:
                self._add_products(float(weight), tensors[name].ravel(), start)
                start += tensors[name].size
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
        self._begin(other._layout)
        self._high += other._high
        self._low += other._low
        self.weight += other.weight
        self.count += other.count

    def mean(self) -> dict[str, NDArray[np.float64]]:
        """The sum divided by the sum of weights, correct to about one bit of a float64.

        Raises:
            ValueError: if the weights add up to zero.
        """
        if not self.weight:
            raise ValueError("there is no mean: the weights add up to 0")
        carry = self._low >> (_LOW - _HIGH)
        low = self._low - (carry << (_LOW - _HIGH))
        values = ((self._high + carry) * 2.0**-_HIGH + low * 2.0**-_LOW) / float(self.weight)
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

    def _add_products(self, weight: float, values: NDArray[Any], place: int) -> None:
        """Weigh values, cut and add them from a place on, in blocks that stay in the processor's cache.

        Scaling by a power of two is exact, and so is the difference between a number and its rounding.
        """
        scaled, moved, whole = np.empty(_BLOCK), np.empty(_BLOCK), np.empty(_BLOCK, dtype=np.int64)
        for start in range(0, values.size, _BLOCK):
            size = min(_BLOCK, values.size - start)
            at = slice(place + start, place + start + size)
            s, m, w = scaled[:size], moved[:size], whole[:size]
            s[:] = values[start : start + size]
            s *= weight
            s *= 2.0**_HIGH
            np.add(s, _MAGIC, out=m)
            np.subtract(m.view(np.int64), _BITS, out=w)
            self._high[at] += w
            m -= _MAGIC
            s -= m
            s *= 2.0 ** (_LOW - _HIGH)
            s += _MAGIC
            np.subtract(s.view(np.int64), _BITS, out=w)
            self._low[at] += w


def _ends(layout: Layout) -> NDArray[np.int64]:
    """Where each tensor ends in the vector."""
    return np.cumsum([math.prod(shape) for _, shape in layout], dtype=np.int64)


def _refuse_beyond(weight: float, tensors: Mapping[str, NDArray[Any]]) -> None:
    for name in sorted(tensors):
        for end in (tensors[name].min(initial=0.0), tensors[name].max(initial=0.0)):
            if not abs(weight * float(end)) <= LARGEST:  # nor where there is a NaN
                raise OutOfRangeError(
                    f"{name} holds {weight * float(end):g} after weighting; allowed is up to {LARGEST:g}"
                )
