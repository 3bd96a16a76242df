"""What virtual time costs: its share of a round on the demo, and buffered rounds with 100 to 10,000 devices in flight.

The share is that of the functions of the timekeeper in a run of the demo in one process, by the profiler: whom to
invite, what each device's round took, who is in time, and the rows of it. In buffered rounds 100 devices land in a
round, whatever is in flight; replies in flight lie on the disk, so that the driver's memory should not grow with them.
The first round, which asks as many devices as are in flight, is left out of the times and not of the memory.
"""

import argparse
import cProfile
import pstats
import tempfile
from collections.abc import Sequence
from pathlib import Path

import flsim
from experiments.benchmark.measuring import conditions, spread
from experiments.benchmark.population_side import Population, measure
from experiments.benchmark.scale_side import WORKERS
from flsim.config.load import load_config
from flsim.config.shipped import FOLDER
from flsim.text import markdown_table

LANDED = 100
"""Devices whose updates are aggregated in a round."""
_KEEPER, _ROUNDS = ("timekeeper.py", ("invite", "close")), ("rounds.py", ("train",))


def share(rounds: int) -> tuple[float, float]:
    """Seconds of the timekeeper, and of all training, in a run of the demo in one process."""
    with tempfile.TemporaryDirectory() as scratch:
        settings = [f"run_dir={scratch}/run", f"rounds={rounds}", "engine.kind=local", "engine.pack=4", "system={}"]
        config = load_config(FOLDER / "demo.yaml", [*settings, f"evaluation.every_rounds={rounds}"])
        profiler = cProfile.Profile()
        profiler.runcall(flsim.run, config, progress=False)
    return _seconds(profiler, *_KEEPER), _seconds(profiler, *_ROUNDS)


def _seconds(profiler: cProfile.Profile, file: str, names: Sequence[str]) -> float:
    """Of functions of a file, with all that they call."""
    found = pstats.Stats(profiler).stats.items()  # type: ignore[attr-defined]
    return float(sum(own[3] for (path, _, name), own in found if Path(path).name == file and name in names))


def table(flights: Sequence[int], found: Sequence[Population]) -> str:
    """A line for each number of devices in flight."""
    lines = [["in flight", "round s", "CPU-s a round", "driver MB", "worker MB", "disk MB"]]
    for count, own in zip(flights, found, strict=True):
        sizes = [f"{size / 2**20:.0f}" for size in (own.memory.driver, own.memory.worker, own.bytes_on_disk)]
        cpu = own.cpu_s / len(own.wall_s)
        lines.append([f"{count:,}", spread(own.wall_s).text(2), f"{cpu:.2f}", *sizes])
    return markdown_table(lines)


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    parser.add_argument("--in-flight", type=int, nargs="+", default=[100, 1_000, 10_000], help="devices in flight")
    parser.add_argument("--rounds", type=int, default=6, help="steady rounds; the median is taken (default 6)")
    parser.add_argument("--demo", type=int, default=6, help="rounds of the demo, for the share (default 6)")


def main(args: argparse.Namespace) -> None:
    """Measure and print."""
    print(conditions(f"{WORKERS} workers", f"{LANDED} land in a round", f"{args.rounds} rounds"))
    own, whole = share(args.demo)
    print(f"virtual time on the demo: {own:.3f} s of {whole:.1f} s of training, {100 * own / whole:.2f} %")
    found = []
    for count in args.in_flight:
        more = [f"system.end={{kind: buffered, in_flight: {count}}}", "budget.fleet.division=null"]
        found.append(measure(2 * max(args.in_flight), LANDED, args.rounds, more))
    print(table(args.in_flight, found))
