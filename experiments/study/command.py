"""What the commands of all studies share: their options, running what is missing, and a table with its page."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.benchmark.measuring import conditions
from experiments.command.terminal import Parser, folder_in
from experiments.study.plan import Planned, by_label
from experiments.study.running import do_all
from experiments.study.tables import measures_table
from flsim import compare
from flsim.metrics.measures import Measure


def study_parser(name: str, doc: str | None, *, seeds: Sequence[int], root: str) -> argparse.ArgumentParser:
    """The options `--seeds`, `--jobs`, `--root` and `--more`.

    Args:
        name: of the study, as `flsim study` takes it.
        doc: its docstring, which is its help.
        seeds: by default.
        root: folder of the runs by default.
    """
    parser = Parser(f"study {name}", doc, settings=True)
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=list(seeds), help=f"default: {' '.join(map(str, seeds))}"
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="runs side by side, a core each (default: %(default)s)"
    )
    parser.add_argument("--root", type=folder_in, default=Path(root), help="folder of the runs (default %(default)s)")
    parser.add_argument(
        "--more", nargs="+", default=[], metavar="key=value", help="settings over every run's own, such as rounds=6"
    )
    return parser


def run_missing(runs: Sequence[Planned], jobs: int) -> bool:
    """Run what is not finished yet, seed by seed; whether all went well. What failed is said on stderr."""
    failures = do_all([run.config for run in sorted(runs, key=lambda run: run.config.seed)], jobs)
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return not failures


def print_compared(runs: Sequence[Planned], measures: Sequence[Measure], *, against: str, said: str, out: Path) -> None:
    """Print a table of finished runs under the conditions they ran in, and write their page and its figures.

    Args:
        runs: of one question.
        measures: a column each.
        against: the label that all others are paired with.
        said: of the runs, beside their fleet, rounds and seeds; "" says no more.
        out: folder of the page.
    """
    found = compare([], labels=by_label(runs), measures=measures, against=against)
    page = found.write(out)[0]
    config, seeds = runs[0].config, " ".join(map(str, sorted({run.config.seed for run in runs})))
    fleet = f"{config.fleet.devices} devices, {config.cohort_size} a round, {config.rounds} rounds"
    print(f"\n{conditions(fleet, *([said] if said else []), f'seeds {seeds}')}\n")
    print(measures_table(found, measures, against=(against,)))
    print(f"\npage: {page}", flush=True)
