"""The forward passes of `flsim/models/forward.py` by a model's own `forward`, on padded rows.

The model may be any of Hugging Face that takes a `DynamicCache`.
"""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from flsim.models.builtin_llama import AnyModel
from flsim.models.forward import Decoder, Next, Past, Readout, positions_of
from flsim.models.prefix import Prefix
from flsim.models.seam import Seam

_PARTS = 4  # of the rows of `AnyForward.follow`
_FEW = 64  # rows of a part; smaller ones cost more in calls than they save in padding


class AnyForward:
    """The passes by the model's own `forward`, on padded rows."""

    def __init__(self, model: AnyModel, seam: Seam | None = None) -> None:
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
