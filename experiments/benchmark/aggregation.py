"""Aggregating LoRA adapters at the server: in product space without dense matrices, against two dense ways.

Every way gets the same 100 factored updates of a layer, with weights, and gives back the rank-16 product nearest to
their weighted sum. "Product space" is `flsim.aggregation.low_rank` in the way that it chooses by itself, with the cut
energy measured and without. "Dense + SVD" forms the average and decomposes all of it, as FlexLoRA's reference
implementation does; "dense + eigh" takes eigenvectors of the smaller Gram instead, the fastest dense way of NumPy. To
the dense ways' advantage their average is one large matrix product too, not a sum of one device after the other.

The layers are Qwen2.5-0.5B's: 24 blocks of seven, of four shapes. A layer of each shape is measured, all ways in turn,
and the model's time is the sum over shapes of that time by their number. Updates are a common direction of learning
plus 0.3 of each device's own. Everything is float64. Residuals are relative to the norm of the exact sum; memory is the
peak of NumPy's arrays beyond the updates, without LAPACK's own workspace. For a single thread set
OPENBLAS_NUM_THREADS=1.
"""

import argparse
import os
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from experiments.benchmark.measuring import clock_argument, conditions, seconds_of, spread
from flsim.aggregation.low_rank import balanced, cheapest, truncated
from flsim.aggregation.pairs import Pair, weighted_sum
from flsim.seeding import generator
from flsim.text import markdown_table as table

Terms = Sequence[tuple[float, Pair]]


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
    clock_argument(parser, of="all times")


def main(args: argparse.Namespace) -> None:
    """Measure and print."""
    found = []
    for shape in QWEN:
        found.append(measure(shape, args.devices, args.rank, args.repeats, args.clock))
        print(shape.name, *(f"{spread(seconds).median:.3f}" for seconds in found[-1].seconds), file=sys.stderr)
    threads = os.environ.get("OPENBLAS_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS") or "all"
    setting = f"{args.devices} updates of rank {args.rank} to rank {args.rank}"
    repeats = f"median (min..max) of {args.repeats}"
    print(
        conditions(f"NumPy {np.__version__}", f"BLAS threads: {threads}", f"{args.clock} time", setting, repeats) + "\n"
    )
    print(time_table(found) + "\n")
    print(quality_table(found))


def product_space(terms: Terms, rank: int) -> Pair:
    """Ours."""
    return balanced(truncated(weighted_sum(terms), rank))


def unmeasured(terms: Terms, rank: int) -> Pair:
    """Ours, without the energy that is cut."""
    return balanced(truncated(weighted_sum(terms), rank, measure=False))


def dense_svd(terms: Terms, rank: int) -> Pair:
    """The average and its whole decomposition."""
    u, s, v = np.linalg.svd(weighted_sum(terms).product(), full_matrices=False)
    return Pair(u[:, :rank] * s[:rank], v[:rank])


def dense_eigh(terms: Terms, rank: int) -> Pair:
    """The average and the eigenvectors of its smaller Gram."""
    average = weighted_sum(terms).product()  # (m, n)
    wide = average.shape[0] < average.shape[1]
    tall = average.T if wide else average
    span = np.linalg.eigh(tall.T @ tall)[1][:, -rank:]  # (min(m, n), r)
    return Pair(span, span.T @ average) if wide else Pair(average @ span, span.T)


WAYS: dict[str, Callable[[Terms, int], Pair]] = {
    "product space": product_space,
    "energy not measured": unmeasured,
    "dense + SVD": dense_svd,
    "dense + eigh": dense_eigh,
}


@dataclass(frozen=True)
class Measured:
    """What the ways took for one layer of a shape, in the order of `WAYS`."""

    shape: Shape
    method: str
    """What product space chose, with and without the energy."""
    seconds: list[list[float]]
    """Per way, one figure a repeat."""
    residuals: list[float]
    """Relative to the norm of the exact sum."""
    megabytes: list[float]
    """Peak beyond the updates."""


def measure(shape: Shape, devices: int, rank: int, repeats: int, clock: str) -> Measured:
    """One layer of a shape, all ways in turn; the run that looks at memory warms up."""
    terms = updates(shape, devices, rank)
    exact = weighted_sum(terms).product()  # (m, n)
    residuals, megabytes = [], []
    for way in WAYS.values():
        result, peak = _with_peak(way, terms, rank)
        residuals.append(float(np.linalg.norm(exact - result.product()) / np.linalg.norm(exact)))
        megabytes.append(peak)
    rounds = [
        [seconds_of(lambda way=way: way(terms, rank), clock) for way in WAYS.values()]  # type: ignore[misc]
        for _ in range(repeats)
    ]
    size = (shape.outputs, shape.inputs, devices * rank, rank)
    chosen = dict.fromkeys((cheapest(*size), cheapest(*size, measure=False)))
    return Measured(shape, " / ".join(chosen), [list(way) for way in zip(*rounds, strict=True)], residuals, megabytes)


def updates(shape: Shape, devices: int, rank: int) -> Terms:
    """Factored updates with weights."""
    rng = generator(0, "updates", shape.name)
    b, a = rng.normal(size=(shape.outputs, rank)), rng.normal(size=(rank, shape.inputs))
    return [
        (
            rng.uniform(0.5, 1.5) / devices,
            Pair(b + 0.3 * rng.normal(size=b.shape), a + 0.3 * rng.normal(size=a.shape)),
        )
        for _ in range(devices)
    ]


def time_table(found: Sequence[Measured]) -> str:
    """Milliseconds per layer, then seconds for the model."""
    rows = [["layers", "number", "chosen", *(f"{way}, ms" for way in WAYS)]]
    for one in found:
        times = [spread([1000 * second for second in seconds]).text(1) for seconds in one.seconds]
        rows.append([one.shape.name, str(one.shape.count), one.method, *times])
    model = [spread(_model_seconds(found, way)).text(2) + " s" for way in range(len(WAYS))]
    rows.append(["model", str(sum(one.shape.count for one in found)), "", *model])
    return table(rows)


def quality_table(found: Sequence[Measured]) -> str:
    """The residual of full SVD, how far the others exceed it, relative, and memory."""
    exact = list(WAYS).index("dense + SVD")
    others = [way for way in WAYS if way != "dense + SVD"]
    rows = [["layers", "residual, SVD", *(f"{way}, beyond" for way in others), *(f"{way}, MB" for way in WAYS)]]
    for one in found:
        least = one.residuals[exact]
        beyond = [f"{residual / least - 1:.0e}" for index, residual in enumerate(one.residuals) if index != exact]
        rows.append([one.shape.name, f"{least:.5f}", *beyond, *(f"{peak:.0f}" for peak in one.megabytes)])
    return table(rows)


def _model_seconds(found: Sequence[Measured], way: int) -> list[float]:
    """Of one way for all layers of the model, one figure a repeat."""
    repeats = zip(*([one.shape.count * second for second in one.seconds[way]] for one in found), strict=True)
    return [sum(repeat) for repeat in repeats]


def _with_peak(way: Callable[[Terms, int], Pair], terms: Terms, rank: int) -> tuple[Pair, float]:
    """The result and the most memory that it took meanwhile, in MB."""
    tracemalloc.start()
    try:
        result = way(terms, rank)
        return result, tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()
