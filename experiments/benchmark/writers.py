"""A fleet of writers that learn LEAF's network for one local epoch, beside the same in Flower's own simulation.

Each of W writers holds about 20 pictures of 28 x 28 of 62 classes (drawn at random: speed does not depend on what they
show) and makes an epoch of SGD in batches of ten; all take part in every round. Ours is `flsim.run` as a whole, on two
Ray workers: send, train, judge replies, aggregate, rows, checkpoint. Flower's is `run_simulation` with two actors, each
of one core, a plain torch client of the same network, examples and batches, and FedAvg: send, train, aggregate. Both
are timed round by round, without the first, and must end with the same parameters up to rounding.
"""

import argparse

from experiments.benchmark.measuring import conditions, spread
from experiments.benchmark.writers_client import NETWORKS, WORKERS
from experiments.benchmark.writers_side import Side, difference, measure
from flsim.text import markdown_table as table


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    parser.add_argument("--writers", type=int, nargs="+", default=[100], help="sizes of the fleet (default 100)")
    parser.add_argument(
        "--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), help="LEAF's CNN, and a narrower one"
    )
    parser.add_argument("--rounds", type=int, default=3, help="that are timed; the median is taken (default 3)")


def main(args: argparse.Namespace) -> None:
    """Measure and print."""
    print(conditions(f"{WORKERS} workers", f"median of {args.rounds} rounds with the least and the largest"))
    rows = [["network", "parameters", "writers", "Flower s a round", "flsim s a round", "Flower / flsim", "differ by"]]
    for network in args.networks:
        for writers in args.writers:
            theirs, ours = (measure(side, network, writers, args.rounds) for side in ("flower", "flsim"))
            rows.append([network, f"{ours.parameters:,}", str(writers), *_compared(theirs, ours)])
    print(table(rows), flush=True)


def _compared(theirs: Side, ours: Side) -> list[str]:
    ratio = spread(theirs.wall_s).median / spread(ours.wall_s).median
    seconds = [spread(side.wall_s).text(2) for side in (theirs, ours)]
    return [*seconds, f"{ratio:.1f}", f"{difference(theirs, ours):.1g}"]
