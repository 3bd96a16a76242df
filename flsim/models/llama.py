"""The forward passes of `flsim/models/forward.py` for the Llama family (Llama, Mistral, Qwen2, Qwen3), with less work.

Keys and values are never copied: completions of one prompt share the prompt's, and their own are written into room that
is already there. Short attention is two plain products, which on a CPU take half the time of the fused kernel. Linear
layers are the model's own modules, so adapters act as everywhere.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from flsim.models.builtin_llama import AnyModel, BuiltinLlama
from flsim.models.forward import Decoder, Next, Past, Readout, Segment, positions_of
from flsim.models.memory import bytes_kept
from flsim.models.packing import Packing
from flsim.models.prefix import Prefix
from flsim.models.seam import Seam

_FAMILY = frozenset(
    f"transformers.models.{name.lower()}.modeling_{name.lower()}.{name}ForCausalLM"
    for name in ("Llama", "Mistral", "Qwen2", "Qwen3")
)  # by their names: to import them takes seconds, and without a checkpoint of theirs nobody has
_PLAIN = 4096  # up to so many scores per row and head, attention by plain products is the faster one on a CPU

Mix = Callable[[int, Tensor, Tensor, Tensor], Tensor]  # (layer, query, key, value) to what attention gives


def fits(model: AnyModel) -> bool:
    """Whether the model is of the family, with full attention in every layer, turned whole, and on one device."""
    if isinstance(model, BuiltinLlama):
        return True
    if f"{type(model).__module__}.{type(model).__qualname__}" not in _FAMILY:
        return False
    config = model.config
    kinds = getattr(config, "layer_types", None)
    full = all(kind == "full_attention" for kind in kinds) if kinds else getattr(config, "sliding_window", None) is None
    rope = getattr(config, "rope_parameters", None) or {}
    whole = rope.get("partial_rotary_factor", 1.0) == 1.0
    in_one_place = len({parameter.device for parameter in model.parameters()}) == 1
    return full and whole and in_one_place and config.hidden_act == "silu"


class LlamaForward:
    """The passes, layer by layer over the model's own modules."""

    def __init__(
        self,
        model: AnyModel,
        *,
        checkpointing: bool = False,
        graph: int | None = None,
        seam: Seam | None = None,
    ) -> None:
        """Take a model that `fits`.

        Args:
            model: the model.
            checkpointing: whether a pass with gradient keeps only each layer's input, and computes the rest again for
                the backward (Chen et al. 2016, arXiv 1604.06174); adapters must then stay in use until it is done.
            graph: most bytes that a pass keeps; as many layers as it takes are computed again. None is no limit.
            seam: where it is cut; None leaves it whole.
        """
        self._checkpointing, self._graph, self._seam = checkpointing, graph, seam
        self._bytes = bytes_kept(model)
        self._body: Any = model.model
        self._head: Any = model.get_output_embeddings()

    def read(self, ids: Tensor, mask: Tensor, prefix: Prefix | None = None) -> tuple[Next, Past]:
        """See `Forward`."""
        shared = None if prefix is None else self._read_prefix(prefix)
        seen = (mask if prefix is None else torch.cat([prefix.seen, mask], 2)).flatten(0, 1)  # (K * P, L)
        bias = self._bias(seen, ids.shape[2])
        packing = Packing(mask)
        last, past = self._read(packing, ids, positions_of(seen, ids.shape[2]), bias, shared)  # (K * P, D)
        below = None if self._seam is None else packing.last(self._seam.came.flatten(0, 1))  # (K * P, D)
        return Next(self._head(last), last, below), past

    def _read_prefix(self, prefix: Prefix) -> Past:
        """Its keys and values, of K rows."""
        mask = prefix.sees.diagonal(dim1=1, dim2=2)[:, None]  # (K, 1, Z)
        bias = self._unseen(~prefix.sees[:, None])  # (K, 1, Z, Z)
        return self._read(Packing(mask), prefix.ids[:, None], prefix.positions, bias, None)[1]

    def _read(
        self, packing: Packing, ids: Tensor, positions: Tensor, bias: Tensor, shared: Past | None
    ) -> tuple[Tensor, Past]:
        """Last hidden states `(K * R, D)` of the last tokens of the rows, and the past of these, of ids `(K, R, T)`."""
        new: list[Segment] = []

        def own(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            pair = packing.spread(key), packing.spread(value)
            if len(new) == layer:  # not when a layer is computed again for the backward
                new.append(pair)
            before = [] if shared is None else shared.segments(layer)
            return packing.gather(attend(packing.spread(query), [*before, pair], bias))

        with packing.layout():
            states = self._layers(packing.pack(ids), packing.pack(positions), own, packing)  # (K, M, D)
        keys, values = zip(*new, strict=True)
        return packing.last(states.flatten(0, 1)), Past(keys, values, shared)

    def decoder(self, mask: Tensor, past: Past, share: int, tokens: int) -> Decoder:
        """See `Forward`."""
        return _LlamaDecoder(self, mask.flatten(0, 1), past, share, tokens)

    def follow(self, ids: Tensor, mask: Tensor, prompts: Tensor, past: Past, readout: Readout) -> Tensor:
        """See `Forward`."""
        packing = Packing(mask)
        share = mask.shape[1] // prompts.shape[1]
        seen = torch.cat([prompts.repeat_interleave(share, 1), mask], 2).flatten(0, 1)  # (K * R, L + T)
        bias = self._bias(seen, ids.shape[2])

        def both(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            segments = [*past.segments(layer), (packing.spread(key), packing.spread(value))]
            return packing.gather(attend(packing.spread(query), segments, bias))

        positions = positions_of(seen, ids.shape[2])
        with packing.layout():
            states = self._layers(packing.pack(ids), packing.pack(positions), both, packing)  # (K, M, D)
        return self._judged(packing, states.flatten(0, 1), ids, readout)

    def _judged(self, packing: Packing, states: Tensor, ids: Tensor, readout: Readout) -> Tensor:
        """What a readout gives of tokens by their last hidden states `(K * M, D)`, on the grid of ids `(K, R, T)`."""
        states, places = states[packing.real], packing.places[packing.real]  # (n, D) and (n,)
        judged = readout(Next(self._head(states), states), places)  # (n,)
        return judged.new_zeros(ids.numel()).index_put((places,), judged).view(ids.shape)

    def _bias(self, mask: Tensor, tokens: int) -> Tensor:
        """What is added to the scores of the last `tokens` tokens, `(n, 1, tokens, L)`: 0, or very little if unseen."""
        length = mask.shape[1]
        causal = torch.ones(tokens, length, dtype=torch.bool, device=mask.device).tril(length - tokens)
        return self._unseen(~(mask[:, None, None] & causal))

    def _unseen(self, hidden: Tensor) -> Tensor:
        """0, or very little where True; finite, since a row of padding sees nothing at all and must not become NaN."""
        dtype = self._body.embed_tokens.weight.dtype
        return torch.zeros(1, dtype=dtype, device=hidden.device).masked_fill(hidden, -1e9)

    def _layers(self, ids: Tensor, positions: Tensor, mix: Mix, packing: Packing | None = None) -> Tensor:
        """Last hidden states `(a, b, D)` of tokens `(a, b)`, device by device; `packing` is needed with a gradient."""
        body = self._body
        x: Tensor = body.embed_tokens(ids)  # (a, b, D)
        cos, sin = body.rotary_emb(x, positions)
        turn = cos[:, :, None], sin[:, :, None]  # (a, b, 1, d) each
        again = self._computed_again(ids.numel()) if packing is not None and torch.is_grad_enabled() else 0
        for number in range(len(body.layers)):
            x = x if self._seam is None else self._seam.cross(number, x)  # (a, b, D)
            if packing is not None and number < again:
                x = _again_in_backward(self._layer, packing.layout, number, x, turn, mix)
            else:
                x = self._layer(number, x, turn, mix)
        states: Tensor = _norm(body.norm, x)
        return states

    def _computed_again(self, tokens: int) -> int:
        """How many of the layers keep their input only, the first ones: the others are done with before them."""
        layers = len(self._body.layers)
        if self._checkpointing:
            return layers
        return 0 if self._graph is None else max(0, layers - self._graph * layers // (tokens * self._bytes))

    def _layer(self, number: int, x: Tensor, turn: tuple[Tensor, Tensor], mix: Mix) -> Tensor:
        """Hidden states `(a, b, D)` after one layer."""
        layer = self._body.layers[number]
        query, key, value = _project(layer.self_attn, _norm(layer.input_layernorm, x), turn)
        mixed = mix(number, query * layer.self_attn.scaling, key, value)  # (a, b, H, d)
        x = x + layer.self_attn.o_proj(mixed.reshape(*x.shape[:2], -1))
        y = _norm(layer.post_attention_layernorm, x)
        return x + layer.mlp.down_proj(F.silu(layer.mlp.gate_proj(y)) * layer.mlp.up_proj(y))  # type: ignore[no-any-return]


def _again_in_backward(
    run: Callable[..., Tensor], layout: Callable[[], AbstractContextManager[None]], *of: Any
) -> Tensor:
    """`run(*of)`, computed again in the backward, where adapters need to hear again whose tokens are whose."""
    again: Tensor = checkpoint(
        run, *of, use_reentrant=False, preserve_rng_state=False, context_fn=lambda: (nullcontext(), layout())
    )
    return again


class _LlamaDecoder:
    """Rows that end leave the linear layers; keys and values stay where they are, and prompts' are never copied."""

    def __init__(self, forward: LlamaForward, mask: Tensor, past: Past, share: int, tokens: int) -> None:
        self._forward = forward
        self._past = past
        self._read = 0  # tokens so far
        self._all = past.rows * share  # N
        self._rows = torch.arange(self._all, device=mask.device)  # (n,), the rows that go on
        self._next = mask.sum(1).repeat_interleave(share)  # (N,), position of the next token
        open_ = torch.ones(len(mask), tokens, dtype=torch.bool, device=mask.device)
        self._bias = forward._bias(torch.cat([mask, open_], 1), 1).repeat_interleave(share, 0)  # (N, 1, 1, L + tokens)
        self._own = [
            tuple(part.new_zeros(self._all, part.shape[1], tokens, part.shape[3]) for part in pair)
            for pair in zip(past.keys, past.values, strict=True)
        ]  # per layer, keys and values (N, KV, tokens, d)

    def step(self, ids: Tensor) -> Next:
        states = self._forward._layers(ids[:, None], self._next[self._rows, None], self._mix)  # (n, 1, D)
        self._read += 1
        self._next = self._next + 1
        seam = self._forward._seam
        below = None if seam is None else seam.came[:, -1]  # (n, D)
        return Next(self._forward._head(states[:, -1]), states[:, -1], below)

    def keep(self, places: Tensor) -> None:
        self._rows = self._rows[places]

    def _mix(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """`(n, 1, H, d)`: all N rows attend, and those that go on take their part."""
        for own, new in zip(self._own[layer], (key, value), strict=True):
            own[self._rows, :, self._read] = new[:, 0]
        end = self._read + 1
        keys, values = (own[:, :, :end] for own in self._own[layer])
        segments = [*self._past.segments(layer), (keys, values)]
        bias = self._bias[..., : sum(segment[0].shape[2] for segment in segments)]
        if len(query) == self._all:
            return attend(query.transpose(1, 2), segments, bias).transpose(1, 2)
        everyone = query.new_zeros(self._all, *query.shape[1:]).index_copy_(0, self._rows, query)  # (N, 1, H, d)
        return attend(everyone.transpose(1, 2), segments, bias)[self._rows].transpose(1, 2)


def _norm(layer: Any, x: Tensor) -> Tensor:
    return F.rms_norm(x, layer.weight.shape, layer.weight, layer.variance_epsilon)


def _project(attention: Any, x: Tensor, turn: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Queries `(a, b, H, d)`, keys and values `(a, b, KV, d)`; queries and keys turned by their positions."""
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    q, k, v = (p(x).view(*x.shape[:2], -1, attention.head_dim) for p in projections)  # (a, b, heads, d)
    if hasattr(attention, "q_norm"):
        q, k = _norm(attention.q_norm, q), _norm(attention.k_norm, k)
    return _turn(q, *turn), _turn(k, *turn), v


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding (Su et al. 2021, arXiv 2104.09864), halves paired as in the checkpoints."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


def attend(query: Tensor, segments: list[Segment], bias: Tensor) -> Tensor:
    """Softmax attention over segments laid end to end.

    Args:
        query: `(n, H, T, d)`, scaled.
        segments: keys and values `(m, KV, L_i, d)`; row i meets row `i // (n / m)`, head h meets head `h // (H / KV)`.
        bias: `(n, 1, T, L)` with L the sum of L_i.

    Returns:
        `(n, H, T, d)`.
    """
    n, heads, t, _ = query.shape
    if t > 1 and (query.device.type != "cpu" or t * bias.shape[-1] > _PLAIN):
        keys, values = (
            torch.cat([_repeat(part, n) for part in parts], 2) for parts in zip(*segments, strict=True)
        )  # (n, KV, L, d) each
        grouped = keys.shape[1] != heads
        return F.scaled_dot_product_attention(query, keys, values, attn_mask=bias, scale=1.0, enable_gqa=grouped)
    scores = [_unfold(_fold(query, k) @ k.transpose(2, 3), query.shape) for k, _ in segments]  # (n, H, T, L_i) each
    weights = torch.softmax((torch.cat(scores, -1) if len(scores) > 1 else scores[0]) + bias, -1)  # (n, H, T, L)
    parts = weights.split([k.shape[2] for k, _ in segments], -1)
    mixed = [_unfold(_fold(w, v) @ v, query.shape) for w, (_, v) in zip(parts, segments, strict=True)]
    return reduce(torch.add, mixed)  # (n, H, T, d)


def _repeat(tensor: Tensor, rows: int) -> Tensor:
    return tensor if tensor.shape[0] == rows else tensor.repeat_interleave(rows // tensor.shape[0], 0)


def _fold(x: Tensor, shared: Tensor) -> Tensor:
    """Lay the rows and heads that meet one row and head of `shared` `(m, KV, ...)` side by side: `(m, KV, *, e)`."""
    n, heads, t, e = x.shape
    m, kv = shared.shape[:2]
    if (n, heads) == (m, kv):
        return x
    return x.reshape(m, n // m, kv, heads // kv, t, e).transpose(1, 2).reshape(m, kv, -1, e)


def _unfold(x: Tensor, like: torch.Size) -> Tensor:
    """The inverse of `_fold`: `(n, H, T, e)` from `(m, KV, *, e)`."""
    n, heads, t, _ = like
    m, kv, _, e = x.shape
    if (n, heads) == (m, kv):
        return x
    return x.view(m, kv, n // m, heads // kv, t, e).transpose(1, 2).reshape(n, heads, t, e)
