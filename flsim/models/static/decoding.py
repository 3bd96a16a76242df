"""Decoding whose shapes never change: a static key-value cache, and the same rows from the first token to the last.

So a step can be captured once and launched for every token (`capturing.py`). Rows that have ended are decoded along,
and what they say is dropped; every step looks at all columns of the cache, of which the later ones weigh nothing.
"""

import weakref
from collections.abc import Callable

import torch
from torch import Tensor, nn

from flsim.models.forward import Next, Past, Segment
from flsim.models.llama import Mix, attend
from flsim.models.static.adapters import StaticAdapters
from flsim.models.static.capturing import Graphs

UNSEEN = -1e9
"""Added to the scores of what is not to be seen: finite, and so little that its weight is exactly zero."""
_LEAST = 16  # columns of a segment

Layers = Callable[[Tensor, Tensor, Mix], Tensor]
"""Last hidden states `(a, b, D)` of tokens `(a, b)` at positions `(a, b)`, by a way to attend."""


def rounded(columns: int) -> int:
    """Columns to make room for, the next power of two, so that few shapes are captured."""
    return max(_LEAST, 1 << (columns - 1).bit_length())


def fill(room: Tensor, content: Tensor) -> None:
    """Copy what has as many or fewer places in the third dimension, and zero the rest.

    The rest weighs nothing, but what an earlier call left there may be NaN, and NaN times zero is NaN.
    """
    there = content.shape[2]
    room.narrow(2, 0, there).copy_(content)
    room.narrow(2, there, room.shape[2] - there).zero_()


def fill_bias(bias: Tensor, content: Tensor, widths: list[int], rooms: list[int]) -> None:
    """Copy a bias `(n, 1, T, L)` into one `(n, 1, T', L')`, segment by segment; what is left over is not seen.

    Args:
        bias: to be filled.
        content: what is copied; of fewer tokens or columns.
        widths: the columns of each segment of `content`; further ones of `bias` are left unseen.
        rooms: those of each segment of `bias`.
    """
    bias.fill_(UNSEEN)
    tokens, start = content.shape[2], 0
    for part, room in zip(content.split(widths, 3), rooms, strict=False):  # (n, 1, T, L_i)
        bias[:, :, :tokens, start : start + part.shape[3]] = part
        start += room


class StaticRoom:
    """What a decoding of one shape lives in: the cache, the rows' next tokens and positions, adapters, and the step."""

    def __init__(
        self,
        layers: Layers,
        head: nn.Module,
        past: Past,
        share: int,
        tokens: int,
        graphs: Graphs,
        adapters: StaticAdapters,
    ) -> None:
        """Make room, and capture a step.

        Args:
            layers: of the model.
            head: its output layer.
            past: prompts of the shape that is meant.
            share: rows per prompt.
            tokens: most tokens that will be read.
            graphs: by which a step is captured.
            adapters: that it meets.
        """
        self._layers, self._head, self._share, self._adapters = layers, head, share, adapters
        device = past.keys[0].device
        self._rows, own = past.rows * share, rounded(tokens)  # N
        self._before: list[list[Segment]] = [
            [
                (_zeros(keys, len(keys), rounded(keys.shape[2])), _zeros(values, len(values), rounded(values.shape[2])))
                for keys, values in past.segments(layer)
            ]
            for layer in range(len(past.keys))
        ]  # per layer and segment (m, KV, L_i, d)
        self._own: list[Segment] = [
            (_zeros(keys, self._rows, own), _zeros(values, self._rows, own))
            for keys, values in zip(past.keys, past.values, strict=True)
        ]  # per layer (N, KV, T, d)
        self._rooms = [keys.shape[2] for keys, _ in self._before[0]]
        self._bias = past.keys[0].new_zeros(self._rows, 1, 1, sum(self._rooms) + own)  # (N, 1, 1, L + T)
        self._ids = torch.zeros(self._rows, dtype=torch.long, device=device)  # (N,)
        self._next = torch.zeros(self._rows, dtype=torch.long, device=device)  # (N,), position of the next token
        self._place = torch.zeros(1, dtype=torch.long, device=device)  # (1,), tokens so far
        self._user: weakref.ref[StaticDecoder] | None = None
        adapters.take()
        with torch.no_grad():
            graphs.warm_up(self._step)
            self._place.zero_()
            self._launch = graphs.capture(self._step)

    @property
    def free(self) -> bool:
        """Whether nobody decodes here."""
        return self._user is None or self._user() is None

    @torch.no_grad()
    def begin(self, mask: Tensor, past: Past) -> "StaticDecoder":
        """Decode from these prompts on, with the adapters that are attached.

        Args:
            mask: True at the prompts' tokens that count, `(n, L)`.
            past: the prompts.
        """
        self._adapters.take()
        for layer, (rooms, own) in enumerate(zip(self._before, self._own, strict=True)):
            for room, segment in zip(rooms, past.segments(layer), strict=True):
                for static, part in zip(room, segment, strict=True):
                    fill(static, part)
            for part in own:
                part.zero_()
        seen = torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, UNSEEN)  # (n, L)
        widths = [keys.shape[2] for keys, _ in past.segments(0)]
        fill_bias(self._bias, seen.repeat_interleave(self._share, 0)[:, None, None], widths, self._rooms)
        self._next.copy_(mask.sum(1).repeat_interleave(self._share))
        self._place.zero_()
        decoder = StaticDecoder(self)
        self._user = weakref.ref(decoder)
        return decoder

    @torch.no_grad()
    def read_on(self, ids: Tensor, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        """Logits `(N, V)` and hidden states `(N, D)` after one more token per row; they hold until the next call.

        Args:
            ids: the tokens of some of the rows, `(n,)`.
            rows: which, `(n,)`; None is all.
        """
        if rows is None:
            self._ids.copy_(ids)
        else:
            self._ids.index_copy_(0, rows, ids)
        return self._launch()

    def _step(self) -> tuple[Tensor, Tensor]:
        self._bias.index_fill_(3, self._place + sum(self._rooms), 0.0)  # from now on a token sees this one
        with self._adapters.on():
            states = self._layers(self._ids[:, None], self._next[:, None], self._mix)[:, -1]  # (N, D)
        logits: Tensor = self._head(states)  # (N, V)
        self._next += 1
        self._place += 1
        return logits, states

    def _mix(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """`(N, 1, H, d)`."""
        for own, new in zip(self._own[layer], (key, value), strict=True):
            own.index_copy_(2, self._place, new.transpose(1, 2))
        segments = [*self._before[layer], self._own[layer]]
        return attend(query.transpose(1, 2), segments, self._bias).transpose(1, 2)


class StaticDecoder:
    """Rows that grow token by token in a room; of those that have ended nothing is told."""

    def __init__(self, room: StaticRoom) -> None:
        self._room = room
        self._rows: Tensor | None = None  # (n,), the rows that go on; None is all

    def step(self, ids: Tensor) -> Next:
        """See `flsim.models.forward.Decoder`."""
        logits, states = self._room.read_on(ids, self._rows)  # (N, V), (N, D)
        return Next(logits, states) if self._rows is None else Next(logits[self._rows], states[self._rows])

    def keep(self, places: Tensor) -> None:
        """See `flsim.models.forward.Decoder`."""
        self._rows = places if self._rows is None else self._rows[places]


def _zeros(like: Tensor, rows: int, columns: int) -> Tensor:
    """`(rows, KV, columns, d)` for keys or values like `(m, KV, L, d)`."""
    return like.new_zeros(rows, like.shape[1], columns, like.shape[3])
