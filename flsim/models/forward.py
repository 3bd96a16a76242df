"""The forward passes that decoding and scoring need, for any Hugging Face decoder-only model.

`read` encodes prompts, `decoder` adds token after token, `follow` reads whole completions on top of read prompts. The
model may be any that takes a `DynamicCache`; `flsim/models/llama.py` does the same for the Llama family with less work.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from flsim.models.prefix import Prefix
from flsim.models.seam import Seam

_PARTS = 4  # of the rows of `AnyForward.follow`
_FEW = 64  # rows of a part; smaller ones cost more in calls than they save in padding

Segment = tuple[Tensor, Tensor]
"""Keys and values `(m, heads, L, d)`."""


@dataclass(frozen=True)
class Past:
    """Keys and values of the tokens that were read, per layer `(n, heads, L, d)`."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    shared: "Past | None" = None
    """Of what several of the rows begin with, one row a device; the columns before all others."""

    @property
    def rows(self) -> int:
        """How many sequences were read, n."""
        return self.keys[0].shape[0]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Keys, then values, of all layers; then the shared ones."""
        return (*self.keys, *self.values, *(() if self.shared is None else self.shared.tensors))

    def segments(self, layer: int) -> list[Segment]:
        """Keys and values of a layer, the shared ones first."""
        before = [] if self.shared is None else self.shared.segments(layer)
        return [*before, (self.keys[layer], self.values[layer])]

    def of(self, tensors: tuple[Tensor, ...]) -> "Past":
        """The same past with other tensors, in the order of `tensors`."""
        half = len(self.keys)
        shared = None if self.shared is None else self.shared.of(tensors[2 * half :])
        return Past(tensors[:half], tensors[half : 2 * half], shared)

    def at(self, rows: Tensor) -> "Past":
        """Of some of the sequences, by their numbers `(m,)`; what is shared stays whole."""
        own = (tensor.index_select(0, rows.to(tensor.device)) for tensor in (*self.keys, *self.values))
        return self.of((*own, *(() if self.shared is None else self.shared.tensors)))


@dataclass(frozen=True)
class Next:
    """What a model has made of n sequences, before their next tokens."""

    logits: Tensor
    """Of the next tokens, `(n, V)`."""
    states: Tensor
    """The hidden states that the output layer made them from, `(n, D)`."""
    below: Tensor | None = None
    """Of a model that is cut: the hidden states that came to its seam, `(n, D)`; None of a whole one."""


Readout = Callable[[Next, Tensor], Tensor]
"""One number `(n,)` for each of n tokens, from what the model made of all that came before it, and its place `(n,)`."""


class Decoder(Protocol):
    """Rows that grow token by token, without gradient; in the beginning every prompt has equally many."""

    def step(self, ids: Tensor) -> Next:
        """Read one more token `(n,)` per row."""
        ...

    def keep(self, places: Tensor) -> None:
        """Go on with these of the rows only."""
        ...


class Forward(Protocol):
    """How a model reads; K devices, P prompts of each, R rows of each.

    L are the columns of what was read: a prefix's tokens first, if there is one, then those of the prompts' own.
    """

    def read(self, ids: Tensor, mask: Tensor, prefix: Prefix | None = None) -> tuple[Next, Past]:
        """Encode left-padded prompts.

        Args:
            ids: of the tokens that are no part of the prefix, `(K, P, M)`.
            mask: True at tokens that count, `(K, P, M)`.
            prefix: what they begin with; None is nothing.

        Returns:
            What comes next, and what was read, K * P rows each.
        """
        ...

    def decoder(self, mask: Tensor, past: Past, share: int, tokens: int) -> Decoder:
        """Begin to decode.

        Args:
            mask: True at the prompts' tokens that count, `(K, P, L)`.
            past: the prompts.
            share: rows per prompt; row i goes on where prompt `i // share` ended.
            tokens: most tokens that will be read.
        """
        ...

    def follow(self, ids: Tensor, mask: Tensor, prompts: Tensor, past: Past, readout: Readout) -> Tensor:
        """Read T tokens per row at once, with gradient.

        Args:
            ids: `(K, R, T)`, right-padded.
            mask: True at tokens that count, `(K, R, T)`.
            prompts: True at the prompts' tokens that count, `(K, P, L)`.
            past: the prompts; the rows of a device go on where its prompts ended, `R / P` rows for each in turn.
            readout: called with what comes after some tokens and their places in the flattened ids `(n,)`; gives one
                number for each, `(n,)`.

        Returns:
            What `readout` gave, `(K, R, T)`; zero where the mask is not True.
        """
        ...


def positions_of(mask: Tensor, tokens: int) -> Tensor:
    """Position of each of the last `tokens` tokens, `(n, tokens)`: how many tokens that count come before it."""
    return (mask.long().cumsum(1) - 1).clamp(min=0)[:, -tokens:]


class AnyForward:
    """The passes by the model's own `forward`, on padded rows."""

    def __init__(self, model: PreTrainedModel, seam: Seam | None = None) -> None:
        self._model, self._seam = model, seam
        self._states = torch.empty(0)  # what the output layer was called with last, (n, T, D)
        head = model.get_output_embeddings()
        assert head is not None, "a causal language model has an output layer"
        head.register_forward_pre_hook(self._look)

    def _look(self, _: nn.Module, given: tuple[Tensor, ...]) -> None:
        self._states = given[0]

    def read(self, ids: Tensor, mask: Tensor, prefix: Prefix | None = None) -> tuple[Next, Past]:
        """See `Forward`; always without a prefix."""
        assert prefix is None, "prompts of a model that reads by its own forward are read whole"
        cache = DynamicCache()
        return self._next(ids.flatten(0, 1), mask.flatten(0, 1), cache), _past_of(cache)

    def decoder(self, mask: Tensor, past: Past, share: int, tokens: int) -> Decoder:
        """See `Forward`."""
        return _AnyDecoder(self._next, mask.flatten(0, 1).repeat_interleave(share, 0), _cache_of(past, share))

    def follow(self, ids: Tensor, mask: Tensor, prompts: Tensor, past: Past, readout: Readout) -> Tensor:
        """See `Forward`; every device's rows go by length, in a few parts, so that short ones need little padding."""
        k, r, t = ids.shape
        lengths = mask.sum(-1)  # (K, R)
        order = lengths.argsort(dim=1, stable=True) + torch.arange(k, device=ids.device)[:, None] * r  # (K, R)
        share = r // prompts.shape[1]
        result = torch.zeros(k * r * t, device=ids.device)
        for part in order.chunk(max(1, min(_PARTS, k * r // _FEW)), dim=1):
            rows = part.flatten()  # (n,)
            longest = int(lengths.flatten()[rows].max())
            if longest == 0:
                continue
            prompt = rows // share
            taken = past.at(prompt)
            kept = mask.flatten(0, 1)[rows, :longest]  # (n, longest)
            seen = torch.cat([prompts.flatten(0, 1)[prompt], kept], 1)  # (n, L + longest)
            logits = self._call(ids.flatten(0, 1)[rows, :longest], seen, _cache_of(taken, 1))  # (n, longest, V)
            places = (rows[:, None] * t + torch.arange(longest, device=ids.device))[kept]
            result = result.index_put((places,), readout(Next(logits[kept], self._states[kept]), places))
        return result.view(k, r, t)

    def _next(self, ids: Tensor, mask: Tensor, cache: DynamicCache) -> Next:
        logits = self._call(ids, mask, cache, logits_to_keep=1)
        below = None if self._seam is None else self._seam.came[:, -1]  # (n, D)
        return Next(logits[:, -1], self._states[:, -1], below)

    def _call(self, ids: Tensor, mask: Tensor, cache: DynamicCache, **more: int) -> Tensor:
        with nullcontext() if self._seam is None else self._seam.within(self._model):
            logits: Tensor = self._model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions_of(mask, ids.shape[1]),
                past_key_values=cache,
                use_cache=True,
                **more,
            ).logits
        return logits


class _AnyDecoder:
    """The model's own cache; rows that end are cut out of it."""

    def __init__(self, call: Callable[..., Next], mask: Tensor, cache: DynamicCache) -> None:
        self._call = call
        self._mask = mask  # (n, L)
        self._cache = cache

    def step(self, ids: Tensor) -> Next:
        self._mask = torch.cat([self._mask, torch.ones_like(self._mask[:, :1])], 1)  # (n, L + 1)
        return self._call(ids[:, None], self._mask, self._cache)

    def keep(self, places: Tensor) -> None:
        self._mask = self._mask[places]
        for layer in self._cache.layers:
            if isinstance(layer, DynamicLayer) and layer.keys is not None and layer.values is not None:
                here = places.to(layer.keys.device)  # a base may lie on several
                layer.keys, layer.values = layer.keys[here], layer.values[here]


def _cache_of(past: Past, share: int) -> DynamicCache:
    """The past in the model's own class, every row `share` times."""
    cache = DynamicCache()
    for number, pair in enumerate(zip(past.keys, past.values, strict=True)):
        keys, values = (tensor.repeat_interleave(share, 0) for tensor in pair)
        cache.update(keys, values, number)
    return cache


def _past_of(cache: DynamicCache) -> Past:
    keys, values = [], []
    for layer in cache.layers:
        if not isinstance(layer, DynamicLayer) or layer.keys is None or layer.values is None:
            raise TypeError(f"decoding needs a model with key-value attention in every layer, found {type(layer)}")
        keys.append(layer.keys)
        values.append(layer.values)
    return Past(tuple(keys), tuple(values))
