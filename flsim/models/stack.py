"""Linear layers of one shape that read the same, as one product, with the adapters of K devices; gradients by hand.

For layer i of a stack: `y_i = W_i x + (alpha / r_k) B_ki A_ki x`, as `flsim/models/lora_linear.py` has it. There every
layer is a handful of calls, and its gradient as many more; for a small model calls are what takes the time. Here three
layers are four calls. All sums are in the order in which autograd makes them over the modules, so that no bit differs
on processors whose products of a matrix do not depend on how many columns it has.

Tokens are `(1, N, ...)`, device by device, so that a stack of one layer takes and gives them as they are.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flsim.models.lora_linear import Attached, StackedLoraLinear, Uneven, across, in_groups, times

Found = list[Tensor | None]
"""Gradients of the factors that are on, by their numbers."""


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
        self._weights: tuple[tuple[dict[str, Any], Tensor, int], ...] = ()  # with their holders and their memory
        self._look()

    def is_as_it_was(self) -> bool:
        """Whether layers and weights are those of the last `worn`; looked at in every pass, so it must cost little."""
        for name, layer in zip(self._names, self._layers, strict=True):
            if self._modules[name] is not layer:
                return False
        for held, weight, place in self._weights:
            if held["weight"] is not weight or weight.data_ptr() != place:
                return False
        return True

    @property
    def attached(self) -> Attached | None:
        """The adapters that are on; None where no layer has any."""
        for layer in self._layers:
            if isinstance(layer, StackedLoraLinear) and layer.attached is not None:
                return layer.attached
        return None

    def worn(self) -> "Worn":
        """The stack with the adapters that are on."""
        self._look()
        wrapped = [isinstance(layer, StackedLoraLinear) and layer.attached is not None for layer in self._layers]
        numbers = [layer.number if on else None for layer, on in zip(self._layers, wrapped, strict=True)]
        return Worn(self._together, self.attached, numbers)

    def _look(self) -> None:
        """Take layers as they are, and lay their weights together unless they are."""
        if self._layers and self.is_as_it_was():
            return
        self._layers = tuple(self._modules[name] for name in self._names)
        bare: list[Any] = [layer.base if isinstance(layer, StackedLoraLinear) else layer for layer in self._layers]
        weights = [layer.weight for layer in bare]
        self._together = torch.stack([weight.detach() for weight in weights])  # (s, out, in)
        for weight, part in zip(weights, self._together, strict=True):
            weight.data = part  # what is written into the layer's own is seen here
        self._weights = tuple(
            (layer._parameters, weight, weight.data_ptr()) for layer, weight in zip(bare, weights, strict=True)
        )


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
    """A stack with adapters, or without, as long as these are on and theta is not written into."""

    def __init__(self, weight: Tensor, attached: Attached | None, numbers: Sequence[int | None]) -> None:
        """Take what is on.

        Args:
            weight: `(s, out, in)`.
            attached: adapters; None where no layer has one on.
            numbers: of the layers' factors; None of a layer without.
        """
        self.attached = attached
        self._weight, self._turned = weight, weight.transpose(1, 2)  # (s, out, in) and (s, in, out)
        self._numbers, self._count = numbers, len(numbers)
        self._joint = attached is not None and attached.theta.shape[0] == 1 and None not in numbers
        if attached is None:
            return
        self._scale = attached.scale  # (K, 1, 1)
        if self._joint:  # of one device all layers at once
            a, b = ([attached.factors[2 * number + at] for number in numbers if number is not None] for at in (0, 1))
            self._a, self._b = (
                of[0] if self._count == 1 else torch.cat(of) for of in (a, b)
            )  # (s, r, in), (s, r, out)
            self._turned_a, self._turned_b = self._a.transpose(1, 2), self._b.transpose(1, 2)

    def apply(self, x: Tensor, tokens: Uneven | None) -> tuple[Tensor, Any]:
        """What the layers make of x `(1, N, in)`, `(s, N, out)`, and what `pull` needs of it.

        Args:
            x: tokens.
            tokens: how many of each device; None for equally many.
        """
        every = x if self._count == 1 else x.expand(self._count, -1, -1)  # (s, N, in)
        y = torch.bmm(every, self._turned)  # (s, N, out)
        if self.attached is None:
            return y, None
        if self._joint:
            low = torch.bmm(every, self._turned_a).mul_(self._scale)  # (s, N, r)
            return y.baddbmm_(low, self._b), low
        return y, [self._add(number, own, x[0], tokens) for number, own in zip(self._numbers, y.unbind(), strict=True)]

    def pull(self, g: Tensor, x: Tensor, low: Any, found: Found, tokens: Uneven | None) -> Tensor:
        """The gradient of x, `(1, N, in)`, from that of the layers `(s, N, out)`; the factors' goes into `found`.

        Args:
            g: gradient of what `apply` gave.
            x: what it was given.
            low: what it gave besides.
            found: gradients of all factors that are on, by their numbers.
            tokens: as they were.
        """
        parts = torch.bmm(g, self._weight)  # (s, N, in)
        self.learn(g, x, low, found, tokens, parts)
        if self._count == 1:
            return parts
        *before, total = parts.unbind()  # (N, in) each
        for part in reversed(before):  # autograd begins with the last
            total.add_(part)
        return total[None]

    def learn(
        self, g: Tensor, x: Tensor, low: Any, found: Found, tokens: Uneven | None, parts: Tensor | None = None
    ) -> None:
        """The factors' gradient alone; what they add to that of x is added to `parts` `(s, N, in)`, if it is given."""
        if self.attached is None:
            return
        if not self._joint:
            for i, number in enumerate(self._numbers):
                if number is not None:
                    self._learn(number, g[i], x[0], low[i], found, tokens, None if parts is None else parts[i])
            return
        thin = torch.bmm(g, self._turned_b).mul_(self._scale)  # (s, N, r)
        if parts is not None:
            parts.add_(torch.bmm(thin, self._a))
        every = x if self._count == 1 else x.expand(self._count, -1, -1)  # (s, N, in)
        of_a = torch.bmm(thin.transpose(1, 2), every).unbind()  # (r, in) each
        of_b = torch.bmm(low.transpose(1, 2), g).unbind()  # (r, out) each
        for i, number in enumerate(self._numbers):
            assert number is not None
            found[2 * number], found[2 * number + 1] = of_a[i], of_b[i]

    def _factors(self, number: int) -> tuple[Tensor, Tensor]:
        """A `(K, r, in)` and B transposed `(K, r, out)`."""
        assert self.attached is not None
        return self.attached.factors[2 * number], self.attached.factors[2 * number + 1]

    def _add(self, number: int | None, y: Tensor, x: Tensor, tokens: Uneven | None) -> Tensor | None:
        """Write into y `(N, out)` what the adapters of a layer add for x `(N, in)`."""
        if number is None:
            return None
        a, b = self._factors(number)
        if tokens is None or a.shape[0] == 1:
            low = torch.bmm(x.view(a.shape[0], -1, x.shape[1]), a.transpose(1, 2)).mul_(self._scale)  # (K, rows, r)
            y.view(a.shape[0], -1, y.shape[1]).baddbmm_(low, b)
        elif in_groups(a, b):
            low = times(x, a.transpose(1, 2), tokens.ends).mul_(tokens.of_tokens(self._scale))  # (N, r)
            y.add_(times(low, b, tokens.ends))
        else:
            places, back = tokens.padding(x.shape[0])  # (K, M) and (N,)
            low = torch.bmm(_padded(x, places), a.transpose(1, 2)).mul_(self._scale)  # (K, M, r)
            y.add_(torch.bmm(low, b).flatten(0, 1).index_select(0, back))
        return low

    def _learn(
        self,
        number: int,
        g: Tensor,
        x: Tensor,
        low: Tensor,
        found: Found,
        tokens: Uneven | None,
        part: Tensor | None,
    ) -> None:
        """`learn` of a layer; g, x and part are its own `(N, ...)`."""
        (a, b), scale, ends = self._factors(number), self._scale, None
        tokens = tokens if a.shape[0] > 1 else None
        if tokens is None:
            g, x = g.view(a.shape[0], -1, g.shape[1]), x.view(a.shape[0], -1, x.shape[1])
        elif in_groups(a, b):
            ends, scale = tokens.ends, tokens.of_tokens(scale)
        else:
            places, back = tokens.padding(x.shape[0])  # (K, M) and (N,)
            g = g.new_zeros(places.numel(), g.shape[1]).index_copy_(0, back, g).view(*places.shape, -1)  # (K, M, out)
            x = _padded(x, places)  # (K, M, in)
        thin = times(g, b.transpose(1, 2), ends).mul_(scale)
        found[2 * number], found[2 * number + 1] = across(thin, x, ends), across(low, g, ends)
        if part is None:
            return
        more = times(thin, a, ends).flatten(0, -2)
        if tokens is None or ends is not None:
            part.add_(more)
        else:
            part.add_(more.index_select(0, tokens.padding(part.shape[0])[1]))


def _padded(x: Tensor, places: Tensor) -> Tensor:
    """Tokens `(N, in)` in blocks `(K, M, in)`."""
    return x.index_select(0, places.flatten()).view(*places.shape, -1)
