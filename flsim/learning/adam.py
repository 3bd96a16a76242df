"""Adam for K devices at once, each with its own moments, step count and clipped gradient (Kingma and Ba 2015).

Equal to `torch.optim.Adam` after `clip_grad_norm_` run for each device alone; the update is torch's own fused kernel.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.adam import adam


@dataclass(frozen=True)
class AdamState:
    """What the optimizer keeps of K devices."""

    first: Tensor
    """First moment `(K, n)`."""
    second: Tensor
    """Second moment `(K, n)`."""
    steps: Tensor
    """Steps taken by each device `(K,)`."""


def fresh_state(devices: int, size: int) -> AdamState:
    """Zero moments for `devices` rows of `size` parameters."""
    return AdamState(torch.zeros(devices, size), torch.zeros(devices, size), torch.zeros(devices))


@dataclass(frozen=True)
class Adam:
    """The settings of the update."""

    lr: float = 1.5e-3
    beta1: float = 0.9
    beta2: float = 0.99
    epsilon: float = 1e-8
    clip_norm: float = 1.0
    """Largest gradient norm of a device, part by part; longer gradients are scaled down to it."""

    @torch.no_grad()
    def step(self, theta: Tensor, gradient: Tensor, state: AdamState, parts: Sequence[int] = ()) -> None:
        """One update of theta `(K, n)` along `gradient` `(K, n)`; all of them, and the state, are changed in place.

        Args:
            theta: the parameters.
            gradient: theirs.
            state: the moments.
            parts: lengths of consecutive stretches of a row, each clipped by its own norm: of what is learned from
                another loss, a long gradient would shorten the rest. None given is one stretch.
        """
        for part in gradient.split(list(parts), 1) if parts else (gradient,):
            norm = part.norm(dim=1, keepdim=True)  # (K, 1)
            part.mul_((self.clip_norm / (norm + 1e-6)).clamp(max=1.0))  # (K, n of the part)
        adam(
            list(theta.unbind()),
            list(gradient.unbind()),
            list(state.first.unbind()),
            list(state.second.unbind()),
            [],
            list(state.steps.unbind()),
            fused=True,
            amsgrad=False,
            beta1=self.beta1,
            beta2=self.beta2,
            lr=self.lr,
            weight_decay=0.0,
            eps=self.epsilon,
            maximize=False,
        )
        torch.autograd.graph.increment_version(theta)  # the fused kernel does not, and copies of theta look at it
