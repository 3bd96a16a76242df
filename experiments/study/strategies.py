"""Strategies side by side on one fleet, the same seeds, streams, rounds and devices for all.

Each part is a question with a table and a page: methods on unequal ranks and on equal ones, weights and server
optimizers, poisoned fleets, distillation at equal spend, and three ways to share a fleet's budget. Runs that are
finished are not repeated, one that was stopped goes on, and the tables are made again from the rows.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.benchmark.measuring import conditions
from experiments.study.command import run_missing, study_parser
from experiments.study.plan import Arm, Planned, by_label, runs_of
from experiments.study.running import exit_status
from experiments.study.tables import measures_table
from flsim import compare
from flsim.metrics.measures import Measure
from flsim.metrics.rows import of_fleet
from flsim.metrics.run_rows import RunRows


def _of_aggregation(name: str, title: str, meaning: str) -> Measure:
    """Mean over rounds of what the server says of the aggregation; nan where it does not."""

    def mean(run: RunRows) -> float:
        found = of_fleet(run.rows)
        return float(found.loc[found["name"] == name, "total"].mean())

    return Measure(name, title, "share", meaning, mean)


CONFIG = Path(__file__).parents[1] / "configs" / "strategies.yaml"
_FLEX = "strategy.path=strategies.flex_lora:FlexLora"
_ATTACK = ("client.path=clients.poisoning:Poisoned", "client.poison=flip", "client.poison_share=0.2")
_PRICED = "budget.fleet.division=traffic"
MEASURES = (
    *("accuracy", "worst_decile_mean", "alone_accuracy", "alone_forgetting_max", "harm_rate"),
    _of_aggregation("aggregation_bias", "bias", "Error of averaging factors relative to their product, had they been."),
    _of_aggregation("cut_energy", "cut", "Energy that the rank leaves out of the average."),
    *("uplink_bytes", "downlink_bytes", "calls", "money", "stage_money", "training_usage"),
)
"""Columns of every part's table; what the server says of the aggregation is a mean over rounds."""


@dataclass(frozen=True)
class Part:
    """Arms that answer one question."""

    name: str
    question: str
    arms: tuple[Arm, ...]
    against: tuple[str, ...]
    """Arms that the others are paired with, user by user; by the first of them users count as harmed."""
    apart: tuple[str, ...] = ()
    """Arms whose budget is divided otherwise: they are shown as bounds."""


def _method(name: str, path: str, *settings: str) -> Arm:
    return Arm(name, (f"strategy.path={path}", *settings))


def _weighed(name: str, weighter: str) -> Arm:
    return Arm(name, (_FLEX, f"strategy.weighter.path=strategies.parts.weighters:{weighter}"))


