"""`flsim/models/llama.py` for a card: decoding and passes with gradient as captured work, for shapes that come again.

What is computed is the same, but for the order of sums over columns that weigh nothing; tokens, log-probabilities and
gradients agree to rounding. A call whose shape is new captures it; what one capture cannot serve, since its tensors are
still in use, or what would not pay, goes the plain way.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from flsim.models.builtin_llama import AnyModel
from flsim.models.forward import Decoder, Next, Past, Readout, positions_of
from flsim.models.llama import LlamaForward, fits
from flsim.models.static.adapters import Signature, StaticAdapters, attached, signature_of
from flsim.models.static.capturing import CudaGraphs, Graphs, NoGraphs
from flsim.models.static.decoding import StaticRoom, rounded
from flsim.models.static.passes import PassShape, StaticPass, flat

_KEPT = 4  # of a kind: each holds its memory
_MOST = 2**14  # tokens of a captured pass: a larger one keeps a card busy anyway, and would hold much memory
_BY_LENGTH = ("dynamic", "longrope")  # rotary angles

RoomShape = tuple[tuple[torch.Size, ...], int, int, Signature]  # of the past, share, tokens, adapters
Shape = TypeVar("Shape")
Made = TypeVar("Made", StaticRoom, StaticPass, StaticAdapters)


def can_be_captured(model: AnyModel) -> bool:
    """Whether the short passes read it, and no number decides in Python how: not so where angles follow the length."""
    rope = getattr(model.config, "rope_parameters", None) or {}
    return fits(model) and rope.get("rope_type", "default") not in _BY_LENGTH


class StaticForward(LlamaForward):
    """The passes of a model that `fits`, on one card."""

    def __init__(self, model: AnyModel, graphs: Callable[[], Graphs] | None = None) -> None:
        """Take the model.

        Args:
            model: of which nothing is cut, and nothing computed again for the backward.
            graphs: what captures; None is the card that the model lies on, and on a processor nothing.
        """
        super().__init__(model)
        self._model = model
        self._graphs = graphs or (CudaGraphs if model.device.type == "cuda" else NoGraphs)
        self._rooms: dict[RoomShape, StaticRoom] = {}
        self._passes: dict[PassShape, StaticPass] = {}
        self._of_rooms: Graphs | None = None  # for all rooms: no two of them are at work at a time
        self._adapters: dict[Signature, StaticAdapters] = {}  # likewise

    def decoder(self, mask: Tensor, past: Past, share: int, tokens: int) -> Decoder:
        """See `Forward`."""
        if not all(room.free for room in self._rooms.values()):  # they share the adapters' copies, and memory
            return super().decoder(mask, past, share, tokens)
        signature = signature_of(self._model)
        shape = tuple(map(_roomy, flat(past))), share, rounded(tokens), signature
        room = _found(self._rooms, shape, lambda: self._room(past, share, tokens, signature))
        return room.begin(mask.flatten(0, 1), past)

    def _room(self, past: Past, share: int, tokens: int, signature: Signature) -> StaticRoom:
        if self._of_rooms is None:
            self._of_rooms = self._graphs()
        adapters = _found(self._adapters, signature, lambda: StaticAdapters(self._model))
        return StaticRoom(self._layers, self._head, past, share, tokens, self._of_rooms, adapters)

    def follow(self, ids: Tensor, mask: Tensor, prompts: Tensor, past: Past, readout: Readout) -> Tensor:
        """See `Forward`."""
        places = mask.flatten().nonzero()[:, 0]  # (n,)
        pass_ = self._pass(ids, past, keeps=False) if len(places) else None
        if pass_ is None:
            return super().follow(ids, mask, prompts, past, readout)
        share, t = mask.shape[1] // prompts.shape[1], ids.shape[2]
        seen = torch.cat([prompts.repeat_interleave(share, 1), mask], 2).flatten(0, 1)  # (K * R, L + T)
        states, _ = pass_(ids, positions_of(seen, t).view(ids.shape), self._bias(seen, t), past)  # (K, R, T, D)
        states = states.flatten(0, 2).index_select(0, places)  # (n, D)
        judged = readout(Next(self._head(states), states), places)  # (n,)
        return judged.new_zeros(ids.numel()).index_put((places,), judged).view(ids.shape)

    def _read(
        self, packing: Any, ids: Tensor, positions: Tensor, bias: Tensor, shared: Past | None
    ) -> tuple[Tensor, Past]:
        """See `LlamaForward`."""
        pass_ = self._pass(ids, shared, keeps=True)
        if pass_ is None:
            return super()._read(packing, ids, positions, bias, shared)
        states, kept = pass_(ids, positions.view(ids.shape), bias, shared)  # (K, R, T, D)
        keys, values = zip(*kept, strict=True)
        return states[:, :, -1].flatten(0, 1), Past(keys, values, shared)  # (K * R, D)

    def _pass(self, ids: Tensor, past: Past | None, *, keeps: bool) -> StaticPass | None:
        """What passes ids `(K, R, T)` on after a past; None if it is to go the plain way."""
        k, r, t = ids.shape
        before, adapters = flat(past), attached(self._model)
        if (
            not torch.is_grad_enabled()
            or not any(part.requires_grad for part in adapters)
            or k * r * rounded(t) > _MOST
        ):
            return None
        sizes, pulled = tuple(map(_roomy, before)), tuple(part.requires_grad for part in before)
        segments = 0 if past is None else len(past.segments(0))
        shape = PassShape((k, r, rounded(t)), segments, sizes, pulled, signature_of(self._model), keeps)
        parts = self._model, self._layers, shape, self._body.norm.weight
        found = _found(self._passes, shape, lambda: StaticPass(*parts, self._graphs()))
        return found if found.free else None


def _found(kept: dict[Shape, Made], shape: Shape, make: Callable[[], Made]) -> Made:
    """What was made for a shape; of those that were not used for longest one is dropped for a new one."""
    found = kept.pop(shape, None)
    if found is None:
        while len(kept) >= _KEPT:
            del kept[next(iter(kept))]
        found = make()
    kept[shape] = found
    return found


def _roomy(part: Tensor) -> torch.Size:
    """The size of keys or values `(m, KV, L, d)` with room for more columns."""
    return torch.Size((*part.shape[:2], rounded(part.shape[2]), part.shape[3]))
