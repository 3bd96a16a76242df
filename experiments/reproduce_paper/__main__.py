r"""Reproduce the question of DA-GRPO (arXiv 2602.00166) on the built-in world: task groups A, B, A, one budget.

Does a model that learns the tasks and when to ask at once end above one that learns first and asks by a rule, and does
it keep more when tasks switch? All methods meet the same questions with the same work; the settings of each were
chosen out of six on validation questions (--tune; the choices lie in experiments/configs/tuned/). Prints the tables,
and leaves a page, figures and tables per setting. Runs that are finished are never repeated.

  python -m experiments.reproduce_paper                       # everything: about three hours on two cores
  python -m experiments.reproduce_paper --settings single     # one device
  python -m experiments.reproduce_paper --only "DA-GRPO" "GRPO, router" --seeds 0 1
  python -m experiments.reproduce_paper --tune                # choose the settings anew
  python -m experiments.reproduce_paper --regimes             # forgetting under other rates, phases, adapters, models
"""

import argparse
import os
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from experiments.benchmark.measuring import conditions
from experiments.reproduce_paper.figure import asking_figure
from experiments.reproduce_paper.phases import usage_by_phase, within
from experiments.reproduce_paper.plan import ABLATIONS, BOUNDS, METHODS, SETTINGS, Method, Planned, runs_of
from experiments.reproduce_paper.regimes import REGIMES, regime_runs, regimes_table
from experiments.reproduce_paper.switch import over_switch, switch_table
from experiments.reproduce_paper.tables import measures_table, paired_table, usage_table
from experiments.reproduce_paper.tuning import tune
from experiments.study.running import Failure, do_all, exit_status
from flsim import compare
from flsim.comparison.compare import Comparison
from flsim.config.schema import Config
from flsim.report.plot import drawing_style, save_figure
from flsim.tasks.stream import stream_of


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    args = _arguments(arguments)
    return exit_status(lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    for setting in args.settings:
        print(f"\n# {setting}", flush=True)
        if args.tune:
            learners = {method.tuned for method in _chosen((*METHODS, *ABLATIONS, *BOUNDS), args.only)}
            failures = tune(setting, args.root / f"tuning-{setting}", args.jobs, args.more, learners)
        elif args.regimes is not None:
            failures = forgetting(setting, args)
        else:
            failures = reproduce(setting, args.root / setting, args)
        if failures:
            print("\n".join(f"failed: {failure}" for failure in failures), file=sys.stderr)
            return 1
    return 0


def reproduce(setting: str, root: Path, args: argparse.Namespace) -> list[Failure]:
    """Run what is missing of one setting, and show what all of it says."""
    groups = [_chosen(methods, args.only) for methods in (METHODS, ABLATIONS, BOUNDS)]
    methods, ablations, bounds = (runs_of(setting, group, args.seeds, root, args.more) for group in groups)
    failures = do_all(
        [run.config for run in sorted((*methods, *ablations, *bounds), key=lambda run: run.seed)], args.jobs
    )
    if not failures:
        show(methods, bounds, args.against, root.with_name(f"{root.name}-compared"))
        if ablations:
            base = [run for run in methods if run.method.label == METHODS[0].label]
            show([*base, *ablations], [], None, root.with_name(f"{root.name}-ablations"))
    return failures


def forgetting(setting: str, args: argparse.Namespace) -> list[Failure]:
    """The same question in other regimes: does learning to ask keep more, and where?"""
    regimes = [regime for regime in REGIMES if not args.regimes or regime.name in args.regimes]
    runs = {regime.name: regime_runs(setting, regime, args.seeds, args.root, args.more) for regime in regimes}
    failures = do_all([run.config for own in runs.values() for run in own], args.jobs)
    if not failures:
        print("\n".join(f"{regime.name}: {regime.what}" for regime in regimes), end="\n\n")
        found = {name: compare([run.config.folder for run in own]) for name, own in runs.items()}
        print(regimes_table(found), flush=True)
    return failures


def show(methods: Sequence[Planned], bounds: Sequence[Planned], against: str | None, out: Path) -> None:
    """Print the tables of some methods, paired with one of them or the first, and write page and figures."""
    folders = [run.config.folder for run in methods]
    found = compare(folders, against=against, bounds=[run.config.folder for run in bounds])
    page = found.write(out)[0]
    config = methods[0].config
    seeds = " ".join(str(seed) for seed in sorted({run.seed for run in methods}))
    print(f"\n{conditions(f'{config.fleet.devices} devices, {config.rounds} rounds', f'seeds {seeds}')}\n")
    print(measures_table(found), end="\n\n")
    print(paired_table(found), end="\n\n")
    of_method = _by_method(methods)
    switched = {label: over_switch(own) for label, own in of_method.items()}
    print(switch_table(switched, stream_of(config).phases[0].name), end="\n\n")
    asked = {label: usage_by_phase(own) for label, own in of_method.items()}
    usage = {label: phases for label, phases in asked.items() if phases}
    if usage:
        print(usage_table(usage), end="\n\n")
        kept = [label for label, phases in usage.items() if within(phases, config.budget.tau)]
        print(
            f"fleet's usage at most tau + 0.05 and at most a tenth of devices above it in all phases: {', '.join(kept)}"
        )
        _draw(found, list(usage), config, out)
    print(f"page: {page}", flush=True)


def _by_method(runs: Sequence[Planned]) -> dict[str, list[Config]]:
    configs: dict[str, list[Config]] = defaultdict(list)
    for run in runs:
        configs[run.method.label].append(run.config)
    return configs


def _draw(found: Comparison, labels: Sequence[str], config: Config, out: Path) -> None:
    with drawing_style():
        figure = asking_figure(found, labels, stream_of(config).phases, config.budget.tau)
    save_figure(figure, out / "usage.png")


def _chosen(methods: Sequence[Method], only: Sequence[str]) -> list[Method]:
    return [method for method in methods if not only or method.label in only]


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.reproduce_paper",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    labels = [method.label for method in (*METHODS, *ABLATIONS, *BOUNDS)]
    names = list(SETTINGS)
    parser.add_argument("--settings", nargs="+", choices=names, default=names, help="default: both")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4], help="default: 0 1 2 3 4")
    parser.add_argument(
        "--only", nargs="+", choices=labels, default=[], metavar="LABEL", help=f"of: {'; '.join(labels)}"
    )
    parser.add_argument(
        "--against",
        choices=[method.label for method in METHODS],
        metavar="LABEL",
        help="the method that the others are paired with (default: the first)",
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="runs side by side (default: %(default)s)"
    )
    parser.add_argument(
        "--root", type=Path, default=Path("runs/paper"), help="folder of the runs (default %(default)s)"
    )
    parser.add_argument("--tune", action="store_true", help="choose settings on validation questions, and no more")
    parser.add_argument(
        "--regimes", nargs="*", choices=[regime.name for regime in REGIMES], help="forgetting in other regimes, or all"
    )
    parser.add_argument(
        "--more", nargs="+", default=[], metavar="key=value", help="over every run's own, such as rounds=6"
    )
    args = parser.parse_args(arguments)
    if args.against and args.only and args.against not in args.only:
        parser.error(f"--against {args.against!r} is not among --only; add it there, or pair with one of them")
    return args


if __name__ == "__main__":
    sys.exit(main())
