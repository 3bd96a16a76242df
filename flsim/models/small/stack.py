"""Linear layers of one shape that read the same as one product, with the adapters of K devices; gradients by hand.

For layer i of a stack and device k: `y_i = W_i x + (alpha / r_k) B_ki A_ki x` (Hu et al. 2021, arXiv 2106.09685). The
factors of s layers lie together, A one upon the other and B in blocks along a diagonal, so that one product takes the
place of s; for a small model it is the calls that take the time. While nothing is learned, a few devices have their
adapters merged (section 4.1 there), `W_ki = W_i + (alpha / r_k) B_ki A_ki`: a token then costs what it costs the frozen
model. The matrices of many would not stay in a processor's cache.

Tokens are `(1, N, ...)`, device by device.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flsim.models.lora_linear import Attached, StackedLoraLinear, Uneven, across, in_groups, times

Found = list[tuple[Tensor, Tensor]]
"""Gradients of every stack's `Joined.a` and `Joined.b`, but for alpha / r, in the order of `Joined.place`."""


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

    @property
    def size(self) -> int:
        """Of its weights, in numbers."""
        return self._together.numel()

    @property
    def numbers(self) -> list[int | None]:
        """Of the layers' factors that are on; None of a layer without."""
        return [
            layer.number if isinstance(layer, StackedLoraLinear) and layer.attached is not None else None
            for layer in self._layers
        ]

    def worn(self, joined: "Joined | None") -> "Worn":
        """The stack with factors; None is none."""
        return Worn(self._together[None], joined)

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


class Joined(NamedTuple):
    """The factors of a stack's layers, together."""

    place: int
    """Among the stacks that have any."""
    a: Tensor
    """`(K, s r, in)`."""
    scaled_a: Tensor
    """Times alpha / r, `(K, s r, in)`."""
    b: Tensor
    """`(K, s r, s out)`."""


class Joining:
    """How the factors of stacks come of a row of theta, and a row's gradient of theirs: all by one look-up."""

    def __init__(self, stacks: Sequence[Stack], shapes: Sequence[tuple[int, int]]) -> None:
        """Find out.

        Args:
            stacks: of which some layer has an adapter on.
            shapes: of the factors, as `Attached` has them.
        """
        self.shapes = shapes
        self._zero = sum(rows * width for rows, width in shapes)  # of theta with a zero behind the factors
        sizes = [rows * width for rows, width in shapes]
        factors = [part.view(shape) for part, shape in zip(torch.arange(self._zero).split(sizes), shapes, strict=True)]
        self._worn = [any(number is not None for number in stack.numbers) for stack in stacks]
        a, b = [], []
        for stack, worn in zip(stacks, self._worn, strict=True):
            if worn:
                pairs = self._pairs(stack.numbers, factors)
                a.append(torch.cat([of for of, _ in pairs]))  # (s r, in)
                b.append(torch.block_diag(*[of - self._zero for _, of in pairs]) + self._zero)  # (s r, s out)
        self._index = torch.cat([part.flatten() for part in (*a, *b)])
        self._shapes_of_a, self._shapes_of_b = [part.shape for part in a], [part.shape for part in b]
        self._of_a = sum(part.numel() for part in a)
        self._back = torch.full((self._zero + 1,), len(self._index))  # (n + 1,), of what no layer reads a zero
        self._back[self._index] = torch.arange(len(self._index))
        self._back = self._back[: self._zero]

    def _pairs(self, numbers: Sequence[int | None], factors: Sequence[Tensor]) -> list[Sequence[Tensor]]:
        """Where A and B transposed of each layer lie."""
        first = next(number for number in numbers if number is not None)
        none = [torch.full_like(of, self._zero) for of in factors[2 * first : 2 * first + 2]]
        return [none if number is None else factors[2 * number : 2 * number + 2] for number in numbers]

    def joined(self, attached: Attached) -> list[Joined | None]:
        """Of every stack; None where no layer has an adapter."""
        theta = attached.theta.detach()
        flat = F.pad(theta[:, : self._zero], (0, 1)).index_select(1, self._index)  # (K, ...)
        of_a, of_b = flat[:, : self._of_a], flat[:, self._of_a :]
        parts = zip(
            range(len(self._shapes_of_a)),
            _views(of_a, self._shapes_of_a),
            _views(of_a * attached.scale[:, :, 0], self._shapes_of_a),
            _views(of_b, self._shapes_of_b),
            strict=True,
        )
        return [Joined(*next(parts)) if worn else None for worn in self._worn]

    def empty(self) -> Found:
        """Room for the gradients."""
        nothing = torch.empty(0)
        return [(nothing, nothing) for _ in self._shapes_of_a]

    def gradient(self, found: Found, attached: Attached) -> Tensor:
        """Of theta, `(K, n)`, from what was found of every stack."""
        parts = [of.flatten(1) for side in zip(*found, strict=True) for of in side]
        flat = F.pad(torch.cat(parts, 1), (0, 1)).index_select(1, self._back)  # (K, n), without what is beside
        flat.mul_(attached.scale[:, :, 0])
        return F.pad(flat, (0, attached.beside)) if attached.beside else flat


