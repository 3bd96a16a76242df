"""Strategies side by side on one fleet, the same seeds, streams, rounds and devices for all.

Each part has a table and a figure: methods on unequal ranks and on equal ones, weights and server optimizers, poisoned
fleets, distillation at equal spend, and three ways to share a fleet's budget. Runs that are finished are not repeated,
one that was stopped goes on, and the tables are drawn again from the rows.
"""

import argparse
import statistics
import sys
from collections import defaultdict
from pathlib import Path

from experiments.benchmark.measuring import conditions
from experiments.compare_strategies.figure import draw_part
from experiments.compare_strategies.measure import Outcome, outcome_of
from experiments.compare_strategies.plan import ALL, Part
from experiments.compare_strategies.tables import part_table
from experiments.compare_strategies.work import Task, tasks_of
from experiments.study.running import do_all
from flsim.config.schema import ConfigError


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [part.name for part in ALL]
    parser.add_argument("--parts", nargs="+", choices=names, default=names, help="which (default: all)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, each on one core (default 2)")
    parser.add_argument("--root", type=Path, default=Path("runs/strategies"), help="folder of the runs and figures")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="over every arm's own, such as rounds=6")
    args = parser.parse_args(arguments)
    parts = [part for part in ALL if part.name in args.parts]
    try:
        tasks = tasks_of(parts, args.seeds, args.root, args.settings)
        failures = do_all([task.config for task in tasks], args.jobs)
    except ConfigError as error:
        parser.error(str(error))
    if failures:
        sys.exit("\n".join(str(failure) for failure in failures))
    for part in parts:
        show(part, [task for task in tasks if task.part is part], args.root)


def show(part: Part, tasks: list[Task], root: Path) -> None:
    """Print a part's table and draw its figure."""
    outcomes: dict[str, list[Outcome]] = defaultdict(list)
    for task in tasks:
        outcomes[task.arm.name].append(outcome_of(task.folder, task.config))
    config, seeds = tasks[0].config, sorted({task.seed for task in tasks})
    ranks = list(config.fleet.ranks) or config.model.rank
    fleet = f"{config.fleet.devices} devices of rank {ranks}, {config.rounds} rounds"
    usage = statistics.mean(run.usage for runs in outcomes.values() for run in runs)
    picture = root / f"{part.name}.png"
    draw_part(part, outcomes, picture)
    print(f"\n## {part.question}\n\n{conditions(fleet, 'seeds ' + ' '.join(map(str, seeds)))}\n")
    print(part_table(part, outcomes))
    print(f"\nmean usage over the last third {usage:.3f}, tau {config.budget.tau:g}; picture: {picture}")


if __name__ == "__main__":
    main()
