"""Decoding with a small Llama in few calls: keys and values of a row's own tokens lie in room that is there already."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flsim.models.forward import Next, Past
from flsim.models.lora_linear import uneven
from flsim.models.short_attention import folded, unfolded
from flsim.models.small_layer import Norm, WornLayer, turn_of


class Ends(NamedTuple):
    """What stands around the layers of a model."""

    embedded: Callable[[Tensor], Tensor]
    """What goes into the first layer, `(1, N, D)`, of tokens `(N,)`."""
    table: Tensor
    """Of positions, `(P, 2, 1, d)`: see `turn_of`."""
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
        self._unseen = None if unseen is None else unseen[:, None, None]  # (N, 1, 1, L)
        _, heads, _, width = past.keys[0].shape
        shape = 2, self._all, heads, tokens, width
        self._own = [part.new_zeros(shape) for part in past.keys]  # of each layer keys and values (2, N, H, tokens, d)
        self._before = [
            (key.detach().flatten(0, 1), value.detach().flatten(0, 1))
            for key, value in zip(past.keys, past.values, strict=True)
        ]  # of each layer, (m H, L, d) each

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
        alone = len(self._before[0][0]) == self._own[0].shape[1] * self._own[0].shape[2]  # each row has its own prompt
        if alone and len(places) <= _CROWDED * self._all:
            self._leave(self._rows)

    def _leave(self, rows: Tensor) -> None:
        """Forget what others than these of the rows have read."""
        heads, at = self._own[0].shape[2], self._read
        self._before = [
            (key.unflatten(0, (-1, heads))[rows].flatten(0, 1), value.unflatten(0, (-1, heads))[rows].flatten(0, 1))
            for key, value in self._before
        ]
        before, self._own = self._own, [own.new_empty(2, len(rows), *own.shape[2:]) for own in self._own]
        for new, old in zip(self._own, before, strict=True):
            new[..., :at, :] = old[:, rows, :, :at]
        self._unseen = None if self._unseen is None else self._unseen[rows]
        self._all, self._rows = len(rows), None

    def mix(self, number: int, qkv: Tensor) -> tuple[Tensor, Any]:
        """All N rows attend, and those that go on take their part (`Mixing`)."""
        query, at = qkv[0], self._read
        here = self._own[number].select(3, at)  # (2, N, H, d)
        if self._rows is None:
            here.copy_(qkv[1:])
            return self._attended(number, query[:, :, None], at + 1).reshape(1, self._all, -1), None
        here.index_copy_(1, self._rows, qkv[1:])
        query = query.new_zeros(self._all, *query.shape[1:]).index_copy_(0, self._rows, query)  # (N, H, d)
        mixed = self._attended(number, query[:, :, None], at + 1).reshape(self._all, -1)  # (N, D)
        return mixed.index_select(0, self._rows)[None], None

    def _attended(self, number: int, query: Tensor, end: int) -> Tensor:
        """What the N rows take from prompts and from their own tokens so far, `(N, H, 1, d)`."""
        (keys, values), (own_keys, own_values) = self._before[number], self._own[number][:, :, :, :end].flatten(1, 2)
        n, heads, _, width = query.shape
        length = keys.shape[1]
        first = unfolded(torch.bmm(folded(query, keys.shape[0]), keys.transpose(1, 2)), n, heads, 1)
        second = torch.bmm(query.reshape(-1, 1, width), own_keys.transpose(1, 2)).view(n, heads, 1, end)
        scores = torch.cat((first, second), -1)  # (N, H, 1, L + end)
        if self._unseen is not None:
            scores[..., :length] += self._unseen
        weights = torch.softmax(scores, -1)  # (N, H, 1, L + end)
        mixed = unfolded(torch.bmm(folded(weights[..., :length], keys.shape[0]), values), n, heads, 1)
        own = torch.bmm(weights[..., length:].reshape(-1, 1, end), own_values)  # (N H, 1, d)
        return mixed.add_(own.view(n, heads, 1, width))
