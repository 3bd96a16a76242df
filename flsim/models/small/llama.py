"""The passes of `flsim/models/llama.py` for a small model in float32 on a CPU, as the built-in one, in fewer calls.

What is computed is the same but for rounding. Layers that read the same are one product, adapters are merged where
nothing is learned, and a pass is one node of autograd's graph, with its gradient by hand. What rotary embedding says of
a position is looked up in a table.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from flsim.models.builtin_llama import AnyModel, BuiltinLlama
from flsim.models.forward import Decoder, Past, Readout, positions_of
from flsim.models.llama import LlamaForward, fits
from flsim.models.lora_linear import Attached, Uneven, uneven
from flsim.models.packing import Packing
from flsim.models.small.attention import HeadGrid, attend, pull_attend, segments_of
from flsim.models.small.decoder import Ends, SmallDecoder
from flsim.models.small.layer import Kept, Norm, SmallLayer, Turn, WornLayer, is_small, turn_of
from flsim.models.small.stack import Found, Joined, Joining

_LONGEST = 64  # positions of a model whose attention is always short
_MERGED = 2**22  # most numbers of matrices with merged adapters, 16 MiB: what stays in the cache between two tokens
_WORTH = 32  # fewest tokens at a time of each device for which they are made


def is_small_llama(model: AnyModel) -> bool:
    """Whether it is a Llama with as many key as query heads, plain linear layers, and room for a few words."""
    if not fits(model) or model.config.model_type != "llama":
        return False
    config: Any = model.config
    if config.num_key_value_heads != config.num_attention_heads:
        return False
    if not isinstance(model, BuiltinLlama):
        rope = getattr(config, "rope_parameters", None) or {}
        if rope.get("rope_type") != "default" or config.max_position_embeddings > _LONGEST:
            return False
    body: Any = model.model
    return all(map(is_small, body.layers))


class SmallLlamaForward(LlamaForward):
    """The passes by hand; a prefix that prompts share is read by the modules."""

    def __init__(self, model: AnyModel) -> None:
        """Take a model that `is_small_llama`."""
        super().__init__(model)
        self._model = model
        self.norm = Norm(self._body.norm)
        self._small = [SmallLayer(layer) for layer in self._body.layers]
        self._stacks = [stack for layer in self._small for stack in layer.stacks]
        self._attached: Attached | None = None  # what was on when `_worn` was made
        self._version = 0
        self._joining: Joining | None = None  # of the adapters that were on last
        self._worn: list[WornLayer] = []
        self._merged: list[WornLayer] = []  # the same with merged adapters; empty until they are wanted
        attention = self._body.layers[0].self_attn
        self._heads, self._scaling = int(model.config.num_attention_heads), float(attention.scaling)
        self._table = torch.empty(0, 2, 2, 1, 0)  # (positions, 2, 2, 1, d)

    def worn(self, tokens: int) -> list[WornLayer] | None:
        """The layers with the adapters that are on; None of a model that is small no longer, as in another dtype.

        Args:
            tokens: that they are to read at a time.
        """
        known = all(stack.is_as_it_was() for stack in self._stacks)
        if not known and not is_small_llama(self._model):
            return None
        if not known:
            for stack in self._stacks:
                stack.look()
        attached = next((stack.attached for stack in self._stacks if stack.attached is not None), None)
        version = 0 if attached is None else attached.theta._version  # it grows whenever theta is written into
        if not (known and self._worn and attached is self._attached and version == self._version):
            if attached is not None and (not known or self._joining is None or self._joining.shapes != attached.shapes):
                self._joining = Joining(self._stacks, attached.shapes)
            self._worn, self._merged = self._dressed(attached), []
            self._attached, self._version = attached, version
        if torch.is_grad_enabled() or not self._merges(attached, tokens):
            return self._worn
        self._merged = self._merged or [layer.merged() for layer in self._worn]
        return self._merged

    def _dressed(self, attached: Attached | None) -> list[WornLayer]:
        joined: list[Joined | None] = [None] * len(self._stacks)
        if attached is not None and self._joining is not None:
            joined = self._joining.joined(attached)
        each = len(self._stacks) // len(self._small)
        return [layer.worn(joined[i * each : (i + 1) * each]) for i, layer in enumerate(self._small)]

    def _merges(self, attached: Attached | None, tokens: int) -> bool:
        """Whether a matrix for each device stays in the cache, and is read by enough tokens to be worth its making."""
        if attached is None or tokens < _WORTH * len(attached.theta):
            return False
        return len(attached.theta) * sum(stack.size for stack in self._stacks) <= _MERGED

    def embedded(self, ids: Tensor) -> Tensor:
        """What goes into the first layer, `(1, N, D)`, of tokens `(N,)`."""
        return F.embedding(ids[None], self._body.embed_tokens.weight)

    def turns(self, most: int) -> Tensor:
        """Of at least so many positions what turns queries and keys, `(P, 2, 2, 1, d)`: see `Turn`.

        First the cosines, then the sines with the sign of the half that is swapped there.
        """
        if most > self._table.shape[0]:
            places = torch.arange(max(most, _LONGEST))[None]  # (1, P)
            cos, sin = (part[0, :, None] for part in self._body.rotary_emb(self._table, places))  # (P, 1, d) each
            first, second = sin.chunk(2, -1)
            of_keys = torch.stack([cos, torch.cat([-first, second], -1)], 1)  # (P, 2, 1, d)
            self._table = torch.stack([of_keys * self._scaling, of_keys], 2)  # (P, 2, 2, 1, d)
        return self._table

    def _read(
        self, packing: Packing, ids: Tensor, positions: Tensor, bias: Tensor, shared: Past | None
    ) -> tuple[Tensor, Past]:
        layers = self.worn(len(packing.places))
        if shared is not None or layers is None:
            return super()._read(packing, ids, positions, bias, shared)
        states, *tensors = self._passed(layers, packing, ids, positions, bias, None)
        half = len(self._small)
        return states[0], Past(tuple(tensors[:half]), tuple(tensors[half:]))

    def follow(self, ids: Tensor, mask: Tensor, prompts: Tensor, past: Past, readout: Readout) -> Tensor:
        """See `Forward`."""
        packing = Packing(mask)
        layers = self.worn(len(packing.places))
        if past.shared is not None or layers is None:
            return super().follow(ids, mask, prompts, past, readout)
        share = mask.shape[1] // prompts.shape[1]
        seen = torch.cat([prompts.repeat_interleave(share, 1), mask], 2).flatten(0, 1)  # (K * R, L + T)
        bias, positions = self._bias(seen, ids.shape[2]), positions_of(seen, ids.shape[2])
        states = self._passed(layers, packing, ids, positions, bias, past)[0]  # (1, N, D)
        return self._judged(packing, states[0], ids, readout)

    def _passed(
        self,
        layers: list[WornLayer],
        packing: Packing,
        ids: Tensor,
        positions: Tensor,
        bias: Tensor,
        past: Past | None,
    ) -> Sequence[Tensor]:
        """Last hidden states `(1, N, D)` of tokens after a past.

        Where nothing was read before, those of the rows' last tokens `(1, n, D)`, then keys, then values
        `(n, H, T, d)`.
        """
        attached = self._attached
        x = self.embedded(packing.pack(ids).flatten())  # (1, N, D)
        turn = turn_of(self.turns(bias.shape[-1]), packing.pack(positions).flatten())
        with packing.layout():
            tokens = uneven()
        ends = packing.ends if past is None else None  # (n,)
        grid = _Grid(packing, self._heads, bias, past)
        run = _Run(layers, self.norm, x, turn, grid, tokens, ends)
        before = () if past is None else past.tensors
        learned = before if attached is None else (attached.theta, *before)
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in learned):
            on = None if attached is None or self._joining is None else (self._joining, attached)
            theta = None if attached is None else attached.theta
            found: tuple[Tensor, ...] = _Passing.apply(run, on, theta, *before)  # type: ignore[no-untyped-call]
            return found
        return run.forward(keep=False)

    def decoder(self, mask: Tensor, past: Past, share: int, tokens: int) -> Decoder:
        """See `Forward`."""
        layers = self.worn(mask.shape[0] * mask.shape[1] * share)
        if past.shared is not None or layers is None:
            return super().decoder(mask, past, share, tokens)
        seen = mask.flatten(0, 1)  # (K * P, L)
        ends = Ends(self.embedded, self.turns(seen.shape[1] + tokens), self.norm, self._head)
        unseen = None if bool(seen.all()) else self._unseen(~seen).repeat_interleave(share, 0)  # (N, L)
        return SmallDecoder(layers, ends, seen.sum(1).repeat_interleave(share), unseen, past, tokens)


class _Grid:
    """Attention of packed tokens on the grid of their rows, after what was read before, if anything was."""

    def __init__(self, packing: Packing, heads: int, bias: Tensor, past: Past | None) -> None:
        rows, tokens = packing.grid
        self._past = () if past is None else past.keys[0].shape[:2]
        share = 1 if past is None else rows // past.keys[0].shape[0]
        self._grid = HeadGrid(packing, heads, share)
        self._bias = bias.view(-1, share, 1, tokens, bias.shape[3]).transpose(1, 2)  # (m, 1, S, T, L)
        self._before = [] if past is None else segments_of(past)
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.of_past: list[tuple[Tensor, Tensor]] = []
        """Gradients of keys and values that were there before, the last layer first."""
        self.of_own: Sequence[tuple[Tensor | None, Tensor | None]] = ()
        """Gradients of keys and values that were read here, as somebody else looked at them."""

    def mix(self, number: int, qkv: Tensor) -> tuple[Tensor, Any]:
        """See `Mixing`."""
        query, key, value = self._grid.spread_three(qkv).unbind()  # (m, H, S, T, d) each
        if not self._before:  # others go on after these, and find nothing where there is no token
            self.keys.append(self._grid.emptied(key)[:, :, 0])  # (n, H, T, d)
            self.values.append(self._grid.emptied(value)[:, :, 0])  # (n, H, T, d)
        before = self._before[number] if self._before else None
        own = key.flatten(0, 2), value.flatten(0, 2)  # (m H S, T, d) each
        mixed, weights = attend(query, before, own, self._bias)  # (m, H, S, T, d)
        return self._grid.gather(mixed), (query, before, own, weights)

    def pull(self, number: int, kept: Any, g: Tensor) -> Tensor:
        """See `LearnedMixing`."""
        query, before, own, weights = kept
        of_query, of_before, of_own = pull_attend(self._grid.spread(g), query, before, own, weights)
        if of_before is not None:
            key, value = (of.unflatten(0, self._past) for of in of_before)  # (m, H, L, d) each
            self.of_past.append((key, value))
        found = [of.view(query.shape) for of in of_own]  # (m, H, S, T, d) each
        if self.of_own:
            pairs = zip(found, self.of_own[number], strict=True)
            found = [of if looked is None else looked.view(query.shape) + of for of, looked in pairs]
        return self._grid.gather_three([of_query, *found])  # (N, 3, H, d)


class _Run:
    """A pass and what its backward needs."""

    def __init__(
        self,
        layers: list[WornLayer],
        norm: Norm,
        x: Tensor,
        turn: Turn,
        grid: _Grid,
        tokens: Uneven | None,
        ends: Tensor | None,
    ) -> None:
        self._layers, self._norm, self._x, self._turn = layers, norm, x, turn
        self._grid, self._tokens, self._ends = grid, tokens, ends
        self._kept: list[Kept] = []
        self._last = x, x  # what goes into the last norm, and the reciprocal root of its mean square

    def forward(self, *, keep: bool) -> tuple[Tensor, ...]:
        """Last hidden states of the tokens that are wanted, then keys and values of every layer that is read first."""
        x = self._x
        for number, layer in enumerate(self._layers):
            x, kept = layer.read(number, x, self._turn, self._grid, self._tokens, self._wanted(number))
            if keep:
                self._kept.append(kept)
        states, root = self._norm.normed(x)
        self._last = x, root
        return (states, *self._grid.keys, *self._grid.values)

    def _wanted(self, number: int) -> Tensor | None:
        """The tokens of which a layer's states are wanted; None are all."""
        return self._ends if number == len(self._layers) - 1 else None

    def backward(self, g: Tensor | None, looked: Sequence[Tensor | None], found: Found) -> list[Tensor]:
        """The gradients of keys, then values that were there before.

        Args:
            g: of the last hidden states; None is zero.
            looked: of the keys, then the values that were read.
            found: room for those of the factors.
        """
        half = len(self._layers)
        self._grid.of_own = list(zip(looked[:half], looked[half:], strict=True))
        below: Tensor | None = self._norm.pull(torch.zeros_like(self._last[0]) if g is None else g, *self._last)
        for number in range(half - 1, -1, -1):
            assert below is not None
            parts = number, below, self._kept.pop(), self._turn, self._grid, found, self._tokens
            below = self._layers[number].pull(*parts, self._wanted(number), wanted=number > 0)
        keys, values = [pair[0] for pair in self._grid.of_past], [pair[1] for pair in self._grid.of_past]
        return [*reversed(keys), *reversed(values)]


class _Passing(torch.autograd.Function):
    """A pass as one node: the gradients of theta and of what was read before."""

    @staticmethod
    def forward(
        ctx: Any, run: _Run, on: tuple[Joining, Attached] | None, theta: Tensor | None, *past: Tensor
    ) -> tuple[Tensor, ...]:
        """See `_Run.forward`."""
        ctx.run, ctx.on = run, on
        ctx.set_materialize_grads(False)
        return tuple([tensor.detach() for tensor in run.forward(keep=True)])  # `run` must not hold its own node

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        """See `_Run.backward`."""
        found: Found = [] if ctx.on is None else ctx.on[0].empty()
        past = ctx.run.backward(gradients[0], gradients[1:], found)
        theta = None if ctx.on is None else ctx.on[0].gradient(found, ctx.on[1])  # (K, n)
        return None, None, theta, *past
