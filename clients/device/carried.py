"""Which tensors of an adapter travel, and which are a device's own.

A message may carry a part of the adapter only, by name. The other tensors are then the device's own: what it kept of
them (FedSA-LoRA's B, for instance), or, as long as it has not learned any, those of the run's first adapter, which all
devices know (FFA-LoRA's A, for instance, which nobody ever learns). What is learned beside LoRA travels with any
factor.
"""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from flwr.app import ArrayRecord, Context, Message, RecordDict

import flsim.flower.messages as wire
from flsim.config.model import LoraShape
from flsim.flower.arrays import to_adapter, to_arrays
from flsim.models.adapter import Adapter, cropped, only
from flsim.seeding import generator

_OWN = "own"


def adapters_of(
    messages: Sequence[Message],
    contexts: Sequence[Context],
    *,
    first: Adapter,
    shape: LoraShape,
    shapes: Sequence[LoraShape],
) -> list[Adapter]:
    """The whole adapter of each device of a pack; devices that hold the same get one and the same object.

    Args:
        messages: of the pack.
        contexts: of its devices, which may keep a part for themselves.
        first: the adapter that the run starts from.
        shape: its rank and alpha, the widest; of what is no LoRA, any.
        shapes: those of each device.
    """
    carried = wire.adapters_of(messages)
    shared: dict[tuple[int, int, float], Adapter] = {}
    adapters = []
    for part, context, own_shape in zip(carried, contexts, shapes, strict=True):
        if len(part) == len(first):
            adapters.append(part)
            continue
        key = (id(part), own_shape.rank, own_shape.alpha)
        if key not in shared:
            shared[key] = {**cropped(first, own_shape, shape), **part}
        own = _own(context.state)
        whole = shared[key] | own if own else shared[key]
        adapters.append({name: whole[name] for name in first} if own else whole)
    return adapters


def fingerprint(adapters: Sequence[Adapter]) -> bytes:
    """Of the adapters of a pack: equal if all of their numbers are."""
    each = {id(adapter): adapter for adapter in adapters}  # devices that hold the same share one
    known = {}
    for key, adapter in each.items():
        found = blake2b(digest_size=16)
        for name in sorted(adapter):
            found.update(name.encode())
            found.update(np.ascontiguousarray(adapter[name]).data)
        known[key] = found.digest()
    return b"".join(known[id(adapter)] for adapter in adapters)


def part_to_send(adapter: Adapter, message: Message) -> Adapter:
    """Of a device's new adapter, what the message carried and let it learn."""
    carried = wire.arrays_of(message)
    return {name: tensor for name, tensor in only(adapter, wire.learns_of(message)).items() if name in carried}


def keep_own(state: RecordDict, adapter: Adapter, message: Message) -> None:
    """Keep what the device learned and the message did not carry."""
    carried = wire.arrays_of(message)
    own = {name: tensor for name, tensor in only(adapter, wire.learns_of(message)).items() if name not in carried}
    if own:
        state[_OWN] = to_arrays(own)


def _own(state: RecordDict) -> Adapter:
    record = state.get(_OWN)
    return to_adapter(record) if isinstance(record, ArrayRecord) else {}


def opts_in(chance: float, device: int, *, seed: int) -> bool:
    """Whether a device lets the server see the questions that it sent to the cloud.

    Args:
        chance: `fleet.opt_in`.
        device: its index.
        seed: of the stream.
    """
    return float(generator(seed, "sharing", device).random()) < chance
