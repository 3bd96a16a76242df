"""What the engine costs as the fleet grows: 10 to 1000 devices, all of them in every round, on two workers.

First table: a client that reads an adapter of 0.1 MB, computes for two milliseconds and returns a new adapter, through
flsim's own loop (configure, send, aggregate, rows, checkpoint) and through Flower's `run_simulation` (send, aggregate).
The overhead per message is (wall - compute / workers) / devices: what a round takes on the wall beyond the clients' own
computing, if that were spread evenly over the workers. In seconds of workers it is twice that.

Second table: DA-GRPO on the built-in model through the whole of flsim, in seconds of workers per device and round, and
in processor time of driver and workers, which other work on the machine disturbs less. Memory is resident, at its
largest until the last round; "all" adds up driver, workers and Ray's own processes, and counts what they share in each.
"""

import argparse
import statistics
from collections.abc import Sequence

from experiments.benchmark.measuring import conditions, spread
from experiments.benchmark.scale_side import LEARNER, WORKERS, Side, measure
from flsim.text import markdown_table as table


def overhead_ms(side: Side, devices: int) -> float:
    """Milliseconds per message beyond the clients' own computing, the median over rounds."""
    return statistics.median(
        1000 * (wall - compute / WORKERS) / devices for wall, compute in zip(side.wall_s, side.compute_s, strict=True)
    )


def engine_table(fleets: Sequence[int], rounds: int, *, flower: bool) -> str:
    """The first table."""
    header = ["devices", "wall s", "compute ms", "overhead ms", "driver MB", "worker MB", "all MB"]
    rows = [[*header, *(["Flower wall s", "overhead ms"] if flower else [])]]
    for devices in fleets:
        own = measure("engine", devices, rounds)
        compute = 1000 * statistics.median(own.compute_s) / devices
        row = [str(devices), spread(own.wall_s).text(2), f"{compute:.2f}", f"{overhead_ms(own, devices):.2f}"]
        row += _megabytes(own.memory.driver, own.memory.worker, own.memory.total)
        if flower:
            theirs = measure("flower", devices, rounds)
            row += [spread(theirs.wall_s).text(2), f"{overhead_ms(theirs, devices):.2f}"]
        rows.append(row)
    return table(rows)


def learner_table(fleets: Sequence[int], rounds: int) -> str:
    """The second table."""
    rows = [["devices", "wall s", "ms per device", "CPU ms per device", "driver MB", "worker MB", "all MB"]]
    for devices in fleets:
        side = measure("learner", devices, rounds)
        per_device = spread([1000 * WORKERS * wall / devices for wall in side.wall_s])
        memory = _megabytes(side.memory.driver, side.memory.worker, side.memory.total)
        cpu = f"{1000 * side.cpu_s / rounds / devices:.1f}"
        rows.append([str(devices), spread(side.wall_s).text(1), per_device.text(1), cpu, *memory])
    return table(rows)


def _megabytes(*sizes: int) -> list[str]:
    return [f"{size / 2**20:.0f}" for size in sizes]


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    parser.add_argument(
        "--devices", type=int, nargs="*", default=[10, 100, 300, 1000], help="fleets of the plain client"
    )
    parser.add_argument("--learners", type=int, nargs="*", default=[100, 300, 1000], help="fleets of DA-GRPO")
    parser.add_argument("--rounds", type=int, default=3, help="steady rounds; the median is taken")
    parser.add_argument("--no-flower", action="store_true", help="leave out Flower's columns")


def main(args: argparse.Namespace) -> None:
    """Measure and print."""
    print(conditions(f"{WORKERS} workers", f"median of {args.rounds} rounds"))
    if args.devices:
        print(engine_table(args.devices, args.rounds, flower=not args.no_flower), flush=True)
    if args.learners:
        print(f"\nDA-GRPO, {', '.join(LEARNER)}")
        print(learner_table(args.learners, args.rounds), flush=True)
