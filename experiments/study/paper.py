r"""Reproduce the question of DA-GRPO (arXiv 2602.00166) on the built-in world: tasks A, B, A, one budget.

Does a model that learns the tasks and when to ask at once end above one that learns first and asks by a rule, and does
it keep more when tasks switch? All methods meet the same questions with the same work; the settings of each were
chosen on validation questions, out of eight, or of four for the pretrained model (--tune; they lie in
experiments/configs/tuned/). Prints the tables, and leaves a page, figures and tables per setting. Runs that are
finished are never repeated.

  flsim study paper                       # everything: about three hours on two cores
  flsim study paper --settings single     # one device
  flsim study paper --settings smollm2    # a pretrained model, about an hour (docs/results/smollm2.md)
  flsim study paper --only "DA-GRPO" "GRPO, router" --seeds 0 1
  flsim study paper --tune                # choose the settings anew
  flsim study paper --regimes             # forgetting under other rates, phases, adapters, models
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.benchmark.measuring import conditions
from experiments.study.command import run_missing, study_parser
from experiments.study.figures import asking_figure, switch_figure
from experiments.study.paper_plan import (
    ABLATIONS,
    BOUNDS,
    BUILT_IN,
    COMPARED,
    METHODS,
    REGIMES,
    SETTINGS,
    Method,
    Regime,
    arms_of,
    config_of,
    tuned_in,
)
from experiments.study.phases import over_switch, switch_table, usage_by_phase, usage_table, within
from experiments.study.plan import Planned, runs_of
from experiments.study.running import exit_status
from experiments.study.tables import gap_of, question_table, title_of
from experiments.study.tuning import tune
from flsim import compare
from flsim.comparison.compare import Comparison
from flsim.config.schema import Config
from flsim.metrics.measures import chosen
from flsim.report.plot import drawing_style, save_figure
from flsim.tasks.stream import stream_of
from flsim.text import markdown_table

QUESTIONS = {
    "Who is best under the budget of tests?": (
        ("during_task", "post_switch", "accuracy", "worst_decile_mean", "alone_accuracy", "cloud_grants"),
        ("post_switch", "accuracy"),
    ),
    "What has it learned by itself?": (("alone_gain", "alone_during_task", "alone_post_switch"), ("alone_gain",)),
    "What has training cost, and what is that worth?": (
        ("training_calls", "served", "lifetime_accuracy", "accuracy_at_equal_spend"),
        ("accuracy_at_equal_spend",),
    ),
    "Does it know when it is wrong?": (("wrong_auc", "asking_auc", "ece"), ("wrong_auc",)),
    "What is forgotten over a switch?": (
        ("forgetting_relative", "alone_forgetting_relative"),
        ("forgetting_relative", "alone_forgetting_relative"),
    ),
}
"""A table each: measures, and those in which all are paired with one method."""
REGIME_MEASURES = (
    *("during_task", "post_switch", "forgetting_relative", "alone_during_task", "alone_forgetting_relative"),
)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    args = _arguments(arguments)
    return exit_status(lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    for setting in args.settings:
        print(f"\n# {setting}", flush=True)
        if args.tune:
            learners = {method.tuned for method in _chosen(tuned_in(setting), args.only)}
            well = tune(setting, args.root / f"tuning-{setting}", args.jobs, args.more, learners)
        elif args.regimes is not None:
            well = forgetting(setting, args)
        else:
            well = reproduce(setting, args.root / setting, args)
        if not well:
            return 1
    return 0


def reproduce(setting: str, root: Path, args: argparse.Namespace) -> bool:
    """Run what is missing of one setting, and show what all of it says."""
    compared = _chosen(METHODS, args.only) or METHODS[:1]  # what an ablation or a bound alone is shown beside
    methods, ablations, bounds = (
        runs_of(config_of(setting), arms_of(setting, group), args.seeds, root, args.more)
        for group in (compared, _chosen(ABLATIONS, args.only), _chosen(BOUNDS, args.only))
    )
    if not run_missing([*methods, *ablations, *bounds], args.jobs):
        return False
    show(methods, bounds, args.against, root.with_name(f"{root.name}-compared"))
    if ablations:
        base = [run for run in methods if run.label == METHODS[0].label]
        show([*base, *ablations], [], None, root.with_name(f"{root.name}-ablations"))
    return True


def forgetting(setting: str, args: argparse.Namespace) -> bool:
    """The same question in other regimes: does learning to ask keep more, and where?"""
    regimes = [regime for regime in REGIMES if not args.regimes or regime.name in args.regimes]
    runs = {regime.name: regime_runs(setting, regime, args.seeds, args.root, args.more) for regime in regimes}
    if not run_missing([run for own in runs.values() for run in own], args.jobs):
        return False
    print("\n".join(f"{regime.name}: {regime.what}" for regime in regimes), end="\n\n")
    print(regimes_table({name: compare([run.folder for run in own]) for name, own in runs.items()}), flush=True)
    return True


def regime_runs(setting: str, regime: Regime, seeds: Sequence[int], root: Path, more: Sequence[str]) -> list[Planned]:
    """The runs of one regime; those of the setting as it is are the ones of the tables, and are not done again."""
    folder = root / f"regimes-{setting}" / regime.name if regime.settings else root / setting
    return runs_of(config_of(setting), arms_of(setting, COMPARED), seeds, folder, [*more, *regime.settings])


def regimes_table(found: Mapping[str, Comparison]) -> str:
    """A line per regime and method; beside DA-GRPO's means, what the others have more or less than it."""
    measures = chosen(REGIME_MEASURES)
    lines = [["regime", "method", *(title_of(one) for one in measures)]]
    for name, comparison in found.items():
        for result in comparison.results:
            cells = [f"{100 * result.value(one.name):.1f}" for one in measures]
            if result.label != comparison.against:
                gaps = [gap_of(comparison, result, comparison.against, one.name) for one in measures]
                cells = [f"{own}: {gap}" for own, gap in zip(cells, gaps, strict=True)]
            lines.append([name, result.label, *cells])
    return markdown_table(lines)


