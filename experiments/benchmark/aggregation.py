"""Aggregating LoRA adapters at the server: in product space without dense matrices, against two dense ways.

Every way gets the same 100 factored updates of a layer, with weights, and gives back the rank-16 product nearest to
their weighted sum. "Product space" is `flsim.aggregation.low_rank` in the way that it chooses by itself; "later round"
is the same begun at what the round before found, as a strategy begins it. "Dense + SVD" forms the average and
decomposes all of it, as FlexLoRA's reference implementation does; "dense + eigh" takes eigenvectors of the smaller Gram
instead, the fastest dense way of NumPy. To the dense ways' advantage their average is one large matrix product too, not
a sum of one device after the other. Both of ours say how much energy was cut as well.

The layers are Qwen2.5-0.5B's: 24 blocks of seven, of four shapes. With two threads two layers of a shape are worked
on at a time, by every way alike, and a layer takes half of that; the model's time is the sum over shapes of a layer's
by their number. Updates are a common direction of learning plus 0.3 of each device's own; a round before, the common
direction lay as far away. They come in float32, as adapters do; sums and decompositions are float64, and each layer has
one thread of BLAS. Residuals are relative to the norm of the exact sum; memory is the peak of NumPy's arrays beyond the
updates, without LAPACK's own workspace. Last, the strategy itself, `FlexLora.aggregate`: one block, times 24.
"""

import argparse
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.benchmark.measuring import clock_argument, conditions, seconds_of, spread
from flsim.aggregation.layers import by_layer
from flsim.aggregation.low_rank import balanced, cheapest, truncated
from flsim.aggregation.pairs import Factors, Matrix, Pair, weighted_sum
from flsim.config.model import ModelConfig
from flsim.config.schema import Config, EngineConfig
from flsim.models.adapter import Adapter
from flsim.seeding import generator
from flsim.text import markdown_table as table
from strategies.base import Update
from strategies.flex_lora import FlexLora

Terms = Sequence[tuple[float, Factors]]
Way = Callable[[Terms, int, Matrix], Pair]


@dataclass(frozen=True)
class Shape:
    """Linear layers of equal shape."""

    name: str
    outputs: int
    inputs: int
    count: int
    """How many of them the model has."""


