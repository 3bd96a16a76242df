"""Adam for K devices at once, each with its own moments, step count and clipped gradient (Kingma and Ba 2015).

Equal to `torch.optim.Adam` after `clip_grad_norm_` run for each device alone.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


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
    """Largest gradient norm of a device; longer gradients are scaled down to it."""

    @torch.no_grad()
    def step(self, theta: Tensor, gradient: Tensor, state: AdamState) -> tuple[Tensor, AdamState]:
        """One update of theta `(K, n)` along `gradient` `(K, n)`; returns new tensors."""
        norm = gradient.norm(dim=1, keepdim=True)  # (K, 1)
        gradient = gradient * (self.clip_norm / (norm + 1e-6)).clamp(max=1.0)  # (K, n)
        steps = state.steps + 1  # (K,)
        first = state.first.lerp(gradient, 1 - self.beta1)  # (K, n)
        second = self.beta2 * state.second + (1 - self.beta2) * gradient**2  # (K, n)
        scale1 = 1 - self.beta1 ** steps[:, None]  # (K, 1)
        scale2 = 1 - self.beta2 ** steps[:, None]  # (K, 1)
        step = (first / scale1) / ((second / scale2).sqrt() + self.epsilon)  # (K, n)
        return theta - self.lr * step, AdamState(first, second, steps)
