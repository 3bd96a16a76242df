"""Any torch module, K devices at a time: what it learns as rows of one tensor, and its gradients by `torch.func`.

What is learned are the module's parameters that want a gradient; the rest, such as a frozen encoder under LoRA, is
shared. Where the rows are small, K devices are one batch of larger products (`vmap`); where one row fills a cache by
itself, they go one after another, which is faster then. The sums are those of training each device alone, up to
rounding.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from flsim.models.adapter import Adapter

_TOGETHER = 2**21
"""Parameters that are trained as one batch, 8 MiB: beyond it memory traffic takes what larger products bring."""


@dataclass(frozen=True)
class Weights:
    """How much a teacher's parts count beside the right class (DistilBERT's, Sanh et al. 2019, arXiv 1910.01108)."""

    hard: float = 2.0
    """Of the cross-entropy with the right class; of examples that nobody taught it is the whole loss."""
    soft: float = 5.0
    """Of `T^2 KL(teacher || student)`."""
    aligned: float = 1.0
    """Of one minus the cosine of hidden states."""
    temperature: float = 2.0
    """T of the soft targets."""


@dataclass(frozen=True)
class Taught:
    """What a teacher said of k devices' batches, and how much it counts."""

    logits: Tensor
    """`(k, B, C)`."""
    states: Tensor
    """Its hidden states, `(k, B, D)`; D is 0 where they do not count."""
    known: Tensor
    """1 for examples that it said something of, else 0, `(k, B)`."""
    weights: Weights


@dataclass(frozen=True)
class Step:
    """What one batch says to k devices."""

    blocks: tuple[Tensor, ...]
    """The gradient of each device's mean cross-entropy: `(k, m)` of each parameter in turn, or `(k, n)` of all."""
    losses: Tensor
    """That mean, `(k,)`."""
    right: Tensor
    """How many examples each device had right before the step, `(k,)`."""

    @property
    def gradient(self) -> Tensor:
        """The blocks as one, `(k, n)`; of a large module to bring them together takes longer than a step along them."""
        return self.blocks[0] if len(self.blocks) == 1 else torch.cat(self.blocks, 1)