def _views(flat: Tensor, shapes: Sequence[torch.Size]) -> list[Tensor]:
    """What lies side by side in rows `(K, ...)`, `(K, *shape)` each."""
    parts = flat.split([shape.numel() for shape in shapes], 1)
    return [part.view(len(flat), *shape) for part, shape in zip(parts, shapes, strict=True)]


class Worn:
    """A stack with adapters, or without, as long as these are on and neither they nor its weights are written into."""

    def __init__(self, weight: Tensor, joined: Joined | None = None) -> None:
        """Take what is on.

        Args:
            weight: `(1, s out, in)`, or of each device `(K, s out, in)`.
            joined: factors; None where there are none, or they are merged.
        """
        self._weight, self._turned, self._joined = weight, weight.transpose(1, 2), joined

    def merged(self) -> "Worn":
        """The same with a matrix for each device."""
        if self._joined is None:
            return self
        upper = self._joined.b.transpose(1, 2)  # (K, s out, s r)
        return Worn(torch.baddbmm(self._weight, upper, self._joined.scaled_a))  # (K, s out, in)

    def apply(self, x: Tensor, tokens: Uneven | None) -> Tensor:
        """What the layers make of x `(1, N, in)`, side by side, `(1, N, s out)`.

        Args:
            x: tokens.
            tokens: how many of each device; None for equally many.
        """
        y = _product(x, self._turned, tokens)  # (1, N, s out)
        if self._joined is None:
            return y
        low = _product(x, self._joined.scaled_a.transpose(1, 2), tokens)  # (1, N, s r)
        return _product(low, self._joined.b, tokens, onto=y)

    def pull(self, g: Tensor, x: Tensor, found: Found, tokens: Uneven | None) -> Tensor:
        """The gradient of x, `(1, N, in)`, from that of the layers `(1, N, s out)`; the factors' goes into `found`.

        Args:
            g: gradient of what `apply` gave.
            x: what it was given.
            found: gradients of all factors that are on.
            tokens: as they were.
        """
        total, thin = _product(g, self._weight, tokens), self.learn(g, x, found, tokens)
        if self._joined is None or thin is None:
            return total
        return _product(thin, self._joined.scaled_a, tokens, onto=total)

    def learn(self, g: Tensor, x: Tensor, found: Found, tokens: Uneven | None) -> Tensor | None:
        """The factors' gradient alone; gives B^T g, `(1, N, s r)`, None without factors."""
        joined = self._joined
        if joined is None:
            return None
        thin = _product(g, joined.b.transpose(1, 2), tokens)  # (1, N, s r)
        low = _product(x, joined.a.transpose(1, 2), tokens)  # (1, N, s r)
        devices = len(joined.a)
        found[joined.place] = _across(thin, x, devices, tokens), _across(low, g, devices, tokens)
        return thin


def _product(x: Tensor, w: Tensor, tokens: Uneven | None, *, onto: Tensor | None = None) -> Tensor:
    """Every device's tokens `(1, N, i)` times its own matrix of w `(K, i, j)`, or one for all, `(1, N, j)`.

    It is added to `onto`, if that is given.
    """
    k, i, j = w.shape
    if k == 1:  # as they lie
        return torch.bmm(x, w) if onto is None else onto.baddbmm_(x, w)
    if tokens is None:
        blocks = x.view(k, -1, i)  # (K, rows, i)
        if onto is None:
            return torch.bmm(blocks, w).view(1, -1, j)
        onto.view(k, -1, j).baddbmm_(blocks, w)
        return onto
    if in_groups(w, i, j):
        bare = times(x[0], w, tokens.ends)  # (N, j)
    else:
        bare = tokens.bare(torch.bmm(tokens.padded(x[0]), w), x.shape[1])  # (N, j)
    return bare[None] if onto is None else onto.add_(bare)


def _across(x: Tensor, y: Tensor, devices: int, tokens: Uneven | None) -> Tensor:
    """`(K, i, j)`: x^T y of x `(1, N, i)` and y `(1, N, j)`, summed over each device's tokens."""
    if devices == 1:  # as they lie
        return across(x, y, None)
    i, j = x.shape[2], y.shape[2]
    if tokens is None:
        return across(x.view(devices, -1, i), y.view(devices, -1, j), None)
    if in_groups(x, i, j):
        return across(x[0], y[0], tokens.ends)
    return across(tokens.padded_by_zero(x[0]), tokens.padded(y[0]), None)
