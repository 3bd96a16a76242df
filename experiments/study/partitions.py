"""FedAvg on a data set cut into 10, 20, 50 and 100 partitions, from equal ones to a few labels each.

The set is Omniglot's characters, unless --config names another run of supervised clients with one data set; it is dealt
by label with a Dirichlet distribution (`data.NAME.alpha` is the sum of its parameters). Ten devices learn in a round
whatever the number of partitions, so that a round sends the same bytes. A line of the table is a number of partitions
and an alpha: accuracy by user, how far the model that a device has learned by itself is above the aggregated one on its
own tests (local - global), and the rounds and bytes until the mean user's accuracy reaches --target.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from experiments.benchmark.measuring import conditions
from experiments.study.command import run_missing, study_parser
from experiments.study.plan import Arm, Planned, by_label, runs_of
from experiments.study.running import exit_status
from experiments.study.tables import cell
from flsim import compare
from flsim.config.load import load_config
from flsim.config.schema import ConfigError
from flsim.metrics.measures import Measure, chosen
from flsim.metrics.run_rows import RunRows
from flsim.metrics.time_to import BYTES, cost_to, course_of, round_of
from flsim.metrics.users import per_user
from flsim.text import markdown_table

PARTITIONS = (10, 20, 50, 100)
ALPHAS = ("5", "30", ".inf")
CONFIG = Path(__file__).parents[1] / "configs" / "omniglot.yaml"


def local_minus_global(run: RunRows) -> pd.Series:
    """By device of the last round's cohort."""
    own, mixed = (per_user(run.at_end("accuracy", model)) for model in ("own", "global"))
    return (own - mixed).dropna()


def rounds_to(target: float) -> Measure:
    """Rounds until the mean user's accuracy is at least the target; nan in a run that does not get there."""
    meaning = f"Rounds until the mean user is right on {100 * target:g} %; the mean of the runs that get there."
    return Measure("rounds_to_target", "rounds to target", "rounds", meaning, lambda run: _reached(run, target))


def bytes_to(target: float) -> Measure:
    """Bytes sent both ways until then."""

    def sent(run: RunRows) -> float:
        taken = cost_to(course_of(run), BYTES.name, target)
        return math.nan if taken is None else taken

    return Measure("bytes_to_target", "bytes to target", "bytes", "Bytes sent, both ways, until then.", sent)


def _reached(run: RunRows, target: float) -> float:
    found = round_of(course_of(run), target)
    return math.nan if found is None else float(found)


GAP = Measure(
    "local_minus_global",
    "local - global",
    "points",
    "What a device of the last cohort has right after its own steps, minus what it has right after aggregation.",
    local_minus_global,
)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = study_parser("partitions", __doc__, seeds=(0, 1, 2), root="runs/partitions")
    parser.add_argument("--config", type=Path, default=CONFIG, help="of the run that is cut up (default omniglot)")
    parser.add_argument("--partitions", type=int, nargs="+", default=list(PARTITIONS), help="default 10 20 50 100")
    parser.add_argument("--alphas", nargs="+", default=list(ALPHAS), help="default 5 30 .inf")
    parser.add_argument("--target", type=float, default=0.2, help="share that is to be right (default %(default)s)")
    args = parser.parse_args(arguments)
    return exit_status(lambda: _run(args))


def arms_of(data: str, partitions: Sequence[int], alphas: Sequence[str]) -> list[Arm]:
    """An arm for every number of partitions and every alpha."""
    return [
        Arm(
            f"{count}, {alpha.removeprefix('.')}",
            (
                f"data.{data}={{partition: dirichlet, over: label, alpha: {alpha}}}",
                f"fleet={{devices: {count}, cohort: {min(10, count)}}}",
                *("rounds=24", "evaluation.every_rounds=4", "evaluation.own=phases"),
            ),
        )
        for count in partitions
        for alpha in alphas
    ]


def _run(args: argparse.Namespace) -> int:
    base = load_config(args.config, args.more)
    if len(base.data) != 1:
        raise ConfigError(f"{args.config} has {len(base.data)} data sets; a study of partitions cuts up one")
    runs = runs_of(
        args.config, arms_of(next(iter(base.data)), args.partitions, args.alphas), args.seeds, args.root, args.more
    )
    if not run_missing(runs, args.jobs):
        return 1
    show(runs, args.target)
    return 0


def show(runs: Sequence[Planned], target: float) -> None:
    """Print the table; fleets of different sizes have no users in common, so nothing is paired."""
    measures = [*chosen(["accuracy", "worst_decile_mean"]), GAP, rounds_to(target), bytes_to(target)]
    lines = [["partitions", "alpha", *(one.title for one in measures)]]
    for label, folders in by_label(runs).items():
        found = compare([], labels={label: folders}, measures=measures)
        lines.append([*label.split(", "), *(cell(found.results[0], one) for one in measures)])
    seeds = sorted({run.config.seed for run in runs})
    print(f"\n{conditions(f'target {100 * target:g} %', 'seeds ' + ' '.join(map(str, seeds)))}\n")
    print(markdown_table(lines), flush=True)


if __name__ == "__main__":
    sys.exit(main())
