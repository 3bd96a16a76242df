"""K LoRA adapters on one frozen base: the rows of a batch are K equal blocks, and each block meets its own adapter.

For block k: `y = W x + (alpha / r_k) B_k A_k x` (Hu et al. 2021, arXiv 2106.09685), computed for all k by batched
matrix products. The K adapters lie in one flat tensor `theta` of shape `(K, n)`, so that an optimizer step, a norm per
device and a gradient are one line each; because blocks never mix, the result equals K separate models.

What devices learn beside LoRA (an adapter's extras, such as a head) lies behind it in the same row, and no layer reads
it: whoever learns it takes it from theta (`StackedLora.extras`) and puts its gradient at `place_of_extras`.

Devices may have unequal ranks: a smaller adapter is padded with zero rows of A and B^T. That is exact: the padded A
meets a zero B and the padded B a zero A, so their gradients are zero and they stay zero.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flsim.models.adapter import Adapter, extras_of, factor_of, lora_of
from flsim.models.builtin_llama import AnyModel
from flsim.models.lora_linear import Attached, StackedLoraLinear

_PREFIX = "base_model.model."


@dataclass(frozen=True)
class _Slot:
    """One layer, the names of its tensors, and its widths."""

    layer: StackedLoraLinear
    name_a: str
    name_b: str
    inputs: int
    outputs: int


class StackedLora:
    """A base model whose targeted linear layers carry K adapters at a time.

    A row of theta holds, layer by layer, A as `(r, in)` and B transposed as `(r, out)`, with r the widest rank; after
    them the extras.
    """

    def __init__(self, base: AnyModel, like: Adapter, scale: float) -> None:
        """Wrap the layers that `like` names.

        Args:
            base: any decoder-only model; its targeted linear layers are replaced in place and frozen.
            like: an adapter of the widest rank that a device may have; tensors beside LoRA that it does not hold are
                left out of what is stacked.
            scale: alpha / r of that rank; a device of rank r_k gets alpha / r_k unless `attach` is told otherwise.
        """
        self.model: Any = base.eval().requires_grad_(False)
        self.rank = rank_of(like)
        self.scale = scale
        self._slots: list[_Slot] = []
        self._attached: Attached | None = None
        self._frozen: list[Tensor] = []  # the base's own weights, while something is merged into them
        self.on: dict[str, Tensor] = {}
        """The extras of the adapters that are on, by name, `(K, ...)` each."""
        self._extras = {name: tensor.shape for name, tensor in extras_of(like).items()}
        self._beside = sum(math.prod(shape) for shape in self._extras.values())  # how many numbers of a row are extras
        names = list(lora_of(like))
        for name_a, name_b in zip(names[::2], names[1::2], strict=True):
            path = name_a.removeprefix(_PREFIX).removesuffix(".lora_A.weight")
            if name_b != f"{_PREFIX}{path}.lora_B.weight":
                raise ValueError(f"expected lora_A and lora_B of one layer side by side, found {name_a} and {name_b}")
            parent_path, _, child = path.rpartition(".")
            parent = base.get_submodule(parent_path)
            layer = StackedLoraLinear(parent.get_submodule(child), len(self._slots))
            setattr(parent, child, layer)
            self._slots.append(_Slot(layer, name_a, name_b, like[name_a].shape[1], like[name_b].shape[0]))
        # of A and B of every layer, in theta's order
        self._widths = [width for slot in self._slots for width in (slot.inputs, slot.outputs)]

    def size(self, rank: int) -> int:
        """n, the number of parameters of an adapter of this rank."""
        return rank * sum(self._widths) + self._beside

    @property
    def place_of_extras(self) -> slice:
        """Where the extras lie in a row of theta, and of its gradient."""
        return slice(self.rank * sum(self._widths), None)

    @property
    def parts(self) -> tuple[int, ...]:
        """The lengths of LoRA's part of a row of theta and, if there are any, of the extras'."""
        lora = self.rank * sum(self._widths)
        return (lora, self._beside) if self._beside else (lora,)

    def extras(self, theta: Tensor) -> dict[str, Tensor]:
        """What lies beside LoRA in theta `(K, n)`, each `(K, ...)` of its own shape: views, which move with it."""
        rows = theta[:, self.place_of_extras].split([math.prod(shape) for shape in self._extras.values()], 1)
        return {
            name: row.view(len(theta), *shape) for (name, shape), row in zip(self._extras.items(), rows, strict=True)
        }

    def stack(self, adapters: Sequence[Adapter]) -> Tensor:
        """Lay K adapters into one flat tensor `(K, n)`, in float32, padded to the widest rank.

        Raises:
            ValueError: if one has a rank above the widest.
        """
        flats: dict[int, Tensor] = {}  # a pack that was sent one adapter holds it once
        for adapter in adapters:
            if id(adapter) not in flats:
                flats[id(adapter)] = torch.from_numpy(self._flat(adapter))  # (n_k,)
        return self.pad([flats[id(adapter)] for adapter in adapters], ranks_of(adapters))

    def unstack(self, theta: Tensor, ranks: Sequence[int] | None = None) -> list[Adapter]:
        """The K adapters of a flat tensor `(K, n)`; `ranks` None means the widest for all."""
        ranks = [self.rank] * len(theta) if ranks is None else ranks
        flats = self.crop(theta.detach().float().cpu(), ranks)
        return [self._adapter(flat.numpy(), rank) for flat, rank in zip(flats, ranks, strict=True)]

    def pad(self, flats: Sequence[Tensor], ranks: Sequence[int]) -> Tensor:
        """Rows of unequal ranks, each `(n_k,)`, as one tensor `(K, n)` with zeros where a rank has no parameters."""
        device = self.model.device
        theta = torch.zeros(len(flats), self.size(self.rank))
        for row, flat, rank in zip(theta, flats, ranks, strict=True):
            row[self._places(rank)] = flat
        if device.type == "cuda":
            return theta.pin_memory().to(device, non_blocking=True)
        return theta.to(device)  # (K, n)

    def crop(self, theta: Tensor, ranks: Sequence[int]) -> list[Tensor]:
        """The inverse of `pad`: copies `(n_k,)` of each row."""
        return [row[self._places(rank)].clone() for row, rank in zip(theta, ranks, strict=True)]

    def attach(
        self,
        theta: Tensor | None,
        ranks: Sequence[int] | None = None,
        scales: Sequence[float] | None = None,
        *,
        train: bool = False,
    ) -> None:
        """From now on the model's K row blocks meet the adapters of theta `(K, n)`; None means the base alone.

        Args:
            theta: of K devices; with K = 1 all rows meet one adapter.
            ranks: of the devices; None means the widest for all.
            scales: alpha / r of each device; None gives all devices the alpha of the widest.
            train: whether `backward` adds up gradients from now on, which `gradient` returns.
        """
        self.on = {} if theta is None else self.extras(theta)
        self._attached = None if theta is None else self._worn(theta, ranks, scales, train)
        for slot in self._slots:
            slot.layer.wear(self._attached)

    def _worn(
        self, theta: Tensor, ranks: Sequence[int] | None, scales: Sequence[float] | None, train: bool
    ) -> Attached:
        """Theta with what its devices' products are scaled by."""
        scales = (
            [self.scale * self.rank / rank for rank in ranks or [self.rank] * len(theta)] if scales is None else scales
        )
        scale = torch.tensor(scales, dtype=torch.float32, device=theta.device)[:, None, None]  # (K, 1, 1)
        shapes = [(self.rank, width) for width in self._widths]
        return Attached(theta, scale, shapes, self._beside, train=train)

    def gradient(self) -> Tensor:
        """What `backward` has added up since `attach`, `(K, n)`; zero at the extras, which no layer reads.

        It may be the very tensor that is added to, and is read before another `backward`.
        """
        assert self._attached is not None, "adapters are on"
        return self._attached.gradient()

    def belonging_to(self, factors: str) -> Tensor:
        """True `(n,)` at the parameters of the factors named: `A`, `B`, or `AB` for both; extras go with any."""
        marks = [
            torch.full((self.rank * width,), factor in factors)
            for slot in self._slots
            for factor, width in (("A", slot.inputs), ("B", slot.outputs))
        ]
        return torch.cat([*marks, torch.full((self._beside,), bool(factors))]).to(self.model.device)  # (n,)

    @torch.no_grad()
    def merge(self, residual: Adapter | None) -> None:
        """Add `B A` of a residual to the base's weights, `W0 + B A`; None restores W0, bit for bit.

        Args:
            residual: by tensor name, of any rank and of scale 1, for every layer that carries an adapter. It is added
                to W0 itself, not to what an earlier call left; in bfloat16 it is rounded with the weights.
        """
        weights = [slot.layer.base.get_parameter("weight") for slot in self._slots]
        if not self._frozen:
            self._frozen = [weight.detach().clone() for weight in weights]
        for slot, weight, frozen in zip(self._slots, weights, self._frozen, strict=True):
            weight.copy_(frozen)
            if residual is not None:
                b, a = (torch.from_numpy(residual[name]).to(weight.device) for name in (slot.name_b, slot.name_a))
                weight.add_((b @ a).to(weight.dtype))  # (out, in)
        if residual is None:
            self._frozen = []

    def _places(self, rank: int) -> Tensor | slice:
        """Where the parameters of an adapter of this rank lie in a row of theta."""
        if rank == self.rank:
            return slice(None)
        if rank > self.rank:
            raise ValueError(f"an adapter of rank {rank} does not fit into slots of rank {self.rank} (model.rank)")
        runs, start = [], 0
        for width in self._widths:
            runs.append(torch.arange(start, start + rank * width))
            start += self.rank * width
        return torch.cat([*runs, torch.arange(start, start + self._beside)])

    def _flat(self, adapter: Adapter) -> NDArray[np.float32]:
        """`(n_k,)`, the tensors of one adapter in theta's order."""
        pairs = ((adapter[slot.name_a], adapter[slot.name_b].T) for slot in self._slots)
        flat = [tensor.ravel() for pair in pairs for tensor in pair]
        return np.concatenate([*flat, *(adapter[name].ravel() for name in self._extras)]).astype(np.float32, copy=False)

    def _adapter(self, flat: NDArray[np.float32], rank: int) -> Adapter:
        adapter: Adapter = {}
        start = 0
        for slot in self._slots:
            middle = start + rank * slot.inputs
            end = middle + rank * slot.outputs
            adapter[slot.name_a] = flat[start:middle].reshape(rank, -1).copy()
            adapter[slot.name_b] = np.ascontiguousarray(flat[middle:end].reshape(rank, -1).T)
            start = end
        for name, shape in self._extras.items():
            end = start + math.prod(shape)
            adapter[name] = flat[start:end].reshape(shape).copy()
            start = end
        return adapter


def rank_of(adapter: Adapter) -> int:
    """r, the rank of an adapter: rows of its first A."""
    first = next(tensor for name, tensor in adapter.items() if factor_of(name) == "A")  # (r, in)
    return len(first)


def ranks_of(adapters: Sequence[Adapter]) -> list[int]:
    """The rank of each."""
    return [rank_of(adapter) for adapter in adapters]
