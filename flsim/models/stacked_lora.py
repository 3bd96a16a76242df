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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import grouped_mm

from flsim.models.adapter import Adapter, extras_of, factor_of, lora_of
from flsim.models.builtin_llama import AnyModel

WASTE = 1.3
"""Filling devices up to equal numbers of tokens is the faster way as long as it adds less than this factor."""

_PREFIX = "base_model.model."


class _AddLora(torch.autograd.Function):
    """`y + scale * x A^T B^T` per device, written into y; the backward has one thin product per gradient.

    Plain autograd needs two more passes over the outputs and multiplies in layouts that are up to four times slower on
    a CPU, where these products are so thin (r = 8) that their layout is all that counts.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: Tensor, ends: Tensor | None) -> Tensor:
        """Add what x gives by a `(K, r, in)` and b `(K, r, out)`.

        With `ends` None, y is `(K, rows, out)`, x `(K, rows, in)` and scale `(K, 1, 1)`; else y is `(N, out)`, x
        `(N, in)`, scale `(N, 1)`, and device k has the tokens up to `ends[k]`.
        """
        low = _times(x.to(a.dtype), a.transpose(1, 2), ends).mul_(scale)
        ctx.save_for_backward(x, low, a, b, scale, ends)  # x as it is: layers that read the same share it
        ctx.mark_dirty(y)
        return y.baddbmm_(low, b) if ends is None and y.dtype == a.dtype else y.add_(_times(low, b, ends))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of y, x, a and b."""
        (gy,) = gradients
        x, low, a, b, scale, ends = ctx.saved_tensors
        g = gy.to(a.dtype)
        glow = _times(g, b.transpose(1, 2), ends).mul_(scale)
        gx = _times(glow, a, ends).to(gy.dtype) if ctx.needs_input_grad[1] else None
        return gy, gx, _across(glow, x.to(a.dtype), ends), _across(low, g, ends), None, None


def _times(x: Tensor, w: Tensor, ends: Tensor | None) -> Tensor:
    """Every device's tokens times its own matrix `(K, i, j)`."""
    return torch.bmm(x, w) if ends is None else grouped_mm(x, w, offs=ends)


def _across(x: Tensor, y: Tensor, ends: Tensor | None) -> Tensor:
    """`(K, i, j)`: x^T y, summed over each device's tokens."""
    return torch.bmm(x.transpose(1, 2), y) if ends is None else grouped_mm(x.t(), y, offs=ends)


# Globals and no ContextVar: with gradient checkpointing, layers are computed again in autograd's own threads.
_counts: Tensor | None = None  # (K,), tokens of each device, while they are unequal
_padding: tuple[Tensor, Tensor] | None = None  # of these counts, once a layer has asked for it


@contextmanager
def unequal(counts: Tensor | None) -> Iterator[None]:
    """Within the block, tokens are `(1, N)` and device k has `counts[k]` of them; None, as outside, is equal blocks."""
    global _counts, _padding
    before = _counts, _padding
    _counts, _padding = counts, None
    try:
        yield
    finally:
        _counts, _padding = before


def _padding_of(counts: Tensor, total: int) -> tuple[Tensor, Tensor]:
    """Which of N tokens lies where in padded blocks `(K, M)`, and where in them each token lies, `(N,)`.

    Worked out once for all layers, since a GPU has to be waited for to know M.
    """
    global _padding
    if _padding is None:
        starts = counts.cumsum(0) - counts  # (K,)
        most = torch.arange(int(counts.max()), device=counts.device)  # (M,)
        inside = torch.arange(total, device=counts.device) - starts.repeat_interleave(counts, output_size=total)  # (N,)
        rows = torch.arange(len(counts), device=counts.device).repeat_interleave(counts, output_size=total)  # (N,)
        _padding = (starts[:, None] + most).clamp(max=total - 1), rows * len(most) + inside
    return _padding


class StackedLoraLinear(nn.Module):
    """A frozen linear layer plus K adapters; without adapters it is the frozen layer alone."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base
        self.a: Tensor | None = None  # (K, r, in), a view of theta
        self.b: Tensor | None = None  # (K, r, out), a view of theta: B transposed
        self.scale: Tensor | None = None  # (K, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(K * rows, T, in)` to `(K * rows, T, out)`."""
        if self.a is None or self.b is None or self.scale is None:
            plain: Tensor = self.base(x)
            return plain
        if _counts is not None and len(self.a) > 1:
            return self._of_unequal(x.flatten(0, 1), self.a, self.b, self.scale, _counts).view(*x.shape[:-1], -1)
        blocks = x.reshape(len(self.a), -1, x.shape[-1])  # (K, rows * T, in)
        # the base maps blocks too: were its output a view, writing into it would cost two copies in the backward
        y = _add_lora(self.base(blocks), blocks, self.a, self.b, self.scale)
        return y.view(*x.shape[:-1], -1)

    def _of_unequal(self, x: Tensor, a: Tensor, b: Tensor, scale: Tensor, counts: Tensor) -> Tensor:
        """Map `(N, in)` to `(N, out)`; `grouped_mm` wants rows of 16 bytes, else the adapters meet padded blocks."""
        if x.device.type == "cpu" and not any(width % 4 for width in (*a.shape[1:], b.shape[2])):
            own = scale[:, 0].repeat_interleave(counts, 0)  # (N, 1)
            return _add_lora(self.base(x), x, a, b, own, counts.cumsum(0).int())
        places, back = _padding_of(counts, len(x))  # (K, M) and (N,)
        blocks = x.index_select(0, places.flatten()).view(*places.shape, -1)  # (K, M, in)
        padded = _add_lora(x.new_zeros(*places.shape, b.shape[2]), blocks, a, b, scale)  # (K, M, out)
        y: Tensor = self.base(x)
        return y + padded.flatten(0, 1).index_select(0, back)


