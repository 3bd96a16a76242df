"""K LoRA adapters on one frozen base: the rows of a batch are K equal blocks, and each block meets its own adapter.

For block k: `y = W x + (alpha / r) B_k A_k x` (Hu et al. 2021, arXiv 2106.09685), computed for all k by two batched
matrix products. The K adapters lie in one flat tensor `theta` of shape `(K, n)`, so that an optimizer step, a norm per
device and a gradient are one line each; because blocks never mix, the result equals K separate models.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from flsim.models.adapter import Adapter

_PREFIX = "base_model.model."


class StackedLoraLinear(nn.Module):
    """A frozen linear layer plus K adapters; without adapters it is the frozen layer alone."""

    def __init__(self, base: nn.Linear, scale: float) -> None:
        super().__init__()
        self.base = base
        self.scale = scale
        self.a: Tensor | None = None  # (K, r, in), a view of theta
        self.b: Tensor | None = None  # (K, out, r), a view of theta

    def forward(self, x: Tensor) -> Tensor:
        """Map `(K * rows, T, in)` to `(K * rows, T, out)`."""
        y: Tensor = self.base(x)
        if self.a is None or self.b is None:
            return y
        blocks = x.reshape(self.a.shape[0], -1, x.shape[-1])  # (K, rows * T, in)
        low = torch.bmm(blocks, self.a.transpose(1, 2))  # (K, rows * T, r)
        delta = torch.bmm(low, self.b.transpose(1, 2))  # (K, rows * T, out)
        return y + self.scale * delta.view(y.shape)


@dataclass(frozen=True)
class _Slot:
    """Where one layer's A and B lie in a row of theta."""

    layer: StackedLoraLinear
    rank: int
    start: int
    middle: int
    end: int


class StackedLora:
    """A base model whose targeted linear layers carry K adapters at a time."""

    def __init__(self, base: PreTrainedModel, like: Adapter, scale: float) -> None:
        """Wrap the layers that `like` names.

        Args:
            base: any decoder-only model; its targeted linear layers are replaced in place and frozen.
            like: an adapter of the shape that all devices have.
            scale: alpha / r.
        """
        self.model = base.eval().requires_grad_(False)
        self.names = list(like)
        self.shapes = [like[name].shape for name in self.names]
        self._slots: list[_Slot] = []
        offset = 0
        for name_a, name_b in zip(self.names[::2], self.names[1::2], strict=True):
            path = name_a.removeprefix(_PREFIX).removesuffix(".lora_A.weight")
            if name_b != f"{_PREFIX}{path}.lora_B.weight":
                raise ValueError(f"expected lora_A and lora_B of one layer side by side, found {name_a} and {name_b}")
            parent_path, _, child = path.rpartition(".")
            parent = base.get_submodule(parent_path)
            layer = StackedLoraLinear(parent.get_submodule(child), scale)  # type: ignore[arg-type]
            setattr(parent, child, layer)
            middle = offset + like[name_a].size
            end = middle + like[name_b].size
            self._slots.append(_Slot(layer, like[name_a].shape[0], offset, middle, end))
            offset = end

    def stack(self, adapters: Sequence[Adapter]) -> Tensor:
        """Lay K adapters into one flat tensor `(K, n)`, in float32."""
        flat = np.stack([np.concatenate([adapter[name].ravel() for name in self.names]) for adapter in adapters])
        return torch.from_numpy(flat).to(self.model.device)  # (K, n)

    def unstack(self, theta: Tensor) -> list[Adapter]:
        """The K adapters of a flat tensor `(K, n)`."""
        rows: NDArray[np.float32] = theta.detach().float().cpu().numpy()
        splits = np.cumsum([int(np.prod(shape)) for shape in self.shapes])[:-1]
        return [
            {
                n: part.reshape(s).copy()
                for n, s, part in zip(self.names, self.shapes, np.split(row, splits), strict=True)
            }
            for row in rows
        ]

    def use(self, theta: Tensor | None) -> None:
        """From now on the model's K row blocks meet the adapters of theta `(K, n)`; None means the base alone."""
        for slot in self._slots:
            if theta is None:
                slot.layer.a = slot.layer.b = None
                continue
            k = theta.shape[0]
            slot.layer.a = theta[:, slot.start : slot.middle].view(k, slot.rank, -1)  # (K, r, in)
            slot.layer.b = theta[:, slot.middle : slot.end].view(k, -1, slot.rank)  # (K, out, r)
