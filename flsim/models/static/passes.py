"""A pass through all layers with gradient, whose shapes never change: forward and backward are captured once each.

Tokens lie as they are, padding and all, device by device; what is left empty of a shape is not seen. To autograd a
launch is one function of keys, values and adapters, and its backward is the other launch.
"""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flsim.models.forward import Past, Segment
from flsim.models.llama import attend
from flsim.models.static.adapters import Signature, StaticAdapters, attached
from flsim.models.static.capturing import Graphs
from flsim.models.static.decoding import Layers, fill, fill_bias


@dataclass(frozen=True)
class PassShape:
    """What the passes of one capture have in common; K devices, R rows of each, T tokens of each."""

    grid: tuple[int, int, int]
    """K, R, T, with what is left empty."""
    segments: int
    """How many stand before the tokens."""
    before: tuple[torch.Size, ...]
    """Of the keys and values of these segments, layer by layer, `(m, KV, L_i, d)` each, with what is left empty."""
    pulled: tuple[bool, ...]
    """Whether each of them needs a gradient."""
    adapters: Signature
    keeps: bool
    """Whether keys and values are wanted, too."""

    @property
    def columns(self) -> list[int]:
        """Of every segment, that of the tokens last."""
        return [size[2] for size in self.before[: 2 * self.segments : 2]] + [self.grid[2]]


def flat(past: Past | None) -> list[Tensor]:
    """Keys and values of every segment, layer by layer."""
    if past is None:
        return []
    return [part for layer in range(len(past.keys)) for pair in past.segments(layer) for part in pair]


