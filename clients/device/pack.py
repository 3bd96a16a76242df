"""A pack of devices in the middle of its round: adapters, moments and dual variables as one batch, and the notes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from clients.device.anchor import Anchor
from clients.device.device import Device
from clients.device.notes import Notes
from clients.device.world import World
from flsim.cloud.protocol import NOTHING
from flsim.flower.messages import DeviceUpdate
from flsim.learning.adam import Adam, AdamState, fresh_state
from flsim.models.stacked_lora import ranks_of


@dataclass
class Pack:
    """What a learner moves; all tensors have a row per device."""

    world: World
    devices: Sequence[Device]
    ranks: list[int]
    """Of each device's adapter."""
    scales: list[float]
    """Alpha / r of each device."""
    theta: Tensor
    """The adapters `(K, n)`."""
    start: Tensor | None
    """The adapters as sent `(K, n)`; None where nobody needs them."""
    anchor: Anchor
    moments: AdamState
    dual: Tensor
    """lambda of each device, `(K,)`."""
    tau: Tensor
    """The share of its prompts that each device may send, `(K,)`."""
    notes: list[Notes]

    @classmethod
    def of(cls, world: World, devices: Sequence[Device], *, keep_start: bool = False) -> Self:
        """The pack as its round begins; devices without moments of an earlier one start with zeros."""
        ranks = ranks_of([device.adapter for device in devices])
        theta = world.lora.stack([device.adapter for device in devices])  # (K, n)
        return cls(
            world,
            devices,
            ranks,
            world.scales([device.index for device in devices], ranks),
            theta,
            theta.clone() if keep_start else None,
            Anchor.of(world.lora, theta, devices),
            _moments(world, devices, ranks),
            torch.tensor([device.dual for device in devices], device=theta.device),  # (K,)
            torch.tensor([device.ledger.budget.tau for device in devices], device=theta.device),  # (K,)
            [Notes(device, counts_cloud=world.cloud.costs != NOTHING) for device in devices],
        )

    def attach(self) -> None:
        """Put the adapters on, so that what is read from now on can be pulled back to them."""
        self.world.lora.attach(self.theta, self.ranks, self.scales, train=True)

    def attach_start(self) -> None:
        """Put on the adapters as they were sent, without gradient."""
        assert self.start is not None
        self.world.lora.attach(self.start, self.ranks, self.scales)

    def move(self, gradient: Tensor, adam: Adam) -> None:
        """One step of the optimizer along a gradient `(K, n)`; LoRA's part and the extras' are clipped apart."""
        adam.step(self.theta, self.anchor.pull(self.theta, gradient), self.moments, self.world.lora.parts)
        self.anchor.hold(self.theta)

    def finish(self, *, keep_optimizer: bool) -> list[DeviceUpdate]:
        """Leave with every device what it takes to its next round; one update each."""
        first, second = (self.world.lora.crop(m.cpu(), self.ranks) for m in (self.moments.first, self.moments.second))
        steps = self.moments.steps.cpu()  # (K,)
        for k, device in enumerate(self.devices):
            device.dual = float(self.dual[k]) if device.price is None else device.price
            device.optimizer = None
            if keep_optimizer:
                device.optimizer = AdamState(first[k][None], second[k][None], steps[k : k + 1])
        adapters = self.world.lora.unstack(self.theta, self.ranks)
        parts = zip(self.notes, self.devices, adapters, strict=True)
        return [note.update(device, adapter) for note, device, adapter in parts]


def _moments(world: World, devices: Sequence[Device], ranks: Sequence[int]) -> AdamState:
    rows = [
        fresh_state(1, world.lora.size(rank)) if device.optimizer is None else device.optimizer
        for device, rank in zip(devices, ranks, strict=True)
    ]
    first, second = (
        world.lora.pad(moment, ranks) for moment in zip(*((r.first[0], r.second[0]) for r in rows), strict=True)
    )
    return AdamState(first, second, torch.cat([row.steps for row in rows]).to(first.device))
