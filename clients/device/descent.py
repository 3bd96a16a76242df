"""The steps of devices that learn a module: their optimizer, what else pulls at them, and what they note of it.

FedProx adds `mu / 2 ||x - x_sent||^2` to a device's loss (Li et al. 2020, arXiv 1812.06127, eq. 2). FedDyn adds
`alpha / 2 ||x - x_sent||^2 - <h, x>` with the device's own h, which then moves by `-alpha (x - x_sent)` (Acar et al.
2021, arXiv 2111.04263, Algorithm 1).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from flwr.app import ArrayRecord, Context, Message
from torch import Tensor

import flsim.flower.messages as wire
from clients.device.counts import Counts
from flsim.cloud.protocol import Basket
from flsim.flower.arrays import to_adapter, to_arrays
from flsim.learning.adam import Adam, AdamState, fresh_state
from flsim.metrics.rows import EVERY_TASK, Row, Subject
from flsim.models.stacked_module import StackedModule

_DYNAMIC = "dynamic"  # in a device's state: its h of FedDyn


@dataclass
class Noted:
    """What a device saw in a round."""

    examples: int
    """That it holds of the round's tasks."""
    seen: float = 0.0
    """Examples of all steps."""
    loss: float = 0.0
    """Sum of their cross-entropies before the steps, in nats."""
    right: float = 0.0
    """How many it had right before the steps."""

    def add(self, count: float, loss: float, right: float) -> None:
        """Enter one step with the mean loss of its examples; of none nothing is entered."""
        self.seen += count
        self.loss += count * loss
        self.right += right

    def counted(self, of: Subject, basket: Basket) -> list[Row]:
        """What its module and the cloud did, as rows: examples of all steps, and of tokens none.

        Args:
            of: the device's training in the round.
            basket: what went to the cloud and came back.
        """
        facts = Counts().facts(basket) | {"learned_examples": (self.seen, 1.0)}
        return [of.row(name, *pair, task=EVERY_TASK) for name, pair in facts.items()]


@dataclass(frozen=True)
class Descent:
    """SGD with momentum, or Adam, of k devices; fresh in every round."""

    lr: float
    momentum: float
    clip_norm: float | None
    velocity: Tensor | None
    """Of SGD with momentum, `(k, n)`."""
    moments: AdamState | None
    """Of Adam."""

    @classmethod
    def fresh(cls, theta: Tensor, *, lr: float, optimizer: str, momentum: float, clip_norm: float | None) -> Self:
        """For theta `(k, n)`."""
        velocity = torch.zeros_like(theta) if momentum else None  # (k, n)
        moments = fresh_state(*theta.shape) if optimizer == "adam" else None
        return cls(lr, momentum, clip_norm, velocity, moments)

    def step(self, theta: Tensor, blocks: Sequence[Tensor], active: Tensor) -> None:
        """Move the devices that are active `(k,)`.

        Args:
            theta: what they hold, `(k, n)`.
            blocks: their gradients, `(k, m)` each, side by side as in theta; they may be changed.
            active: who moves.
        """
        rows = range(len(theta)) if bool(active.all()) else active.nonzero()[:, 0].tolist()
        if self.clip_norm is None and self.velocity is None and self.moments is None:
            for own, block in zip(theta.split([block.shape[1] for block in blocks], 1), blocks, strict=True):
                for k in rows:
                    own[k].sub_(block[k], alpha=self.lr)
            return
        self._step(theta, torch.cat(list(blocks), 1), rows)

    def _step(self, theta: Tensor, gradient: Tensor, rows: Sequence[int]) -> None:
        """With all that may be set; gradient `(k, n)` is changed."""
        if self.clip_norm is not None:
            norm = gradient.norm(dim=1, keepdim=True)  # (k, 1)
            gradient.mul_((self.clip_norm / (norm + 1e-6)).clamp(max=1.0))  # (k, n)
        if self.moments is None:
            for k in rows:
                direction = gradient[k]  # (n,)
                if self.velocity is not None:
                    direction = self.velocity[k].mul_(self.momentum).add_(direction)  # (n,)
                theta[k].sub_(direction, alpha=self.lr)
            return
        state = self.moments
        adam = Adam(lr=self.lr, beta2=0.999, clip_norm=torch.inf)  # it is clipped already
        for k in rows:
            one = AdamState(state.first[k : k + 1], state.second[k : k + 1], state.steps[k : k + 1])
            adam.step(theta[k : k + 1], gradient[k : k + 1], one)


@dataclass(frozen=True)
class Pulls:
    """What ties k devices to what they were sent."""

    mu: list[float]
    """FedProx's, of each device; 0 is none."""
    alpha: list[float]
    """FedDyn's, likewise."""
    linear: list[Tensor | None]
    """FedDyn's h of each device, `(n,)`; None where it is zero still."""

    @classmethod
    def of(cls, stacked: StackedModule, messages: Sequence[Message], contexts: Sequence[Context]) -> Self:
        """As the messages ask for, with what the devices kept."""
        kept = [context.state.get(_DYNAMIC) for context in contexts]
        return cls(
            [wire.proximal_of(message) for message in messages],
            [wire.dynamic_of(message) for message in messages],
            [stacked.stack([to_adapter(own)])[0] if isinstance(own, ArrayRecord) else None for own in kept],
        )

    @property
    def active(self) -> bool:
        """Whether anybody is tied."""
        return any(self.mu) or any(self.alpha)

    def added(self, gradient: Tensor, theta: Tensor, start: Tensor) -> Tensor:
        """The gradient `(k, n)` with that of what pulls from theta to start, both `(k, n)`; changed in place."""
        for k, (mu, alpha, linear) in enumerate(zip(self.mu, self.alpha, self.linear, strict=True)):
            if k < len(gradient) and (mu or alpha):
                gradient[k].add_(theta[k] - start[k], alpha=mu + alpha)
                if alpha and linear is not None:
                    gradient[k].sub_(linear)
        return gradient

    def keep(self, stacked: StackedModule, contexts: Sequence[Context], theta: Tensor, start: Tensor) -> None:
        """FedDyn's h for the next round, in the devices' states."""
        for k, (context, alpha, linear) in enumerate(zip(contexts, self.alpha, self.linear, strict=True)):
            if alpha:
                moved = alpha * (theta[k] - start[k])  # (n,)
                new = -moved if linear is None else linear - moved  # (n,)
                context.state[_DYNAMIC] = to_arrays(stacked.unstack(new[None])[0])
