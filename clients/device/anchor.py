"""What ties devices to the adapters they were sent: factors that they may not learn, and FedProx's term."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from clients.device.device import Device
from flsim.models.stacked_lora import StackedLora


@dataclass(frozen=True)
class Anchor:
    """The adapters of a pack as they were sent, and how each device is held to them."""

    start: Tensor | None
    """`(K, n)`; None if nothing holds anybody."""
    fixed: Tensor | None
    """True `(K, n)` where a device may not learn; None if all may learn all."""
    mu: Tensor
    """Weight of `mu / 2 ||x - x_sent||^2` per device, `(K, 1)` (Li et al. 2020, arXiv 1812.06127, eq. 2)."""

    @classmethod
    def of(cls, lora: StackedLora, theta: Tensor, devices: Sequence[Device]) -> Self:
        """The anchor of a pack whose adapters are theta `(K, n)`."""
        mu = torch.tensor([[device.proximal] for device in devices], device=theta.device)  # (K, 1)
        fixed = None
        if any(device.learns != "AB" for device in devices):
            fixed = ~torch.stack([lora.belonging_to(device.learns) for device in devices])  # (K, n)
        free = fixed is None and not bool(mu.any())
        return cls(None if free else theta.clone(), fixed, mu)

    def pull(self, theta: Tensor, gradient: Tensor) -> Tensor:
        """The gradient `(K, n)` with the term's own, and zero where a device may not learn."""
        if self.start is None:
            return gradient
        pulled = gradient + self.mu * (theta - self.start)  # (K, n)
        return pulled if self.fixed is None else pulled.masked_fill(self.fixed, 0.0)

    def hold(self, theta: Tensor) -> None:
        """Undo, in theta `(K, n)`, what the optimizer's momentum did to factors that may not be learned."""
        if self.fixed is not None and self.start is not None:
            theta.copy_(torch.where(self.fixed, self.start, theta))
