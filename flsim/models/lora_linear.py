"""A frozen linear layer that carries K adapters at a time: the rows of a batch are K equal blocks, or unequal ones.

For block k: `y = W x + (alpha / r_k) B_k A_k x` (Hu et al. 2021, arXiv 2106.09685), computed for all k by batched
matrix products; blocks never mix.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import grouped_mm

WASTE = 1.3
"""Filling devices up to equal numbers of tokens is the faster way as long as it adds less than this factor."""


class _AddLora(torch.autograd.Function):
    """`y + scale * x A^T B^T` per device, written into y; the backward has one thin product per gradient.

    Plain autograd needs two more passes over the outputs and multiplies in layouts that are up to four times slower on
    a CPU, where these products are so thin (r = 8) that their layout is all that counts.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: Tensor, ends: Tensor | None) -> Tensor:
        """Add what x gives by a `(K, r, in)` and b `(K, r, out)`.

        With `ends` None, y is `(K, rows, out)`, x `(K, rows, in)` and scale `(K, 1, 1)`; else y is `(N, out)`, x
        `(N, in)`, scale `(N, 1)`, and device k has the tokens up to `ends[k]`.
        """
        low = times(x.to(a.dtype), a.transpose(1, 2), ends).mul_(scale)
        ctx.save_for_backward(x, low, a, b, scale, ends)  # x as it is: layers that read the same share it
        ctx.mark_dirty(y)
        return y.baddbmm_(low, b) if ends is None and y.dtype == a.dtype else y.add_(times(low, b, ends))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of y, x, a and b."""
        (gy,) = gradients
        x, low, a, b, scale, ends = ctx.saved_tensors
        g = gy.to(a.dtype)
        glow = times(g, b.transpose(1, 2), ends).mul_(scale)
        gx = times(glow, a, ends).to(gy.dtype) if ctx.needs_input_grad[1] else None
        return gy, gx, across(glow, x.to(a.dtype), ends), across(low, g, ends), None, None


def times(x: Tensor, w: Tensor, ends: Tensor | None) -> Tensor:
    """Every device's tokens times its own matrix `(K, i, j)`: x is `(K, rows, i)`, or `(N, i)` up to `ends`."""
    return torch.bmm(x, w) if ends is None else grouped_mm(x, w, offs=ends)


def across(x: Tensor, y: Tensor, ends: Tensor | None) -> Tensor:
    """`(K, i, j)`: x^T y, summed over each device's tokens, which lie as in `times`."""
    return torch.bmm(x.transpose(1, 2), y) if ends is None else grouped_mm(x.t(), y, offs=ends)


class Uneven:
    """Unequally many tokens of K devices, and what follows of it, worked out once for all layers."""

    def __init__(self, counts: Tensor) -> None:
        self.counts = counts
        """`(K,)`."""
        self._padding: tuple[Tensor, Tensor] | None = None
        self._scales: dict[int, tuple[Tensor, Tensor]] = {}  # by the identity of the scale, which is kept with it

    @cached_property
    def ends(self) -> Tensor:
        """Where each device's tokens end, `(K,)`."""
        return self.counts.cumsum(0).int()

    def of_tokens(self, scale: Tensor) -> Tensor:
        """The scale `(K, 1, 1)` of each token's device, `(N, 1)`."""
        if id(scale) not in self._scales:
            self._scales[id(scale)] = scale, scale[:, 0].repeat_interleave(self.counts, 0)
        return self._scales[id(scale)][1]

    def padding(self, total: int) -> tuple[Tensor, Tensor]:
        """Which of N tokens lies where in padded blocks `(K, M)`, and where in them each token lies, `(N,)`.

        A GPU has to be waited for to know M.
        """
        if self._padding is None:
            counts = self.counts
            starts = counts.cumsum(0) - counts  # (K,)
            most = torch.arange(int(counts.max()), device=counts.device)  # (M,)
            places = torch.arange(total, device=counts.device)  # (N,)
            inside = places - starts.repeat_interleave(counts, output_size=total)  # (N,)
            rows = torch.arange(len(counts), device=counts.device).repeat_interleave(counts, output_size=total)  # (N,)
            self._padding = (starts[:, None] + most).clamp(max=total - 1), rows * len(most) + inside
        return self._padding

    def padded(self, tokens: Tensor) -> Tensor:
        """Tokens `(N, i)` in equal blocks `(K, M, i)`, filled with any of them."""
        places, _ = self.padding(len(tokens))
        return tokens.index_select(0, places.flatten()).view(*places.shape, -1)

    def padded_by_zero(self, tokens: Tensor) -> Tensor:
        """The same, filled with zeros."""
        places, back = self.padding(len(tokens))
        blocks = tokens.new_zeros(places.numel(), tokens.shape[1]).index_copy(0, back, tokens)
        return blocks.view(*places.shape, -1)

    def bare(self, blocks: Tensor, total: int) -> Tensor:
        """The N tokens of padded blocks `(K, M, i)`, `(N, i)`."""
        return blocks.flatten(0, 1).index_select(0, self.padding(total)[1])


# A global and no ContextVar: with gradient checkpointing, layers are computed again in autograd's own threads.
_uneven: Uneven | None = None


@contextmanager
def unequal(counts: Tensor | None) -> Iterator[None]:
    """Within the block, tokens are `(1, N)` and device k has `counts[k]` of them; None, as outside, is equal blocks."""
    global _uneven
    before = _uneven
    _uneven = None if counts is None else Uneven(counts)
    try:
        yield
    finally:
        _uneven = before


def uneven() -> Uneven | None:
    """What holds at present of the numbers of tokens; None while blocks are equal."""
    return _uneven


