"""Where a model is cut: the hidden states that go into one of its layers pass a seam, and the rest sees nothing else.

What stands below the seam can be held by one party and what stands above it by another, as each layer of a decoder is a
function of what the layer below it gives, of the positions, and of its own keys and values.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from flsim.models.builtin_llama import AnyModel


class Seam:
    """Between two layers."""

    def __init__(self, layer: int, send: Callable[[Tensor], Tensor]) -> None:
        """Say where it is.

        Args:
            layer: how many layers lie below it.
            send: what arrives above of states `(..., D)` from below, in their shape and dtype.
        """
        self.layer, self._send = layer, send
        self.came = torch.empty(0)
        """What came last from below, `(..., D)`."""

    def cross(self, layer: int, states: Tensor) -> Tensor:
        """What goes into a layer, counted from 0, in the place of the states `(..., D)` that came out below it."""
        if layer != self.layer:
            return states
        self.came = states
        return self._send(states)  # (..., D)

    @contextmanager
    def within(self, model: AnyModel) -> Iterator[None]:
        """Lies in a model's own forward meanwhile, and in no other call of it."""

        def cross(_: nn.Module, args: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[tuple[Any, ...], Any]:
            if args:
                return (self.cross(self.layer, args[0]), *args[1:]), named
            return args, {**named, "hidden_states": self.cross(self.layer, named["hidden_states"])}

        handle = body_of(model)[1][self.layer].register_forward_pre_hook(cross, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()


def body_of(model: AnyModel) -> tuple[nn.Module, nn.ModuleList]:
    """What holds the layers of a decoder, and these.

    Raises:
        TypeError: if it has no list of as many modules as its config says layers.
    """
    count = model.config.get_text_config().num_hidden_layers
    for module in model.modules():
        for child in module.children():
            if isinstance(child, nn.ModuleList) and len(child) == count:
                return module, child
    raise TypeError(f"{type(model).__name__} has no list of its {count} layers, so that it cannot be cut")