METHODS = Part(
    "methods",
    "Which aggregation, on unequal ranks?",
    (
        _method("alone", "strategies.local_only:LocalOnly"),
        _method("FedIT", "strategies.fedavg:FedAvg"),
        _method("FlexLoRA, deltas", "strategies.flex_lora:FlexLora"),
        _method("FlexLoRA", "strategies.flex_lora:FlexLora", "strategy.average=adapters"),
        _method("FedEx-LoRA", "strategies.fedex_lora:FedExLora"),
        _method("FedEx-LoRA, decay 0.8", "strategies.fedex_lora:FedExLora", "strategy.decay=0.8"),
        _method("FLoRA", "strategies.flora:Flora"),
        _method("FFA-LoRA", "strategies.ffa_lora:FfaLora"),
        _method("RoLoRA", "strategies.rolora:RoLora"),
        _method("FedSA-LoRA", "strategies.fedsa_lora:FedSaLora"),
        _method("HetLoRA", "strategies.het_lora:HetLora"),
    ),
    ("alone", "FedIT"),
)
EQUAL = Part(
    "equal",
    "Does exact averaging help if all ranks are equal?",
    (
        Arm("FedIT", ("strategy.path=strategies.fedavg:FedAvg", "fleet.ranks=[]")),
        Arm("FlexLoRA", (_FLEX, "fleet.ranks=[]")),
    ),
    ("FedIT",),
)
PARTS = Part(
    "parts",
    "Which weights and which server optimizer, on FlexLoRA's average of deltas?",
    (
        Arm("by examples, average", (_FLEX,)),
        _weighed("uniform", "Uniform"),
        _weighed("effective groups", "EffectiveGroups"),
        _weighed("reward gain", "RewardGain"),
        _weighed("q-fair, q = 1", "QFair"),
        Arm(
            "momentum 0.5",
            (
                _FLEX,
                *(f"strategy.optimizer.{s}" for s in ("path=strategies.parts.server_optimizers:Momentum", "beta=0.5")),
            ),
        ),
        Arm(
            "Adam",
            (_FLEX, *(f"strategy.optimizer.{s}" for s in ("path=strategies.parts.server_optimizers:Adam", "lr=0.01"))),
        ),
    ),
    ("by examples, average",),
)
POISONED = Part(
    "poisoned",
    "Which aggregation, if a fifth of the devices send ten steps backwards for each they learned? (honest users)",
    (
        Arm("alone", ("strategy.path=strategies.local_only:LocalOnly", *_ATTACK)),
        Arm("FedIT", ("strategy.path=strategies.fedavg:FedAvg", *_ATTACK)),
        Arm("FlexLoRA, deltas", (_FLEX, *_ATTACK)),
        Arm("Multi-Krum", ("strategy.path=strategies.robust:MultiKrum", *_ATTACK)),
        Arm("geometric median", ("strategy.path=strategies.robust:GeometricMedian", *_ATTACK)),
        Arm("trimmed mean", ("strategy.path=strategies.robust:TrimmedMean", *_ATTACK)),
        Arm("median", ("strategy.path=strategies.robust:Median", *_ATTACK)),
    ),
    ("alone", "FedIT"),
)
DISTILLATION = Part(
    "distillation",
    "Is money better spent by the devices alone, or 15 % of it by a server that distils?",
    (
        Arm("devices spend all", (_FLEX, _PRICED, "budget.fleet.money_total=0.06")),
        Arm(
            "server distils with 15 %",
            (
                _FLEX,
                _PRICED,
                "budget.fleet.money_total=0.051",
                "stage.path=strategies.stages.distillation:Distillation",
                "stage.every_rounds=4",
                "stage.money_total=0.009",
            ),
        ),
    ),
    ("devices spend all",),
    apart=("server distils with 15 %",),
)
BUDGETS = Part(
    "budgets",
    "How should a fleet share a given number of calls?",
    tuple(
        Arm(share, (_FLEX, f"budget.fleet.division={share}", "budget.fleet.calls_total=8000"))
        for share in ("equally", "traffic", "price")
    ),
    ("equally",),
)
ALL = (METHODS, EQUAL, PARTS, POISONED, DISTILLATION, BUDGETS)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = study_parser("strategies", __doc__, seeds=(0, 1, 2), root="runs/strategies")
    names = [part.name for part in ALL]
    parser.add_argument("--parts", nargs="+", choices=names, default=names, help="which (default: all)")
    args = parser.parse_args(arguments)
    return exit_status(lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    chosen = [part for part in ALL if part.name in args.parts]
    runs = {part: runs_of(CONFIG, part.arms, args.seeds, args.root / part.name, args.more) for part in chosen}
    if not run_missing([run for own in runs.values() for run in own], args.jobs):
        return 1
    for part, own in runs.items():
        show(part, own, args.root / f"{part.name}-compared")
    return 0


def show(part: Part, runs: Sequence[Planned], out: Path) -> None:
    """Print a part's table, and write its page and figures."""
    folders = by_label(runs)
    bounds = {label: folders.pop(label) for label in part.apart}
    alone, against = part.against[0], part.against[-1]
    found = compare([], labels=folders, bounds=bounds, measures=MEASURES, against=against, alone=alone)
    page = found.write(out)[0]
    config, seeds = runs[0].config, sorted({run.config.seed for run in runs})
    ranks = list(config.fleet.ranks) or config.model.rank
    fleet = f"{config.fleet.devices} devices of rank {ranks}, {config.rounds} rounds, tau {config.budget.tau:g}"
    print(f"\n## {part.question}\n\n{conditions(fleet, 'seeds ' + ' '.join(map(str, seeds)))}\n")
    print(measures_table(found, MEASURES, against=part.against, corner="arm"))
    print(f"\npage: {page}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
