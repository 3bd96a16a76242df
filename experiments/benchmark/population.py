"""What a fleet costs of which few take part: 10^3 to 10^6 registered devices, 100 of them in a round, two workers.

DA-GRPO on the built-in model through the whole of flsim, with a fleet budget, and with a panel of 50 devices that are
tested before the first round and after the last. What a round costs should follow the cohort and not the fleet: where
it takes 20 % more or less processor time (driver and workers) than in the smallest, there is a star. Start is from the
start of the process, imports and Ray included, until the first test begins. Memory is resident, at its largest until
the last round; disk is the run's folder before its report, by round.
"""

import argparse
from collections.abc import Sequence

from experiments.benchmark.measuring import conditions, spread
from experiments.benchmark.population_side import LEARNER, PANEL, Population, measure
from experiments.benchmark.scale_side import WORKERS
from flsim.text import markdown_table

ALIKE = 0.2
"""How far a mean round may be from that of the smallest fleet, as a share of it."""
_HEADER = (
    "devices",
    "start s",
    "test s",
    "round s",
    "CPU-s a round",
    "to the first",
    "report s",
    "driver MB",
    "worker MB",
    "disk MB a round",
    "files",
    "of states",
)


def table(fleets: Sequence[int], found: Sequence[Population], rounds: int) -> str:
    """A line a fleet."""
    first = found[0].cpu_s
    rows = [list(_HEADER)]
    for devices, own in zip(fleets, found, strict=True):
        ratio = own.cpu_s / first
        mark = "*" if abs(ratio - 1) > ALIKE else ""
        disk = own.bytes_on_disk / 2**20 / (rounds + 2)
        times = [f"{own.start_s:.1f}", f"{own.test_s:.1f}", spread(own.wall_s).text(2), f"{own.cpu_s / rounds:.2f}"]
        sizes = [f"{size / 2**20:.0f}" for size in (own.memory.driver, own.memory.worker)]
        rows.append(
            [
                f"{devices:,}",
                *times,
                f"{ratio:.2f}{mark}",
                f"{own.report_s:.1f}",
                *sizes,
                f"{disk:.1f}",
                str(own.files),
                str(own.states),
            ]
        )
    return markdown_table(rows)


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    fleets = [1_000, 10_000, 100_000, 1_000_000]
    parser.add_argument("--devices", type=int, nargs="+", default=fleets, help="fleets")
    parser.add_argument("--cohort", type=int, default=100, help="devices of a round (default 100)")
    parser.add_argument("--rounds", type=int, default=8, help="steady rounds; the median is taken (default 8)")


def main(args: argparse.Namespace) -> None:
    """Measure and print."""
    print(conditions(f"{WORKERS} workers", f"cohort of {args.cohort}", f"panel of {PANEL}", f"{args.rounds} rounds"))
    print(f"DA-GRPO, {', '.join(LEARNER)}")
    found = [measure(devices, args.cohort, args.rounds) for devices in args.devices]
    print(table(args.devices, found, args.rounds))