def _add_lora(y: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: Tensor, ends: Tensor | None = None) -> Tensor:
    added: Tensor = _AddLora.apply(y, x, a, b, scale, ends)  # type: ignore[no-untyped-call]
    return added


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
        self._frozen: list[Tensor] = []  # the base's own weights, while something is merged into them
        self.on: dict[str, Tensor] = {}
        """The extras of the adapters that are on, by name, `(K, ...)` each."""
        self._extras = {name: tensor.shape for name, tensor in extras_of(like).items()}
        names = list(lora_of(like))
        for name_a, name_b in zip(names[::2], names[1::2], strict=True):
            path = name_a.removeprefix(_PREFIX).removesuffix(".lora_A.weight")
            if name_b != f"{_PREFIX}{path}.lora_B.weight":
                raise ValueError(f"expected lora_A and lora_B of one layer side by side, found {name_a} and {name_b}")
            parent_path, _, child = path.rpartition(".")
            parent = base.get_submodule(parent_path)
            layer = StackedLoraLinear(parent.get_submodule(child))
            setattr(parent, child, layer)
            self._slots.append(_Slot(layer, name_a, name_b, like[name_a].shape[1], like[name_b].shape[0]))

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
        return self.pad([torch.from_numpy(self._flat(adapter)) for adapter in adapters], ranks_of(adapters))

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
        if theta is None:
            for slot in self._slots:
                slot.layer.a = slot.layer.b = slot.layer.scale = None
            return
        theta = theta.detach() if train else theta
        k, r = len(theta), self.rank
        scales = [self.scale * r / rank for rank in ranks or [r] * k] if scales is None else scales
        scale = torch.tensor(scales, dtype=torch.float32, device=theta.device)[:, None, None]  # (K, 1, 1)
        # one split: its backward is one concatenation, while each slice's would fill a whole theta with zeros
        beside = [self._beside] if self._beside else []
        parts = theta.split([*(r * width for width in self._widths), *beside], 1)[: 2 * len(self._slots)]
        for slot, a, b in zip(self._slots, parts[::2], parts[1::2], strict=True):
            place = slot.layer.base.get_parameter("weight").device  # a base may lie on several
            slot.layer.a = a.view(k, r, slot.inputs).to(place)  # (K, r, in)
            slot.layer.b = b.view(k, r, slot.outputs).to(place)  # (K, r, out)
            slot.layer.scale = scale.to(place)  # (K, 1, 1)
        if train:
            for part in self._parts():
                part.requires_grad_()

    def gradient(self) -> Tensor:
        """What `backward` has added up since `attach`, `(K, n)`; zero at the extras, which no layer reads."""
        parts = [torch.zeros_like(part) if part.grad is None else part.grad for part in self._parts()]
        flat = [part.flatten(1).to(self.model.device) for part in parts]
        beside = [flat[0].new_zeros(len(flat[0]), self._beside)] if self._beside else []
        return torch.cat([*flat, *beside], 1)  # (K, n)

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

    @property
    def _widths(self) -> list[int]:
        """Of A and B of every layer, in theta's order."""
        return [width for slot in self._slots for width in (slot.inputs, slot.outputs)]

    @property
    def _beside(self) -> int:
        """How many numbers of a row are extras."""
        return sum(math.prod(shape) for shape in self._extras.values())

    def _parts(self) -> list[Tensor]:
        """A and B of every layer, in theta's order."""
        return [part for slot in self._slots for part in (slot.layer.a, slot.layer.b) if part is not None]

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
        *parts, beside = np.split(flat, rank * np.cumsum(self._widths))
        parts = [part.reshape(rank, -1) for part in parts]
        adapter = {}
        for slot, a, b in zip(self._slots, parts[::2], parts[1::2], strict=True):
            adapter[slot.name_a] = a.copy()
            adapter[slot.name_b] = np.ascontiguousarray(b.T)
        for name, shape in self._extras.items():
            own, beside = np.split(beside, [math.prod(shape)])
            adapter[name] = own.reshape(shape).copy()
        return adapter


def rank_of(adapter: Adapter) -> int:
    """r, the rank of an adapter: rows of its first A."""
    first = next(tensor for name, tensor in adapter.items() if factor_of(name) == "A")  # (r, in)
    return len(first)


def ranks_of(adapters: Sequence[Adapter]) -> list[int]:
    """The rank of each."""
    return [rank_of(adapter) for adapter in adapters]
