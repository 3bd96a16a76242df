"""One layer of a small decoder of the Llama family, forward and backward by hand, on the tokens of K devices.

The model that ships has three layers of 96 numbers: a token takes hundreds of calls of a few microseconds each, and
autograd makes as many again. So what a layer does is written out here, once forward and once backward, on what
`stack.py` makes of its linear layers. Attention (`attention.py`) works on the grid of rows, all else on packed tokens
`(1, N, D)`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from flsim.models.lora_linear import Uneven
from flsim.models.small.stack import Found, Joined, Stack, Worn, stacks

Turn = tuple[Tensor, Tensor]
"""Of the tokens' positions the cosines, and the sines with the sign that the swapped half has, `(N, 2, 1, d)` each.

Those of the queries, which come first, are scaled by 1 / sqrt(d).
"""


class Mixing(Protocol):
    """Attention of a pass."""

    def mix(self, number: int, qkv: Tensor) -> tuple[Tensor, Any]:
        """Of layer `number`, from scaled queries, keys and values `(N, 3, H, d)`: `(1, N, D)`, and what `pull` needs.

        What it is given may be changed.
        """
        ...


class LearnedMixing(Mixing, Protocol):
    """Attention of a pass with gradient."""

    def pull(self, number: int, kept: Any, g: Tensor) -> Tensor:
        """The gradient of queries, keys and values, `(N, 3, H, d)`, from that of the tokens `(1, N, D)`."""
        ...


class Kept(NamedTuple):
    """What the backward of a layer needs; norms as `normed` gives them."""

    x: Tensor
    normed: Tensor
    root: Tensor
    mixed: Tensor
    attention: Any
    y: Tensor
    normed_y: Tensor
    root_y: Tensor
    gated: Tensor
    """What the gate is made of, and what it lets through, side by side, `(1, N, 2 I)`."""
    gate: Tensor
    """`(1, N, I)`."""
    inner: Tensor
    """`(1, N, I)`."""


class Norm:
    """A root-mean-square norm."""

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        self._epsilon = float(layer.variance_epsilon)

    def normed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """X `(1, N, D)` after it, and the reciprocal root of its mean square `(1, N, 1)`."""
        root = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()  # (1, N, 1)
        root.div_(x.shape[-1]).add_(self._epsilon).rsqrt_()
        return (x * root).mul_(self._layer._parameters["weight"]), root

    def pull(self, g: Tensor, x: Tensor, root: Tensor, beside: Tensor | None = None) -> Tensor:
        """The gradient of x from that of its norm, `(1, N, D)` each.

        Args:
            g: gradient.
            x: what it was given.
            root: what it gave besides.
            beside: what else the gradient of x is made of; None is nothing.
        """
        g = g * self._layer._parameters["weight"]  # (1, N, D)
        share = (g * x).sum(-1, True).mul_(root.pow(3)).div_(-x.shape[-1])  # (1, N, 1): d root / d x is -root^3 x / D
        g = g.mul_(root) if beside is None else torch.addcmul(beside, g, root)  # (1, N, D)
        return g.addcmul_(x, share)


class SmallLayer:
    """The modules of a layer."""

    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._norms = Norm(layer.input_layernorm), Norm(layer.post_attention_layernorm)
        self.stacks = (
            Stack(attention, ("q_proj", "k_proj", "v_proj")),
            Stack(attention, ("o_proj",)),
            Stack(mlp, ("gate_proj", "up_proj")),
            Stack(mlp, ("down_proj",)),
        )
        self.width = int(attention.head_dim)

    def worn(self, joined: Sequence[Joined | None]) -> "WornLayer":
        """With the factors of each stack."""
        qkv, out, gated, down = (stack.worn(own) for stack, own in zip(self.stacks, joined, strict=True))
        return WornLayer(qkv, out, gated, down, *self._norms, self.width)


def is_small(layer: Any) -> bool:
    """Whether a layer can be a `SmallLayer`."""
    attention, mlp = layer.self_attn, layer.mlp
    return (
        stacks(attention, ("q_proj", "k_proj", "v_proj"))
        and stacks(attention, ("o_proj",))
        and stacks(mlp, ("gate_proj", "up_proj"))
        and stacks(mlp, ("down_proj",))
        and not hasattr(attention, "q_norm")
    )


class WornLayer(NamedTuple):
    """A layer with adapters, or without."""

    qkv: Worn
    out: Worn
    gated: Worn
    down: Worn
    before: Norm
    between: Norm
    width: int
    """d, of a head."""

    def merged(self) -> "WornLayer":
        """With a matrix for each device; `pull` then has nothing to learn."""
        qkv, out, gated, down = (worn.merged() for worn in (self.qkv, self.out, self.gated, self.down))
        return self._replace(qkv=qkv, out=out, gated=gated, down=down)

    def read(
        self,
        number: int,
        x: Tensor,
        turn: Turn,
        mixing: Mixing,
        tokens: Uneven | None,
        ends: Tensor | None = None,
    ) -> tuple[Tensor, Kept]:
        """Hidden states after the layer, and what `pull` needs.

        Args:
            number: of the layer.
            x: hidden states before it `(1, N, D)`.
            turn: by the tokens' positions.
            mixing: attention.
            tokens: of each device; None for equally many.
            ends: the tokens whose states are wanted, equally many of each device, `(E,)`; None are all.
        """
        normed, root = self.before.normed(x)
        heads = self.qkv.apply(normed, tokens)  # (1, N, 3 D)
        mixed, attention = mixing.mix(number, self.turned(heads, turn))
        beside = x
        if ends is not None:  # of the others only keys and values are; N is E from here on
            mixed, beside, tokens = mixed.index_select(1, ends), x.index_select(1, ends), None
        y = self.out.apply(mixed, tokens).add_(beside)  # (1, N, D)
        normed_y, root_y = self.between.normed(y)
        gated = self.gated.apply(normed_y, tokens)  # (1, N, 2 I)
        lower, upper = gated.chunk(2, -1)  # (1, N, I) each
        gate = F.silu(lower)  # (1, N, I)
        inner = upper * gate  # (1, N, I)
        more = self.down.apply(inner, tokens)  # (1, N, D)
        return more.add_(y), Kept(x, normed, root, mixed, attention, y, normed_y, root_y, gated, gate, inner)

    def turned(self, heads: Tensor, turn: Turn) -> Tensor:
        """Queries, turned by their positions and scaled, turned keys, and values, `(N, 3, H, d)`, in place."""
        qkv = heads.view(heads.shape[1], 3, -1, self.width)  # (N, 3, H, d)
        both = qkv[:, :2]  # (N, 2, H, d)
        swapped = _swapped(both)  # (N, 2, H, d)
        both.mul_(turn[0]).addcmul_(swapped, turn[1])
        return qkv

    def pull(
        self,
        number: int,
        g: Tensor,
        kept: Kept,
        turn: Turn,
        mixing: LearnedMixing,
        found: Found,
        tokens: Uneven | None,
        ends: Tensor | None = None,
        *,
        wanted: bool,
    ) -> Tensor | None:
        """The gradient of x `(1, N, D)` from g, that of the layer's states; the factors' goes into `found`.

        Args:
            number: of the layer.
            g: gradient, `(1, N, D)`, or `(1, E, D)`.
            kept: what `read` gave.
            turn: what it was given, as `mixing`, `tokens` and `ends`.
            mixing: attention.
            found: gradients of factors.
            tokens: of each device; None for equally many.
            ends: the tokens whose states were wanted.
            wanted: whether that of x is; else it is None.
        """
        every, tokens = tokens, tokens if ends is None else None
        inner = self.down.pull(g, kept.inner, found, tokens)  # (1, N, I)
        gated = torch.empty_like(kept.gated)  # (1, N, 2 I)
        of_lower, of_upper = gated.chunk(2, -1)  # (1, N, I) each
        lower, upper = kept.gated.chunk(2, -1)  # (1, N, I) each
        torch.mul(inner, kept.gate, out=of_upper)
        torch.ops.aten.silu_backward.grad_input(inner.mul_(upper), lower, grad_input=of_lower)
        normed = self.gated.pull(gated, kept.normed_y, found, tokens)  # (1, N, D)
        g = self.between.pull(normed, kept.y, kept.root_y, g)  # (1, N, D)
        mixed = self.out.pull(g, kept.mixed, found, tokens)  # (1, N, D)
        if ends is not None:
            mixed, g = (torch.zeros_like(kept.x).index_add_(1, ends, of) for of in (mixed, g))  # (1, N, D) each
        qkv = mixing.pull(number, kept.attention, mixed)  # (N, 3, H, d)
        both = qkv[:, :2]  # (N, 2, H, d)
        swapped = _swapped(both)  # (N, 2, H, d)
        both.mul_(turn[0]).addcmul_(swapped, turn[1], value=-1)
        heads = qkv.view(1, len(qkv), -1)  # (1, N, 3 D)
        if not wanted:
            self.qkv.learn(heads, kept.normed, found, every)
            return None
        normed = self.qkv.pull(heads, kept.normed, found, every)  # (1, N, D)
        return self.before.pull(normed, kept.x, kept.root, g)  # (1, N, D)


def _swapped(x: Tensor) -> Tensor:
    """The halves of heads `(..., d)` in each other's place."""
    first, second = x.chunk(2, -1)
    return torch.cat((second, first), -1)


def turn_of(table: Tensor, positions: Tensor) -> Turn:
    """Of positions `(N,)`, from a table `(P, 2, 2, 1, d)`."""
    cos, sin = table.index_select(0, positions).unbind(1)  # (N, 2, 1, d) each
    return cos, sin
