"""What the commands of all studies share: their options, and running what is missing."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.command.terminal import Parser
from experiments.study.plan import Planned
from experiments.study.running import do_all


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
    parser.add_argument("--root", type=Path, default=Path(root), help="folder of the runs (default %(default)s)")
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
