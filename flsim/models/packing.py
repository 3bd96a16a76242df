"""The tokens of a grid of rows that count, laid side by side for linear layers, and back for attention."""

from contextlib import AbstractContextManager, nullcontext
from functools import cached_property

import torch
from torch import Tensor

from flsim.models.lora_linear import WASTE, unequal


class Packing:
    """The tokens that count, device by device, without the padding between them.

    Linear layers work on packed tokens `(K, M)`, M being the most that a device has; where this would be wasteful, on
    the bare tokens of unequal devices `(1, N)`. Attention works on the grid of rows `(K * R, T)`.
    """

    def __init__(self, mask: Tensor) -> None:
        """Take the mask of a grid, True at tokens that count, `(K, R, T)`."""
        k, r, t = mask.shape
        self.grid = k * r, t
        """Rows and tokens of a row."""
        flat = mask.flatten(1)  # (K, R * T)
        counts = flat.sum(1)  # (K,)
        most = max(1, int(counts.max()))
        self.counts = counts if k * most > WASTE * int(counts.sum()) > 0 else None
        """Of each device `(K,)`, where packed tokens are bare; else None."""
        if self.counts is not None:
            self.places = flat.flatten().nonzero()[:, 0]  # (N,)
            self.real = torch.ones_like(self.places, dtype=torch.bool)  # (N,)
            self.shape = torch.Size([1, len(self.places)])
            return
        order = (~flat).int().argsort(dim=1, stable=True)[:, :most]  # (K, M)
        self.real = flat.gather(1, order).flatten()  # (K * M,)
        self.places = (order + torch.arange(k, device=mask.device)[:, None] * r * t).flatten()  # (K * M,)
        self.shape = order.shape

    def layout(self) -> AbstractContextManager[None]:
        """Tells the adapters whose tokens are whose."""
        return nullcontext() if self.counts is None else unequal(self.counts)

    def pack(self, grid: Tensor) -> Tensor:
        """`(K, M)` of anything that has one number per token of the grid."""
        return grid.flatten()[self.places].view(self.shape)

    def spread(self, tokens: Tensor) -> Tensor:
        """From `(K, M, heads, d)` to `(K * R, heads, T, d)`; zero at padding."""
        flat = tokens.flatten(0, 1) * self.real[:, None, None]  # (K * M, heads, d)
        rows, t = self.grid
        grid = flat.new_zeros(rows * t, *flat.shape[1:]).index_copy(0, self.places, flat)
        return grid.view(rows, t, *flat.shape[1:]).transpose(1, 2).contiguous()

    def gather(self, grid: Tensor) -> Tensor:
        """From `(K * R, heads, T, d)` to `(K, M, heads, d)`."""
        flat = grid.transpose(1, 2).flatten(0, 1)  # (K * R * T, heads, d)
        return flat.index_select(0, self.places).view(*self.shape, *flat.shape[1:])

    def last(self, tokens: Tensor) -> Tensor:
        """The last token of every row, `(K * R, ...)`, from `(K * M, ...)`; the rows are left-padded."""
        return tokens[self.ends]

    @cached_property
    def ends(self) -> Tensor:
        """Which of the packed tokens are the last ones of the rows, `(K * R,)`, device by device."""
        rows, t = self.grid
        where = torch.zeros(rows * t, dtype=torch.long, device=self.places.device)
        where[self.places] = torch.arange(len(self.places), device=self.places.device)
        return where.view(rows, t)[:, -1]

    @cached_property
    def bare(self) -> bool:
        """Whether all packed tokens count."""
        return bool(self.real.all())
