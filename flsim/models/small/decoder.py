"""Decoding with a small Llama in few calls: keys and values of a row's own tokens lie in room that is there already."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flsim.models.forward import Next, Past
from flsim.models.lora_linear import uneven
from flsim.models.small.attention import attend, segments_of
from flsim.models.small.layer import Norm, WornLayer, turn_of


class Ends(NamedTuple):
    """What stands around the layers of a model."""

    embedded: Callable[[Tensor], Tensor]
    """What goes into the first layer, `(1, N, D)`, of tokens `(N,)`."""
    table: Tensor
    """Of positions, `(P, 2, 2, 1, d)`: see `turn_of`."""
    norm: Norm
    head: Any
    """Logits of hidden states."""


_CROWDED = 0.7
"""Of the rows that attend this share goes on before the others leave: to copy keys and values costs about a step."""


class SmallDecoder:
    """Rows that end leave the linear layers, and attention, too, where each has a prompt of its own."""

    def __init__(
        self,
        layers: Sequence[WornLayer],
        ends: Ends,
        positions: Tensor,
        unseen: Tensor | None,
        past: Past,
        tokens: int,
    ) -> None:
        """Begin.

        Args:
            layers: with adapters.
            ends: what stands around the layers.
            positions: of the first token of each row, `(N,)`.
            unseen: very little at the prompts' tokens that a row does not see, 0 at the others, `(N, L)`; None if it
                sees all.
            past: the prompts; row i goes on where prompt `i // (N / m)` ended.
            tokens: most tokens that will be read.
        """
        self._layers, self._ends = layers, ends
        self._all = len(positions)  # N
        self._rows: Tensor | None = None  # (n,), the rows that go on; None while all do
        self._read = 0  # tokens so far
        self._next = positions  # (n,)
        m, heads, _, width = past.keys[0].shape
        share = self._all // m
        # very little at what a row does not see, also of its own tokens, (m, 1, S, 1, L + tokens)
        self._bias: Tensor | None = None
        if unseen is not None:
            everything = torch.cat((unseen, unseen.new_zeros(self._all, tokens)), 1)  # (N, L + tokens)
            self._bias = everything.view(m, 1, share, 1, -1)
        self._shape = m, share, 3, heads, width
        # of each layer keys and values (2, m, H, S, tokens, d)
        self._own = [part.new_zeros(2, m, heads, share, tokens, width) for part in past.keys]
        self._before = segments_of(past)

    def step(self, ids: Tensor) -> Next:
        """See `Decoder`."""
        x = self._ends.embedded(ids)  # (1, n, D)
        turn, tokens = turn_of(self._ends.table, self._next), uneven()
        for number, layer in enumerate(self._layers):
            x, _ = layer.read(number, x, turn, self, tokens)
        states = self._ends.norm.normed(x)[0][0]  # (n, D)
        self._read += 1
        self._next = self._next + 1
        return Next(self._ends.head(states), states)

    def keep(self, places: Tensor) -> None:
        """See `Decoder`."""
        self._rows = places if self._rows is None else self._rows[places]
        self._next = self._next[places]
        if self._shape[1] == 1 and len(places) <= _CROWDED * self._all:
            self._leave(self._rows)

    def _leave(self, rows: Tensor) -> None:
        """Forget what others than these of the rows, each of which has a prompt of its own, have read."""
        heads, at = self._shape[3], self._read
        self._before = [
            (key.unflatten(0, (-1, heads))[rows].flatten(0, 1), value.unflatten(0, (-1, heads))[rows].flatten(0, 1))
            for key, value in self._before
        ]
        before, self._own = self._own, [own.new_empty(2, len(rows), *own.shape[2:]) for own in self._own]
        for new, old in zip(self._own, before, strict=True):
            new[..., :at, :] = old[:, rows, ..., :at, :]
        self._bias = None if self._bias is None else self._bias[rows]
        self._all, self._rows, self._shape = len(rows), None, (len(rows), *self._shape[1:])

    def mix(self, number: int, qkv: Tensor) -> tuple[Tensor, Any]:
        """All N rows attend, and those that go on take their part (`Mixing`)."""
        if self._rows is not None:
            qkv = qkv.new_zeros(self._all, *qkv.shape[1:]).index_copy_(0, self._rows, qkv)  # (N, 3, H, d)
        grid = qkv.view(self._shape).permute(2, 0, 3, 1, 4)  # (3, m, H, S, d)
        end = self._read + 1
        self._own[number].select(4, self._read).copy_(grid[1:])
        key, value = self._own[number].flatten(1, 3)[:, :, :end]  # (m H S, end, d) each
        before = self._before[number]
        bias = None if self._bias is None else self._bias[..., : before[0].shape[1] + end]
        query = grid[0].unsqueeze(3).contiguous()  # (m, H, S, 1, d)
        mixed, _ = attend(query, before, (key, value), bias)  # (m, H, S, 1, d)
        rows = mixed[:, :, :, 0].transpose(1, 2).reshape(self._all, -1)  # (N, D)
        return (rows if self._rows is None else rows.index_select(0, self._rows))[None], None
