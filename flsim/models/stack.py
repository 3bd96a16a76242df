"""Linear layers of one shape that read the same, as one matrix per device with its adapter merged; gradients by hand.

For layer i of a stack and device k: `W_ki = W_i + (alpha / r_k) B_ki A_ki` (Hu et al. 2021, arXiv 2106.09685, section
4.1), so that what the stack makes of a device's tokens is a single product, and decoding a token costs what it costs
the frozen model. With G the gradient of W_ki, those of the factors are `(alpha / r_k) B^T G` and `(alpha / r_k) G A^T`.
For a small model the calls are what takes the time, and adapters that are added to each output
(`flsim/models/lora_linear.py`) make six times as many; a merged matrix for each device is memory that only a small
model has.

Tokens are `(1, N, ...)`, device by device.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flsim.models.lora_linear import Attached, StackedLoraLinear, Uneven, across, in_groups, times

Found = list[Tensor | None]
"""Gradients of the factors that are on, by their numbers, but for alpha / r."""


class Stack:
    """s linear layers of a decoder without biases, whose weights come to lie in one tensor."""

    def __init__(self, holder: nn.Module, names: Sequence[str]) -> None:
        """Take layers of one shape.

        Args:
            holder: the module that has them.
            names: theirs in it; each may be wrapped for adapters by now, or be later.
        """
        self._modules: dict[str, Any] = holder._modules
        self._names = tuple(names)
        self._layers: tuple[Any, ...] = ()
        self._weights: tuple[tuple[dict[str, Any], Tensor, tuple[int, int]], ...] = ()  # with holders and states
        self.look()

    def is_as_it_was(self) -> bool:
        """Whether layers and weights are those of the last `look`; asked for in every pass, so it must cost little."""
        for name, layer in zip(self._names, self._layers, strict=True):
            if self._modules[name] is not layer:
                return False
        return all(held["weight"] is weight and _state(weight) == state for held, weight, state in self._weights)

    @property
    def attached(self) -> Attached | None:
        """The adapters that are on; None where no layer has any."""
        for layer in self._layers:
            if isinstance(layer, StackedLoraLinear) and layer.attached is not None:
                return layer.attached
        return None

    def worn(self, scaled: Sequence[Tensor]) -> "Worn":
        """The stack with the adapters that are on.

        Args:
            scaled: their factors times alpha / r, `(K, *shape)` each; empty if none are.
        """
        wrapped = [isinstance(layer, StackedLoraLinear) and layer.attached is not None for layer in self._layers]
        numbers = [layer.number if on else None for layer, on in zip(self._layers, wrapped, strict=True)]
        return Worn(self._together, self.attached, numbers, scaled)

    def look(self) -> None:
        """Take layers as they are, and lay their weights together unless they are."""
        if self._layers and self.is_as_it_was():
            return
        self._layers = tuple(self._modules[name] for name in self._names)
        bare: list[Any] = [layer.base if isinstance(layer, StackedLoraLinear) else layer for layer in self._layers]
        weights = [layer.weight for layer in bare]
        self._together = torch.cat([weight.detach() for weight in weights])  # (s out, in)
        for weight, part in zip(weights, self._together.chunk(len(weights)), strict=True):
            weight.data = part  # what is written into the layer's own is seen here
        self._weights = tuple(
            (layer._parameters, weight, _state(weight)) for layer, weight in zip(bare, weights, strict=True)
        )


def _state(weight: Tensor) -> tuple[int, int]:
    """Where it lies, and how often it was written into."""
    return weight.data_ptr(), weight._version


def stacks(holder: nn.Module, names: Sequence[str]) -> bool:
    """Whether layers can be a `Stack`: plain ones, frozen, in float32 on a CPU, of one shape, without biases."""
    layers = [getattr(holder, name) for name in names]
    plain = [layer.base if isinstance(layer, StackedLoraLinear) else layer for layer in layers]
    if any(type(layer) is not nn.Linear or layer.bias is not None for layer in plain):
        return False
    weights = [layer.weight for layer in plain]
    alike = {(weight.shape, weight.dtype, weight.device.type, weight.requires_grad) for weight in weights}
    return len(alike) == 1 and next(iter(alike))[1:] == (torch.float32, "cpu", False)


class Worn:
    """A stack with adapters, or without, as long as these are on and neither they nor its weights are written into."""

    def __init__(
        self,
        weight: Tensor,
        attached: Attached | None,
        numbers: Sequence[int | None],
        scaled: Sequence[Tensor],
    ) -> None:
        """Merge what is on.

        Args:
            weight: `(s out, in)`.
            attached: adapters; None where no layer has one on.
            numbers: of the layers' factors; None of a layer without.
            scaled: all factors times alpha / r, `(K, *shape)` each.
        """
        self._numbers = numbers
        self._factors: Sequence[Tensor] = ()  # A `(K, r, in)` and B transposed `(K, r, out)` of every layer
        self._weight = weight[None]  # (1, s out, in)
        if attached is None:
            return
        self._factors = attached.factors
        self._weight = self._weight.repeat(len(attached.theta), 1, 1)  # (K, s out, in)
        for number, merged in zip(numbers, self._each(self._weight), strict=True):
            if number is not None:
                b = self._factors[2 * number + 1].transpose(1, 2)  # (K, out, r)
                merged.baddbmm_(b, scaled[2 * number])  # (K, out, in)

    def apply(self, x: Tensor, tokens: Uneven | None) -> Tensor:
        """What the layers make of x `(1, N, in)`, side by side, `(1, N, s out)`.

        Args:
            x: tokens.
            tokens: how many of each device; None for equally many.
        """
        return self._product(x, self._weight.transpose(1, 2), tokens)

    def pull(self, g: Tensor, x: Tensor, found: Found, tokens: Uneven | None) -> Tensor:
        """The gradient of x, `(1, N, in)`, from that of the layers `(1, N, s out)`; the factors' goes into `found`.

        Args:
            g: gradient of what `apply` gave.
            x: what it was given.
            found: gradients of all factors that are on, by their numbers, but for alpha / r.
            tokens: as they were.
        """
        self.learn(g, x, found, tokens)
        return self._product(g, self._weight, tokens)

    def learn(self, g: Tensor, x: Tensor, found: Found, tokens: Uneven | None) -> None:
        """The factors' gradient alone."""
        if not self._factors:
            return
        whole = self._across(g, x, tokens)  # (K, s out, in)
        for number, own in zip(self._numbers, self._each(whole), strict=True):
            if number is not None:
                a, b = self._factors[2 * number : 2 * number + 2]
                found[2 * number], found[2 * number + 1] = torch.bmm(b, own), torch.bmm(a, own.transpose(1, 2))

    def _each(self, whole: Tensor) -> Sequence[Tensor]:
        """The layers' own of `(K, s out, in)`, `(K, out, in)` each."""
        return whole.chunk(len(self._numbers), 1)

    def _product(self, x: Tensor, w: Tensor, tokens: Uneven | None) -> Tensor:
        """Every device's tokens `(1, N, i)` times its own matrix of w `(K, i, j)`, `(1, N, j)`."""
        k, i, j = w.shape
        if tokens is None or k == 1:
            return torch.bmm(x.view(k, -1, i), w).view(1, -1, j)
        if in_groups(w, i, j):
            return times(x[0], w, tokens.ends)[None]
        return tokens.bare(torch.bmm(tokens.padded(x[0]), w), x.shape[1])[None]

    def _across(self, g: Tensor, x: Tensor, tokens: Uneven | None) -> Tensor:
        """`(K, s out, in)`: g^T x of g `(1, N, s out)` and x `(1, N, in)`, summed over each device's tokens."""
        k, outputs, inputs = self._weight.shape
        if tokens is None or k == 1:
            return across(g.view(k, -1, outputs), x.view(k, -1, inputs), None)
        if in_groups(g, outputs, inputs):
            return across(g[0], x[0], tokens.ends)
        return across(tokens.padded_by_zero(g[0]), tokens.padded(x[0]), None)