def show(methods: Sequence[Planned], bounds: Sequence[Planned], against: str | None, out: Path) -> None:
    """Print the tables of some methods, paired with one of them or the first, and write page and figures."""
    found = compare([run.folder for run in methods], against=against, bounds=[run.folder for run in bounds])
    page = found.write(out)[0]
    config = methods[0].config
    seeds = " ".join(str(seed) for seed in sorted({run.config.seed for run in methods}))
    print(f"\n{conditions(f'{config.fleet.devices} devices, {config.rounds} rounds', f'seeds {seeds}')}\n")
    for question, (names, paired) in QUESTIONS.items():
        print(f"### {question}", question_table(found, names, paired), sep="\n\n", end="\n\n")
    of_method: dict[str, list[Config]] = defaultdict(list)
    for run in methods:
        of_method[run.label].append(run.config)
    switched = {label: over_switch(own) for label, own in of_method.items()}
    print(switch_table(switched, stream_of(config).phases[0].name), end="\n\n")
    asked = {label: usage_by_phase(own) for label, own in of_method.items()}
    usage = {label: phases for label, phases in asked.items() if phases}
    if usage:
        print("### Is the budget kept while it learns?", end="\n\n")
        kept = [label for label, phases in usage.items() if within(phases, config.budget.tau)]
        print(usage_table(usage), end="\n\n")
        print(
            f"fleet's usage at most tau + 0.05 and at most a tenth of devices above it in all phases: {', '.join(kept)}"
        )
        with drawing_style():
            figure = asking_figure(found, list(usage), stream_of(config).phases, config.budget.tau)
        save_figure(figure, out / "usage.png")
    with drawing_style():
        save_figure(switch_figure(switched, stream_of(config).phases[0].name), out / "switch.png")
    print(f"page: {page}", flush=True)


def _chosen(methods: Sequence[Method], only: Sequence[str]) -> list[Method]:
    return [method for method in methods if not only or method.label in only]


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = study_parser("paper", __doc__, seeds=range(5), root="runs/paper")
    labels = [method.label for method in (*METHODS, *ABLATIONS, *BOUNDS)]
    names = list(SETTINGS)
    parser.add_argument("--settings", nargs="+", choices=names, default=BUILT_IN, help=f"default: {' '.join(BUILT_IN)}")
    parser.add_argument(
        "--only", nargs="+", choices=labels, default=[], metavar="LABEL", help=f"of: {'; '.join(labels)}"
    )
    parser.add_argument(
        "--against",
        choices=[method.label for method in METHODS],
        metavar="LABEL",
        help="the method that the others are paired with (default: the first)",
    )
    parser.add_argument("--tune", action="store_true", help="choose settings on validation questions, and no more")
    parser.add_argument(
        "--regimes", nargs="*", choices=[regime.name for regime in REGIMES], help="forgetting in other regimes, or all"
    )
    args = parser.parse_args(arguments)
    if args.against and args.only and args.against not in args.only:
        parser.error(f"--against {args.against!r} is not among --only; add it there, or pair with one of them")
    return args


if __name__ == "__main__":
    sys.exit(main())