class StaticPass:
    """Tensors that stay where they are, for one shape, and the two launches."""

    def __init__(self, model: nn.Module, layers: Layers, shape: PassShape, like: Tensor, graphs: Graphs) -> None:
        """Make room, and capture.

        Args:
            model: with adapters of the shape's signature attached.
            layers: its layers.
            shape: of all passes.
            like: of the model's dtype and device.
            graphs: that capture forward and backward.
        """
        self._model, self._layers, self._shape = model, layers, shape
        self._ids = torch.zeros(shape.grid, dtype=torch.long, device=like.device)  # (K, R, T)
        self._positions = torch.zeros_like(self._ids)  # (K, R, T)
        k, r, t = shape.grid
        self._bias = like.new_zeros(k * r, 1, t, sum(shape.columns))  # (K R, 1, T, L + T)
        self._before = [
            like.new_zeros(size).requires_grad_(at) for size, at in zip(shape.before, shape.pulled, strict=True)
        ]
        self._adapters = StaticAdapters(model)  # its own: those of others may change before this one's backward
        self._inputs = [*self._before, *(part.requires_grad_() for part in self._adapters.parts)]
        self._outputs: list[Tensor] = []
        self._user: weakref.ref[Any] | None = None
        self._adapters.take()
        self._run()
        self._pulls = [torch.zeros_like(output) for output in self._outputs if output.requires_grad]
        graphs.warm_up(self._run_and_pull)
        self._forward = graphs.capture(self._run)
        self._backward = graphs.capture(self._pull)

    @property
    def free(self) -> bool:
        """Whether no backward is to come of an earlier call, which needs what lies here."""
        return self._user is None or self._user() is None

    def __call__(self, ids: Tensor, positions: Tensor, bias: Tensor, past: Past | None) -> tuple[Tensor, list[Segment]]:
        """Last hidden states `(K, R, T, D)`, and if they are kept every layer's keys and values `(K R, KV, T, d)`.

        Args:
            ids: `(K, R, T)`, of as many tokens as the shape has, or fewer.
            positions: theirs, `(K, R, T)`.
            bias: on the scores, `(K R, 1, T, L + T)`.
            past: what stands before the tokens; None is nothing.
        """
        fill(self._ids, ids)
        fill(self._positions, positions)
        before = flat(past)
        widths = [part.shape[2] for part in before[: 2 * self._shape.segments : 2]]
        fill_bias(self._bias, bias, [*widths, ids.shape[2]], self._shape.columns)
        self._adapters.take_scales()
        states, *kept = _Launch.apply(self, ids.shape[2], *before, *attached(self._model))  # type: ignore[no-untyped-call]
        return states, list(zip(kept[: len(kept) // 2], kept[len(kept) // 2 :], strict=True))

    def launch(self, given: Sequence[Tensor], tokens: int, user: Any) -> list[Tensor]:
        """States, then keys and values, of so many tokens; `user` is alive as long as their backward may come."""
        self._user = weakref.ref(user)
        for static, part in zip(self._inputs, given, strict=True):
            fill(static.detach(), part)
        self._forward()
        cut = (output.detach().narrow(2, 0, tokens) for output in self._outputs)
        return [output.clone(memory_format=torch.contiguous_format) for output in cut]

    @property
    def without_gradient(self) -> list[bool]:
        """Which of the outputs have none."""
        return [not output.requires_grad for output in self._outputs]

    def pull(self, gradients: Sequence[Tensor | None], widths: Sequence[int]) -> list[Tensor | None]:
        """The gradients of what was given, from those of the outputs; None is zero.

        Args:
            gradients: of the outputs.
            widths: the third dimension of each tensor that was given.
        """
        wanted = [gradient for gradient, without in zip(gradients, self.without_gradient, strict=True) if not without]
        for room, gradient in zip(self._pulls, wanted, strict=True):
            if gradient is None:
                room.zero_()
            else:
                fill(room, gradient)
        found = iter(self._backward())
        self._user = None
        each = [next(found) if static.requires_grad else None for static in self._inputs]
        return [
            None if one is None else one.narrow(2, 0, width).clone() for one, width in zip(each, widths, strict=True)
        ]

    def _run(self) -> None:
        k, r, t = self._shape.grid
        new: list[Segment] = []

        def mix(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            q, *pair = (of.view(k * r, t, *of.shape[2:]).transpose(1, 2) for of in (query, key, value))
            new.append((pair[0], pair[1]))
            mixed = attend(q, [*self._segments(layer), new[-1]], self._bias)  # (K R, H, T, d)
            return mixed.transpose(1, 2).reshape(query.shape)

        with torch.enable_grad(), self._adapters.on():
            states = self._layers(self._ids.flatten(1), self._positions.flatten(1), mix)  # (K, R T, D)
            states = states.view(k, r, t, -1)  # (K, R, T, D)
        keys, values = zip(*new, strict=True)
        self._outputs = [states, *(keys + values if self._shape.keeps else ())]

    def _run_and_pull(self) -> None:
        self._run()
        self._pull()

    def _pull(self) -> tuple[Tensor | None, ...]:
        outputs = [output for output in self._outputs if output.requires_grad]
        inputs = [static for static in self._inputs if static.requires_grad]
        return torch.autograd.grad(outputs, inputs, self._pulls, allow_unused=True)

    def _segments(self, layer: int) -> list[Segment]:
        each = 2 * self._shape.segments
        parts = self._before[layer * each : (layer + 1) * each]
        return list(zip(parts[::2], parts[1::2], strict=True))


class _Launch(torch.autograd.Function):
    """A pass as a function of keys, values and adapters."""

    @staticmethod
    def forward(ctx: Any, of: StaticPass, tokens: int, *given: Tensor) -> tuple[Tensor, ...]:
        """The outputs, of so many tokens."""
        ctx.of, ctx.widths = of, [part.shape[2] for part in given]
        ctx.set_materialize_grads(False)
        outputs = of.launch(given, tokens, ctx)
        ctx.mark_non_differentiable(*(o for o, without in zip(outputs, of.without_gradient, strict=True) if without))
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        """Theirs."""
        return None, None, *ctx.of.pull(gradients, ctx.widths)