class Attached:
    """K adapters that are on, and what they learn.

    Whoever reads by the modules finds the factors as tensors of autograd, `of`; whoever works out gradients itself
    takes the whole of `theta`.
    """

    def __init__(
        self, theta: Tensor, scale: Tensor, shapes: Sequence[tuple[int, int]], beside: int, train: bool
    ) -> None:
        """Put on.

        Args:
            theta: `(K, n)`; a gradient flows into it if it has one.
            scale: alpha / r of each, `(K, 1, 1)`.
            shapes: of the factors as they lie in a row, A and B transposed of every layer in turn.
            beside: numbers of a row behind them.
            train: whether gradients are added up, apart from theta's own.
        """
        self.theta = theta.detach().requires_grad_() if train else theta
        """`(K, n)`: what gradients that are worked out as a whole go to."""
        self.scale = scale
        self.shapes = shapes
        self.beside = beside
        self._train = train

    @cached_property
    def parts(self) -> list[Tensor]:
        """The factors for autograd, `(K, *shape)` each; they are made when the first module asks for one."""
        # one split: its backward is one concatenation, while each slice's would fill a whole theta with zeros
        with torch.enable_grad():
            parts = self._split(self.theta.detach() if self._train else self.theta)
        return [part.requires_grad_() for part in parts] if self._train else parts

    def _split(self, theta: Tensor) -> list[Tensor]:
        sizes = [rows * width for rows, width in self.shapes]
        parts = theta.split([*sizes, self.beside] if self.beside else sizes, 1)
        return [part.view(len(theta), *shape) for part, shape in zip(parts, self.shapes, strict=False)]

    def of(self, number: int, place: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """A `(K, r, in)`, B transposed `(K, r, out)` and scale of a layer, where its base lies."""
        a, b, scale = self.parts[2 * number], self.parts[2 * number + 1], self.scale
        return (a, b, scale) if a.device == place else (a.to(place), b.to(place), scale.to(place))

    def _together(self, parts: Sequence[Tensor | None]) -> Tensor:
        """Gradients of the factors, None for zero, as one of theta, `(K, n)`."""
        k, place = len(self.theta), self.theta.device
        flat = [
            self.theta.new_zeros(k, math.prod(shape)) if part is None else part.reshape(k, -1).to(place)
            for part, shape in zip(parts, self.shapes, strict=True)
        ]
        return torch.cat([*flat, *([self.theta.new_zeros(k, self.beside)] if self.beside else [])], 1)  # (K, n)

    def gradient(self) -> Tensor:
        """What `backward` has added up, `(K, n)`; zero at what no layer reads."""
        whole = self.theta.grad
        if "parts" not in vars(self):
            return torch.zeros_like(self.theta) if whole is None else whole
        by_modules = self._together([part.grad for part in self.parts])
        return by_modules if whole is None else by_modules + whole


class StackedLoraLinear(nn.Module):
    """A frozen linear layer plus K adapters; without adapters it is the frozen layer alone."""

    def __init__(self, base: nn.Module, number: int) -> None:
        """Wrap a layer.

        Args:
            base: the layer.
            number: of its factors among those of an adapter.
        """
        super().__init__()
        self.base = base
        self.number = number
        self.attached: Attached | None = None
        self._put: tuple[Tensor, Tensor, Tensor] | None = None  # what is used in the place of theirs

    def wear(self, attached: Attached | None) -> None:
        """Put adapters on; None takes them off."""
        self.attached, self._put = attached, None

    @property
    def factors(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """A `(K, r, in)`, B transposed `(K, r, out)` and the scale `(K, 1, 1)` that are on; None without adapters."""
        if self._put is not None or self.attached is None:
            return self._put
        return self.attached.of(self.number, next(self.base.parameters()).device)

    def put(self, factors: tuple[Tensor, Tensor, Tensor] | None) -> None:
        """Use other factors until adapters are put on again; None goes back to those that are."""
        self._put = factors

    def forward(self, x: Tensor) -> Tensor:
        """Map `(K * rows, T, in)` to `(K * rows, T, out)`."""
        found = self._put
        if found is None:
            if self.attached is None:
                plain: Tensor = self.base(x)
                return plain
            found = self.attached.of(self.number, x.device)
        a, b, scale = found
        if _uneven is not None and len(a) > 1:
            return self._of_unequal(x.flatten(0, 1), a, b, scale, _uneven).view(*x.shape[:-1], -1)
        blocks = x.reshape(len(a), -1, x.shape[-1])  # (K, rows * T, in)
        # the base maps blocks too: were its output a view, writing into it would cost two copies in the backward
        y = _add_lora(self.base(blocks), blocks, a, b, scale)
        return y.view(*x.shape[:-1], -1)

    def _of_unequal(self, x: Tensor, a: Tensor, b: Tensor, scale: Tensor, tokens: Uneven) -> Tensor:
        """Map `(N, in)` to `(N, out)`."""
        if in_groups(a, *a.shape[1:], b.shape[2]):
            return _add_lora(self.base(x), x, a, b, tokens.of_tokens(scale), tokens.ends)
        blocks = tokens.padded(x)  # (K, M, in)
        added = _add_lora(x.new_zeros(*blocks.shape[:2], b.shape[2]), blocks, a, b, scale)  # (K, M, out)
        y: Tensor = self.base(x)
        return y + tokens.bare(added, len(x))


def in_groups(w: Tensor, *widths: int) -> bool:
    """Whether `grouped_mm` takes what is of these widths and lies where w does.

    It wants rows of 16 bytes; else adapters meet padded blocks.
    """
    return w.device.type == "cpu" and not any(width % 4 for width in widths)


def _add_lora(y: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: Tensor, ends: Tensor | None = None) -> Tensor:
    added: Tensor = _AddLora.apply(y, x, a, b, scale, ends)  # type: ignore[no-untyped-call]
    return added