class StackedModule:
    """A module whose learned parameters K devices hold, each its own."""

    def __init__(self, module: nn.Module) -> None:
        """Take a module, which is used without dropout, as `eval` leaves it.

        Args:
            module: maps inputs `(N, ...)` to logits `(N, C)`.

        Raises:
            ValueError: if it learns nothing, or keeps running statistics, which are no parameters and could not be
                averaged as such.
        """
        self.module = module.eval()
        counting = [name for name, one in module.named_modules() if getattr(one, "track_running_stats", False)]
        if counting:
            raise ValueError(
                f"{type(module).__name__}.{counting[0]} keeps running statistics, which differ on every device and "
                f"are no parameters; take nn.GroupNorm, or track_running_stats=False"
            )
        learned = {name: value for name, value in module.named_parameters() if value.requires_grad}
        if not learned:
            raise ValueError(f"{type(module).__name__} has no parameter that wants a gradient")
        self._shapes = {name: value.shape for name, value in learned.items()}
        self._rest: dict[str, Tensor] = {
            **{name: value.detach() for name, value in module.named_parameters() if name not in learned},
            **dict(module.named_buffers()),
        }
        self.first: Adapter = {
            name: np.array(value.detach().float().numpy(), order="C") for name, value in learned.items()
        }
        """What is learned, as the module holds it."""

    @property
    def size(self) -> int:
        """n, how many numbers a device learns."""
        return sum(math.prod(shape) for shape in self._shapes.values())

    def stack(self, states: Sequence[Mapping[str, NDArray[Any]]]) -> Tensor:
        """What K devices have learned as one tensor `(K, n)`."""
        theta = np.empty((len(states), self.size), dtype=np.float32)  # (K, n)
        for row, state in zip(theta, states, strict=True):
            np.concatenate([state[name].ravel() for name in self._shapes], out=row)
        return torch.from_numpy(theta)  # (K, n)

    def unstack(self, theta: Tensor) -> list[Adapter]:
        """The same by names, for each row of theta `(K, n)`; views."""
        return [{name: value.numpy() for name, value in self._named(row).items()} for row in theta]

    @property
    def together(self) -> int:
        """How many devices are trained as one batch; one at a time of a module that says `batched = False`."""
        return max(1, _TOGETHER // self.size) if getattr(self.module, "batched", True) else 1

    def learn(
        self, theta: Tensor, inputs: Tensor, labels: Tensor, weights: Tensor, taught: Taught | None = None
    ) -> Step:
        """The gradient of each device's mean cross-entropy over its examples, and what came of them.

        Args:
            theta: what k devices hold, `(k, n)`, at most `together` of them.
            inputs: of the module, `(k, B, ...)`.
            labels: the right classes, `(k, B)`.
            weights: 1 for examples, 0 for filling, `(k, B)`; a device without examples has a gradient of zero.
            taught: what a teacher said of them, for a module that is trained one device at a time; None is no teacher.
        """
        if len(theta) == 1:
            named = {name: value.detach().requires_grad_() for name, value in self._named(theta[0]).items()}
            if taught is None:
                loss, logits = _mean_loss(self._forward(named, inputs[0]), labels[0], weights[0])  # () and (B, C)
            else:
                loss, logits = self._taught_loss(named, inputs[0], labels[0], weights[0], taught)  # () and (B, C)
            parts = torch.autograd.grad(loss, list(named.values()))
            blocks = tuple(part.reshape(1, -1) for part in parts)  # (1, m) each
            losses, said = loss.detach()[None], logits.detach()[None]  # (1,) and (1, B, C)
        else:
            per_device = vmap(grad_and_value(self._loss, has_aux=True))
            found, (losses, said) = per_device(theta, inputs, labels, weights)  # (k, n), (k,), (k, B, C)
            blocks = (found,)
        right: Tensor = (said.argmax(-1) == labels) * weights  # (k, B)
        return Step(blocks, losses, right.sum(1))

    @torch.no_grad()
    def logits(self, theta: Tensor, inputs: Tensor) -> Tensor:
        """What each device's module says to its inputs `(K, B, ...)`: `(K, B, C)`.

        Of one row of theta `(1, n)` for all devices the inputs are read as one batch.
        """
        logits: Tensor
        if len(theta) == 1:
            flat: Tensor = self._forward(self._named(theta[0]), inputs.flatten(0, 1))  # (K B, C)
            logits = flat.unflatten(0, inputs.shape[:2])  # (K, B, C)
            return logits
        rows = [self._forward(self._named(row), own) for row, own in zip(theta, inputs, strict=True)]
        return torch.stack(rows)  # (K, B, C)

    def _loss(self, row: Tensor, inputs: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        return _mean_loss(self._forward(self._named(row), inputs), labels, weights)

    def _taught_loss(
        self, named: Mapping[str, Tensor], inputs: Tensor, labels: Tensor, weights: Tensor, taught: Taught
    ) -> tuple[Tensor, Tensor]:
        """Of one device, with a teacher: a mean over its examples `(B, ...)`, and the logits `(B, C)`."""
        said = functional_call(self.module, {**self._rest, **named}, (inputs,), {"states": taught.states.numel() > 0})
        logits, states = said if isinstance(said, tuple) else (said, None)
        known, own = taught.known[0], taught.weights  # (B,)
        each = F.cross_entropy(logits, labels, reduction="none") * torch.where(known > 0, own.hard, 1.0)  # (B,)
        each = each + own.soft * known * soft_loss(logits, taught.logits[0], own.temperature)  # (B,)
        if states is not None:
            each = each + own.aligned * known * state_loss(states, taught.states[0])  # (B,)
        return (each * weights).sum() / weights.sum().clamp(min=1.0), logits

    def _forward(self, named: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        logits: Tensor = functional_call(self.module, {**self._rest, **named}, (inputs,))
        return logits

    def _named(self, row: Tensor) -> dict[str, Tensor]:
        """The parameters in a row `(n,)`, by name: views."""
        parts = row.split([math.prod(shape) for shape in self._shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(self._shapes.items(), parts, strict=True)}


def _mean_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of logits `(B, C)` over the examples that count, and the logits."""
    each = F.cross_entropy(logits, labels, reduction="none")  # (B,)
    return (each * weights).sum() / weights.sum().clamp(min=1.0), logits


def soft_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """`T^2 KL(softmax(teacher / T) || softmax(student / T))` of each example, in nats, `(B,)` from logits `(B, C)`.

    Hinton, Vinyals and Dean 2015 (arXiv 1503.02531); T^2 keeps the gradient's size. By hand: equal logits give 0; with
    T = 1 a teacher's (log 3, 0) and a student's (0, 0) give 0.75 log 1.5 + 0.25 log 0.5 = 0.1308.
    """
    target = (teacher / temperature).log_softmax(-1)  # (B, C)
    said = (student / temperature).log_softmax(-1)  # (B, C)
    return temperature**2 * (target.exp() * (target - said)).sum(-1)  # (B,)


def state_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """One minus the cosine of hidden states `(B, D)`, `(B,)`, as DistilBERT aligns them (Sanh 2019, 1910.01108)."""
    return 1.0 - F.cosine_similarity(student, teacher, dim=-1)  # (B,)