QWEN = (
    Shape("q, o", 896, 896, 48),
    Shape("k, v", 128, 896, 48),
    Shape("gate, up", 4864, 896, 48),
    Shape("down", 896, 4864, 24),
)
"""Qwen2.5-0.5B: hidden 896, intermediate 4864, keys and values 128, 24 blocks."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--devices", type=int, default=100, help="updates to aggregate (default 100)")
    parser.add_argument("--rank", type=int, default=16, help="of every update and of the result (default 16)")
    parser.add_argument("--repeats", type=int, default=3, help="measurements per figure (default 3)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="layers at a time (default 1 2)")
    clock_argument(parser, of="all times")


def main(args: argparse.Namespace) -> None:
    """Measure and print."""
    setting = f"{args.devices} updates of rank {args.rank} to rank {args.rank}"
    repeats = f"median (min..max) of {args.repeats}"
    print(conditions(f"NumPy {np.__version__}", f"{args.clock} time", setting, repeats))
    print("\n" + quality_table([quality(shape, args.devices, args.rank) for shape in QWEN]))
    for threads in args.threads:
        found = []
        for shape in QWEN:
            found.append(timed(shape, args.devices, args.rank, args.repeats, args.clock, threads))
            print(shape.name, *(f"{spread(seconds).median:.3f}" for seconds in found[-1].seconds), file=sys.stderr)
        whole = strategy_seconds(QWEN, args.devices, args.rank, args.repeats, args.clock, threads)
        print(f"\nLayers at a time: {threads}\n{time_table(found)}")
        print(f"\nFlexLora.aggregate of the model: {spread(whole).text(2)} s", flush=True)


def product_space(terms: Terms, rank: int, start: Matrix) -> Pair:
    """Ours, begun at random."""
    return balanced(truncated(terms, rank))


def later_round(terms: Terms, rank: int, start: Matrix) -> Pair:
    """Ours, begun at what was found in the round before."""
    return balanced(truncated(terms, rank, start=start))


def dense_svd(terms: Terms, rank: int, start: Matrix) -> Pair:
    """The average and its whole decomposition."""
    u, s, v = np.linalg.svd(weighted_sum(terms).product(), full_matrices=False)
    return Pair(u[:, :rank] * s[:rank], v[:rank])


def dense_eigh(terms: Terms, rank: int, start: Matrix) -> Pair:
    """The average and the eigenvectors of its smaller Gram."""
    average = weighted_sum(terms).product()  # (m, n)
    wide = average.shape[0] < average.shape[1]
    tall = average.T if wide else average
    span = np.linalg.eigh(tall.T @ tall)[1][:, -rank:]  # (min(m, n), r)
    return Pair(span, span.T @ average) if wide else Pair(average @ span, span.T)


WAYS: dict[str, Way] = {
    "product space": product_space,
    "later round": later_round,
    "dense + SVD": dense_svd,
    "dense + eigh": dense_eigh,
}


@dataclass(frozen=True)
class Timed:
    """What the ways took for one layer of a shape, in the order of `WAYS`."""

    shape: Shape
    seconds: list[list[float]]
    """Per way, one figure a repeat."""


@dataclass(frozen=True)
class Quality:
    """What the ways found for one layer of a shape, in the order of `WAYS`, and in how much memory."""

    shape: Shape
    method: str
    """What product space chose."""
    residuals: list[float]
    """Relative to the norm of the exact sum."""
    megabytes: list[float]
    """Peak beyond the updates."""
    estimate: float
    """The energy cut as product space says it, over what it cut; 1 where it is exact."""
    error: float
    """The standard error that it states, over the same."""


def timed(shape: Shape, devices: int, rank: int, repeats: int, clock: str, threads: int) -> Timed:
    """As many layers of a shape as there are threads, all ways in turn, after one turn to warm up."""
    layers = {str(index): updates(shape, devices, rank, layer=index) for index in range(threads)}
    starts = {name: before(shape, devices, rank, layer=int(name)) for name in layers}

    def once(way: Way) -> float:
        def of_layer(name: str) -> Pair:
            return way(layers[name], rank, starts[name])

        return seconds_of(lambda: by_layer(of_layer, layers, threads=threads), clock) / threads

    rounds = [[once(way) for way in WAYS.values()] for _ in range(repeats + 1)][1:]
    return Timed(shape, [list(way) for way in zip(*rounds, strict=True)])


def quality(shape: Shape, devices: int, rank: int) -> Quality:
    """One layer of a shape, by every way."""
    terms, start = updates(shape, devices, rank), before(shape, devices, rank)
    exact = weighted_sum(terms).product()  # (m, n)
    lefts, megabytes = [], []
    for way in WAYS.values():
        result, peak = _with_peak(way, terms, rank, start)
        lefts.append(float(np.linalg.norm(exact - result.product())))
        megabytes.append(peak)
    said, cut, size = truncated(terms, rank), lefts[0] ** 2, float(np.linalg.norm(exact))
    method = cheapest(shape.outputs, shape.inputs, devices * rank, rank)
    return Quality(shape, method, [left / size for left in lefts], megabytes, said.cut / cut, said.error / cut)


def updates(shape: Shape, devices: int, rank: int, *, layer: int = 0, moved: float = 0.0) -> Terms:
    """Factored updates with weights, of a layer of the shape; `moved` is how far off their common direction lies."""
    rng, away = (generator(0, what, shape.name, layer) for what in ("updates", "moved"))
    b, a = rng.normal(size=(shape.outputs, rank)), rng.normal(size=(rank, shape.inputs))
    b, a = b + moved * away.normal(size=b.shape), a + moved * away.normal(size=a.shape)
    return [
        (
            rng.uniform(0.5, 1.5) / devices,
            Factors(_near(b, rng), _near(a, rng), 1.0),
        )
        for _ in range(devices)
    ]


def _near(common: Matrix, rng: np.random.Generator) -> NDArray[np.float32]:
    return (common + 0.3 * rng.normal(size=common.shape)).astype(np.float32)


def before(shape: Shape, devices: int, rank: int, *, layer: int = 0) -> Matrix:
    """The directions `(r, n)` that were found a round before."""
    return truncated(updates(shape, devices, rank, layer=layer, moved=0.3), rank).v


def strategy_seconds(
    shapes: Sequence[Shape], devices: int, rank: int, repeats: int, clock: str, threads: int
) -> list[float]:
    """What `FlexLora.aggregate` takes for the model, one figure a repeat: that of a block by the number of blocks."""
    blocks = min(shape.count for shape in shapes)
    of_devices: list[Adapter] = [{} for _ in range(devices + 1)]
    for shape in shapes:
        for layer in range(shape.count // blocks):
            for adapter, (_, factors) in zip(of_devices, updates(shape, devices + 1, rank, layer=layer), strict=True):
                adapter[f"{shape.name}.{layer}.lora_A.weight"] = factors.a
                adapter[f"{shape.name}.{layer}.lora_B.weight"] = factors.b
    server, *learned = of_devices
    strategy = FlexLora()
    strategy.begin(Config(model=ModelConfig(rank=rank), engine=EngineConfig(workers=threads)))
    came = [Update(index, 1, 1, 0.0, server, adapter, strategy.shape) for index, adapter in enumerate(learned)]
    return [blocks * seconds_of(lambda: strategy.aggregate(server, came), clock) for _ in range(repeats)]


def time_table(found: Sequence[Timed]) -> str:
    """Milliseconds per layer, then seconds for the model."""
    rows = [["layers", "number", *(f"{way}, ms" for way in WAYS)]]
    for one in found:
        times = [spread([1000 * second for second in seconds]).text(1) for seconds in one.seconds]
        rows.append([one.shape.name, str(one.shape.count), *times])
    model = [spread(_model_seconds(found, way)).text(2) + " s" for way in range(len(WAYS))]
    rows.append(["model", str(sum(one.shape.count for one in found)), *model])
    return table(rows)


def quality_table(found: Sequence[Quality]) -> str:
    """The residual of full SVD, how far the others exceed it, relative, the estimate of what is cut, and memory."""
    exact = list(WAYS).index("dense + SVD")
    others = [way for way in WAYS if way != "dense + SVD"]
    titles = [*(f"{way}, beyond" for way in others), "cut, said / true", *(f"{way}, MB" for way in WAYS)]
    rows = [["layers", "chosen", "residual, SVD", *titles]]
    for one in found:
        least = one.residuals[exact]
        beyond = [f"{residual / least - 1:.0e}" for index, residual in enumerate(one.residuals) if index != exact]
        said = f"{one.estimate:.3f} +- {one.error:.3f}"
        rows.append(
            [one.shape.name, one.method, f"{least:.5f}", *beyond, said, *(f"{peak:.0f}" for peak in one.megabytes)]
        )
    return table(rows)


def _model_seconds(found: Sequence[Timed], way: int) -> list[float]:
    """Of one way for all layers of the model, one figure a repeat."""
    repeats = zip(*([one.shape.count * second for second in one.seconds[way]] for one in found), strict=True)
    return [sum(repeat) for repeat in repeats]


def _with_peak(way: Way, terms: Terms, rank: int, start: Matrix) -> tuple[Pair, float]:
    """The result and the most memory that it took meanwhile, in MB."""
    tracemalloc.start()
    try:
        result = way(terms, rank, start)
        return result, tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()
