"""Attention over a few dozen tokens as plain products, with its gradient by hand (see `flsim/models/llama.py`).

Rows lie prompt by prompt, `(m, H, S, T, d)`: S rows of T tokens go on after each of m prompts. In this order all rows
of a prompt meet its keys in one product, and each row its own in another, without a copy.
"""

import torch
from torch import Tensor

from flsim.models.forward import Past
from flsim.models.packing import Packing

Segment = tuple[Tensor, Tensor]
"""Keys and values: of m prompts `(m H, L, d)`, or of the rows' own tokens `(m H S, T, d)`."""


def segments_of(past: Past) -> list[Segment]:
    """Keys and values of the prompts, layer by layer, without a gradient."""
    pairs = zip(past.keys, past.values, strict=True)
    return [(key.detach().flatten(0, 1), value.detach().flatten(0, 1)) for key, value in pairs]


class HeadGrid:
    """Where the heads of packed tokens lie on a grid of rows, prompt by prompt: an index each way, for all layers."""

    def __init__(self, packing: Packing, heads: int, share: int) -> None:
        """Lay out.

        Args:
            packing: of the rows' tokens.
            heads: H.
            share: S, rows of each prompt.
        """
        rows, tokens = packing.grid
        self.shape = rows // share, heads, share, tokens
        each, count = share * tokens, len(packing.places)
        first = packing.places // each * (heads * each) + packing.places % each  # (N,)
        cells = first[:, None] + torch.arange(heads) * each  # (N, H)
        heads_of = torch.arange(count * heads).view(count, heads)  # (N, H)
        self._cells = cells.flatten()
        back = torch.zeros(rows * heads * tokens, dtype=torch.long)
        real = None if packing.bare else packing.real
        taken, owners = (cells, heads_of) if real is None else (cells[real], heads_of[real])
        back[taken.flatten()] = owners.flatten()
        self._back = back
        # of tokens with query, key and value side by side: number of a head in all rows of d numbers
        self._three = (back + back // heads * 2 * heads + heads * torch.arange(3)[:, None]).flatten()  # (3 m H S T,)
        self._filled: Tensor | None = None  # (m H S T, 1), 0 where no token lies; None if one lies everywhere
        if taken.numel() < back.numel():
            self._filled = torch.zeros(back.numel(), 1).index_fill_(0, taken.flatten(), 1.0)
        self._real = real

    def spread(self, tokens: Tensor) -> Tensor:
        """Heads of tokens `(1, N, H d)` on the grid, `(m, H, S, T, d)`; zero where no token lies."""
        flat = tokens.view(self._cells.numel(), -1).index_select(0, self._back)  # (m H S T, d)
        return (flat if self._filled is None else flat.mul_(self._filled)).view(*self.shape, -1)

    def spread_three(self, qkv: Tensor) -> Tensor:
        """Queries, keys and values of tokens `(N, 3, H, d)`, `(3, m, H, S, T, d)`; anything where no token lies."""
        return qkv.view(-1, qkv.shape[3]).index_select(0, self._three).view(3, *self.shape, -1)

    def emptied(self, grid: Tensor) -> Tensor:
        """A grid `(..., m, H, S, T, d)` with zero where no token lies, in place."""
        if self._filled is not None:
            grid.view(-1, self._back.numel(), grid.shape[-1]).mul_(self._filled)
        return grid

    def gather(self, grid: Tensor) -> Tensor:
        """The tokens of a grid `(m, H, S, T, d)`, `(1, N, H d)`."""
        heads = grid.view(-1, grid.shape[-1]).index_select(0, self._cells)  # (N H, d)
        return heads.view(1, -1, self.shape[1] * grid.shape[-1])

    def gather_three(self, grids: list[Tensor]) -> Tensor:
        """The gradient of what `spread_three` was given, `(N, 3, H, d)`, from three of `(m, H, S, T, d)`."""
        heads = self.shape[1]
        tokens = torch.stack([self.gather(grid).view(-1, heads, grid.shape[-1]) for grid in grids], 1)
        return tokens if self._real is None else tokens.mul_(self._real[:, None, None, None])


def attend(query: Tensor, before: Segment | None, own: Segment, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Softmax attention over the prompt's tokens and the row's own, `(m, H, S, T, d)`; its weights `(m, H, S, T, L)`.

    Args:
        query: `(m, H, S, T, d)`, scaled.
        before: of the prompts; None if there are none.
        own: of the rows.
        bias: `(m, 1, S, T, L)`; None is zero.
    """
    m, heads, share, t, d = query.shape
    rows = query.view(-1, t, d)  # (m H S, T, d)
    scores = torch.bmm(rows, own[0].transpose(1, 2))  # (m H S, T, L_2)
    if before is not None:
        first = torch.bmm(query.view(m * heads, -1, d), before[0].transpose(1, 2))  # (m H, S T, L_1)
        scores = torch.cat((first.view(*scores.shape[:2], -1), scores), -1)  # (m H S, T, L)
    scores = scores.view(m, heads, share, t, -1)
    weights = torch.softmax(scores if bias is None else scores.add_(bias), -1)  # (m, H, S, T, L)
    first, second = _parts(weights, before)
    if before is None:
        return torch.bmm(second, own[1]).view(query.shape), weights
    mixed = torch.bmm(first, before[1]).view(rows.shape)
    return mixed.baddbmm_(second, own[1]).view(query.shape), weights


def pull_attend(
    g: Tensor, query: Tensor, before: Segment | None, own: Segment, weights: Tensor
) -> tuple[Tensor, Segment | None, Segment]:
    """The gradients of the queries, and of the keys and values of both segments, from g `(m, H, S, T, d)`.

    Args:
        g: gradient of what `attend` gave.
        query: what it was given, as `before` and `own`.
        before: keys and values of the prompts.
        own: of the rows.
        weights: what it gave besides.
    """
    m, heads, _, t, d = query.shape
    rows, blocks = (-1, t, d), (m * heads, -1, d)
    of_weights = torch.bmm(g.view(rows), own[1].transpose(1, 2))  # (m H S, T, L_2)
    if before is not None:
        first = torch.bmm(g.view(blocks), before[1].transpose(1, 2))  # (m H, S T, L_1)
        of_weights = torch.cat((first.view(*of_weights.shape[:2], -1), of_weights), -1)  # (m H S, T, L)
    scores = torch._softmax_backward_data(of_weights.view(weights.shape), weights, -1, weights.dtype)
    (first, second), (of_first, of_second) = _parts(weights, before), _parts(scores, before)
    of_own = _across(of_second, query.view(rows)), _across(second, g.view(rows))  # (m H S, T, d) each
    if before is None:
        return torch.bmm(of_second, own[0]).view(query.shape), None, of_own
    of_query = torch.bmm(of_first, before[0]).view(rows).baddbmm_(of_second, own[0])  # (m H S, T, d)
    of_before = _across(of_first, query.view(blocks)), _across(first, g.view(blocks))  # (m H, L_1, d) each
    return of_query.view(query.shape), of_before, of_own


def _parts(weights: Tensor, before: Segment | None) -> tuple[Tensor, Tensor]:
    """Of weights `(m, H, S, T, L)` the prompts' `(m H, S T, L_1)` and the rows' own `(m H S, T, L_2)`, as views."""
    m, heads, _, t, length = weights.shape
    split = 0 if before is None else before[0].shape[1]
    return weights.view(m * heads, -1, length)[..., :split], weights.view(-1, t, length)[..., split:]


def _across(x: Tensor, y: Tensor) -> Tensor:
    """`x^T y` of each block."""
    return torch.bmm(x.transpose(1, 2), y)
