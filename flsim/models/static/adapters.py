"""A pack's adapters in tensors that stay where they are, as captured work needs them (`capturing.py`)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from flsim.models.lora_linear import StackedLoraLinear, unequal

Signature = tuple[int, torch.Size]
"""How many layers carry an adapter, and the shape of the first A, `(K, r, in)`; empty while there is none."""


def _adapted(model: nn.Module) -> list[StackedLoraLinear]:
    """The layers with an adapter attached, in the model's order."""
    return [layer for layer in model.modules() if isinstance(layer, StackedLoraLinear) and layer.factors is not None]


def _factors(layer: StackedLoraLinear) -> tuple[Tensor, Tensor, Tensor]:
    """A `(K, r, in)`, B `(K, r, out)` and the scale `(K, 1, 1)`, as they are attached."""
    found = layer.factors
    assert found is not None, "the adapters that it was made for were taken off"
    return found


def signature_of(model: nn.Module) -> Signature:
    """Of the adapters that are attached; tensors made for equal ones fit."""
    layers = _adapted(model)
    return len(layers), _factors(layers[0])[0].shape if layers else torch.Size()


def attached(model: nn.Module) -> list[Tensor]:
    """A `(K, r, in)` and B `(K, r, out)` of every layer that has them, as they are attached."""
    return [part for layer in _adapted(model) for part in _factors(layer)[:2]]


class StaticAdapters:
    """Copies of the adapters that were attached when it was made."""

    def __init__(self, model: nn.Module) -> None:
        self._layers = _adapted(model)
        self.parts = [torch.empty_like(part, memory_format=torch.contiguous_format) for part in attached(model)]
        """A and B of every layer."""
        self._scales = [_factors(layer)[2].clone() for layer in self._layers]  # (K, 1, 1) each

    @torch.no_grad()
    def take(self) -> None:
        """Copy the adapters that are attached now, with their scales."""
        live = [part for layer in self._layers for part in _factors(layer)[:2]]
        for own, part in zip(self.parts, live, strict=True):
            own.copy_(part)
        self.take_scales()

    @torch.no_grad()
    def take_scales(self) -> None:
        """Copy the scales alone."""
        for own, layer in zip(self._scales, self._layers, strict=True):
            own.copy_(_factors(layer)[2])

    @contextmanager
    def on(self) -> Iterator[None]:
        """Within the block the layers meet the copies, and every device has equally many tokens."""
        copies = zip(self.parts[::2], self.parts[1::2], self._scales, strict=True)
        for layer, own in zip(self._layers, copies, strict=True):
            layer.put(own)
        try:
            with unequal(None):
                yield
        finally:
            for layer in self._layers:
                layer.put(None)
