"""Run a config with every combination of methods, settings and seeds: what is missing, never what is finished.

Examples:
  flsim study demo method=da_grpo,alone seed=0..4
  flsim study demo method=da_grpo budget.tau=0.1,0.3,0.5 seed=0..2 rounds=12
  flsim study demo method=da_grpo,my_method.yaml seed=0 --list
  flsim study demo seed=0..4 --measures accuracy alone_accuracy --by-seed

key=a,b,c and key=0..4 (0 to 4; 0..8..4 is 0, 4, 8) are axes, and every combination is a run; key=value is a setting of
all. A list in brackets and a quoted text are one value: fleet.ranks=[8,4,2], 'name="a,b"'.

  method=  names methods (flsim list methods), laid over CONFIG key by key;
           a+b lays a, then b; what ends in .yaml is a file of your own
  seed=    sets seed and stream.seed, so that each seed has its own fleet;
           stream.seed=0 on this line keeps one fleet for all

key=value on this line goes over a method's files.

In place of CONFIG and all the rest, paper, strategies, real_outcomes, writers, partitions, teachers, systems or modes
is a study that is planned already; each has a --help of its own, such as flsim study paper --help.

Runs go seed by seed, each in a process and on a thread of its own (engine.kind=local, unless engine.kind= is given on
this line). Stop it with Ctrl-C or a kill, and the same line goes on. docs/sweeps.md says more.
"""

import argparse
import importlib
import json
import os
import sys
from collections.abc import Sequence

from experiments.command.terminal import Parser, folder_in
from experiments.study import STUDIES
from experiments.study.methods import method_names
from experiments.study.plan import Planned, by_label, plan_of, refuse_what_cannot_run
from experiments.study.progress import rounds_done
from experiments.study.running import do_all, exit_status, is_begun
from experiments.study.tables import measures_table, seeds_table, weightings_table
from flsim import compare
from flsim.metrics.measures import chosen
from flsim.metrics.weighting import weighting_of
from flsim.text import markdown_table, percent


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    if given and given[0] in STUDIES:
        return int(importlib.import_module(f"experiments.study.{given[0]}").main(given[1:]))
    parser = Parser("study", f"{__doc__}\nmethods: {', '.join(method_names())}", settings=True)
    parser.add_argument("config", metavar="CONFIG", help="a name (flsim list configs) or a YAML file")
    parser.add_argument("arguments", nargs="*", metavar="key=value", help="axes and settings, as above")
    parser.add_argument("--root", type=folder_in, help="folder of all runs (default runs/sweep-NAME by CONFIG's name)")
    parser.add_argument("--jobs", type=int, help="runs side by side (default: one per core; one if they use Ray)")
    parser.add_argument(
        "--measures", nargs="+", default=[], metavar="NAME", help="a table of these when all is finished"
    )
    parser.add_argument(
        "--weighting",
        metavar="W",
        default="uniform",
        help="what users weigh in it: examples, traffic, requests or uniform (default)",
    )
    parser.add_argument("--by-seed", action="store_true", help="a column per seed in that table")
    parser.add_argument("--list", action="store_true", help="say what would run and what is finished, and do nothing")
    args = parser.parse_intermixed_args(given)
    if args.jobs is not None and args.jobs < 1:
        parser.error(f"--jobs {args.jobs} must be at least 1")
    return exit_status(lambda: _sweep(args))


def _sweep(args: argparse.Namespace) -> int:
    chosen(args.measures)  # refuses what is none before anything runs
    weighting_of(args.weighting)
    runs = plan_of(args.config, args.arguments, args.root)
    finished = refuse_what_cannot_run(runs)
    root = runs[0].folder.parent
    jobs = _jobs(runs) if args.jobs is None else args.jobs
    print(f"{len(runs)} runs in {root}, {len(finished)} finished, {len(runs) - len(finished)} to do", flush=True)
    if args.list:
        print(f"\n{overview(runs)}")
        return 0
    failures = do_all([run.config for run in runs], jobs)
    print(f"\n{overview(runs)}")
    for failure in failures:
        print(f"\nfailed: {failure}", file=sys.stderr)
    print(f"\ncompare: flsim compare {root}")
    if args.measures and not failures:
        found = compare([], labels=by_label(runs), measures=args.measures, weighting=args.weighting)
        print(f"\n{(seeds_table if args.by_seed else measures_table)(found, args.measures)}")
        print(f"\n{weightings_table(found)}")
    return 1 if failures else 0


def overview(runs: Sequence[Planned]) -> str:
    """A line per run: its choices, its folder, how far it is, and the mean user's accuracy at its end."""
    keys = list(runs[0].choice)
    lines = [[*keys, "folder", "state", "accuracy"]]
    lines += [[*(run.choice[key] for key in keys), run.folder.name, _state(run), _accuracy(run)] for run in runs]
    return markdown_table(lines)


def _state(run: Planned) -> str:
    if (run.folder / "summary.json").is_file():
        return "finished"
    return f"round {rounds_done(run.folder)} of {run.config.rounds}" if is_begun(run.config) else "missing"


def _accuracy(run: Planned) -> str:
    """Of the global adapter, with the cloud; a dash if it was not measured."""
    file = run.folder / "summary.json"
    end = json.loads(file.read_text())["at_end"] if file.is_file() else {}
    return percent(end.get("global", {}).get("accuracy", {}).get("user_mean"))


def _jobs(runs: Sequence[Planned]) -> int:
    """As many as there are cores; one if a run has workers of its own."""
    return 1 if any(run.config.engine.kind == "ray" for run in runs) else os.cpu_count() or 1


if __name__ == "__main__":
    sys.exit(main())
