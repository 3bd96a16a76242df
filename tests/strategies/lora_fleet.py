"""A small fleet of unequal ranks and alphas for the tests of aggregation, and its adapters as dense products."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flsim.config.load import load_config
from flsim.config.model import LoraShape
from flsim.config.schema import Config
from flsim.models.adapter import Adapter, only
from strategies.base import DeltaStrategy, Update

Dense = dict[str, NDArray[np.float64]]

WIDTHS = {"base_model.model.q_proj": (7, 5), "base_model.model.up_proj": (9, 6)}  # layer: (out, in)
UNEQUAL = ("model.rank=4", "model.alpha=8", "fleet.devices=6", "fleet.ranks=[4,2,3]", "fleet.alphas=[8,6,3]")
EQUAL = ("model.rank=4", "model.alpha=8", "fleet.devices=6")


def fleet(*settings: str) -> Config:
    return load_config(None, list(settings))


def draw(rank: int, *seed: int, size: float = 1.0) -> Adapter:
    rng = np.random.default_rng(seed)
    adapter: Adapter = {}
    for layer, (out, in_) in WIDTHS.items():
        adapter[f"{layer}.lora_A.weight"] = (size * rng.normal(size=(rank, in_))).astype(np.float32)
        adapter[f"{layer}.lora_B.weight"] = (size * rng.normal(size=(out, rank))).astype(np.float32)
    return adapter


def dense(adapter: Adapter, scale: float) -> Dense:
    """`s B A` of every layer."""
    return {
        layer: scale * adapter[f"{layer}.lora_B.weight"].astype(np.float64) @ adapter[f"{layer}.lora_A.weight"]
        for layer in WIDTHS
    }


def plus(*terms: tuple[float, Dense]) -> Dense:
    return {layer: np.sum([weight * of[layer] for weight, of in terms], 0) for layer in WIDTHS}


def best(product: Dense, rank: int) -> Dense:
    """The nearest products of this rank, by NumPy's SVD."""
    nearest = {}
    for layer, matrix in product.items():
        u, s, v = np.linalg.svd(matrix, full_matrices=False)
        nearest[layer] = (u[:, :rank] * s[:rank]) @ v[:rank]
    return nearest


def apart(one: Dense, other: Dense) -> float:
    """Distance of two products, relative to the second."""
    gap = sum(float(((one[layer] - other[layer]) ** 2).sum()) for layer in WIDTHS)
    return float(np.sqrt(gap / sum(float((other[layer] ** 2).sum()) for layer in WIDTHS)))


def updates_of(
    strategy: DeltaStrategy, config: Config, server: Adapter, counts: Sequence[int], *, size: float = 0.3
) -> list[Update]:
    """What devices of the fleet come back with: what they were dealt, moved at random."""
    updates = []
    for device, count in enumerate(counts):
        shape = config.shape_of(device)
        sent = only(only(strategy.deal(server, shape), strategy.carries), strategy.learns)
        move = draw(shape.rank, 1, device, size=size)
        updates.append(update(device, sent, {name: t + move[name] for name, t in sent.items()}, count, shape))
    return updates


def update(device: int, sent: Adapter, adapter: Adapter, count: int, shape: LoraShape, reward: float = 0.5) -> Update:
    return Update(device, count, count, reward, sent=sent, adapter=adapter, shape=shape)


def shares(counts: Sequence[int]) -> list[float]:
    return [count / sum(counts) for count in counts]
