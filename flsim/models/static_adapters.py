"""A pack's adapters in tensors that stay where they are, as captured work needs them (`flsim/models/capturing.py`)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from flsim.models.stacked_lora import StackedLoraLinear, unequal

Signature = tuple[int, torch.Size]
"""How many layers carry an adapter, and the shape of the first A, `(K, r, in)`; empty while there is none."""


def _adapted(model: nn.Module) -> list[StackedLoraLinear]:
    """The layers with an adapter attached, in the model's order."""
    return [layer for layer in model.modules() if isinstance(layer, StackedLoraLinear) and layer.a is not None]


def signature_of(model: nn.Module) -> Signature:
    """Of the adapters that are attached; tensors made for equal ones fit."""
    layers = _adapted(model)
    return len(layers), layers[0].a.shape if layers and layers[0].a is not None else torch.Size()


def attached(model: nn.Module) -> list[Tensor]:
    """A `(K, r, in)` and B `(K, r, out)` of every layer that has them, as they are attached."""
    return [part for layer in _adapted(model) for part in (layer.a, layer.b) if part is not None]


class StaticAdapters:
    """Copies of the adapters that were attached when it was made."""

    def __init__(self, model: nn.Module) -> None:
        self._layers = _adapted(model)
        self.parts = [torch.empty_like(part, memory_format=torch.contiguous_format) for part in attached(model)]
        """A and B of every layer."""
        self._scales = [layer.scale.clone() for layer in self._layers if layer.scale is not None]  # (K, 1, 1) each

    @torch.no_grad()
    def take(self) -> None:
        """Copy the adapters that are attached now, with their scales."""
        live = [part for layer in self._layers for part in (layer.a, layer.b)]
        for own, part in zip(self.parts, live, strict=True):
            assert part is not None, "the adapters that it was made for were taken off"
            own.copy_(part)
        self.take_scales()

    @torch.no_grad()
    def take_scales(self) -> None:
        """Copy the scales alone."""
        for own, layer in zip(self._scales, self._layers, strict=True):
            assert layer.scale is not None, "the adapters that it was made for were taken off"
            own.copy_(layer.scale)

    @contextmanager
    def on(self) -> Iterator[None]:
        """Within the block the layers meet the copies, and every device has equally many tokens."""
        before = [(layer.a, layer.b, layer.scale) for layer in self._layers]
        self._put_on(list(zip(self.parts[::2], self.parts[1::2], self._scales, strict=True)))
        try:
            with unequal(None):
                yield
        finally:
            self._put_on(before)

    def _put_on(self, parts: Sequence[tuple[Tensor | None, Tensor | None, Tensor | None]]) -> None:
        for layer, (a, b, scale) in zip(self._layers, parts, strict=True):
            layer.a, layer.b, layer.scale = a, b, scale
