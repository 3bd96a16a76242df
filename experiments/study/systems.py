"""Ends of a round on a fleet of unequal phones that come and go, and what asking costs a battery.

Three questions, each with a table and a page:

  ends     64 devices of three classes on Wi-Fi, LTE and a slow link, each there for a part of the day: what does it
           take, in hours, joules and gigabytes, to an accuracy of the mean user, where the server waits for all, to a
           deadline, for the first that are done, not at all (buffered), or chooses whom it asks as Oort does?
  unequal  What do unequal devices, and devices that come and go, take from a run that waits for all?
  asking   DA-GRPO's benefit head, a router, confidence and chance, on Wi-Fi and on LTE: joules and seconds of the
           device for a right answer, beside devices that never ask.

The built-in model stands for Qwen2.5-0.5B in 4 bits, the cloud for 70 billion parameters. Runs of different systems
share no users, so they are not paired.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.benchmark.measuring import conditions
from experiments.study.command import run_missing, study_parser
from experiments.study.methods import find_method
from experiments.study.plan import Arm, Planned, by_label, runs_of
from experiments.study.running import exit_status
from experiments.study.tables import cell, measures_table
from flsim import compare
from flsim.comparison.cost_table import speed_rows, target_rows
from flsim.config.shipped import FOLDER
from flsim.metrics.measures import chosen
from flsim.text import markdown_table

CONFIG = FOLDER / "demo.yaml"
STANDS_FOR = "system.stands_for={device: Qwen2.5-0.5B, cloud: 70}"
SHARED = (
    STANDS_FOR,
    "stream.phases=[[arithmetic, numbers]]",
    "client={steps: 3, prompts: 4, group_size: 4}",
    "evaluation={own: never, every_rounds: 3, prompts_per_task: 8}",
)
"""Of all runs: one phase, since a target is reached once."""
FLEET = (*SHARED, "fleet={devices: 64, cohort: 16}", "rounds=24")
LINKS = "system.links={wifi: {share: 0.6}, lte: {share: 0.3}, slow: {share: 0.1}}"
DAILY = "system.availability={kind: daily, start_h: 20, spread_h: 5, length_h: 8}"
PHONES = (*FLEET, LINKS, DAILY)
OORT = "strategy.sampler={path: 'strategies.parts.oort:Oort', share: 0.5}"
ENDS = (
    Arm("all", PHONES),
    Arm("deadline of 60 s", (*PHONES, "system.end={kind: deadline, deadline_s: 60}")),
    Arm("first 16 of 21", (*PHONES, "system.end={kind: first, over: 1.3}")),
    Arm("buffered, 16 of 32", (*PHONES, "system.end={kind: buffered, in_flight: 32}")),
    Arm("Oort, 16 of 32", (*PHONES, "fleet.cohort=32", OORT)),
)
UNEQUAL = (
    Arm("equal, always there", (*FLEET, "system.classes.mid.share=1", "system.links.wifi.share=1")),
    Arm("unequal, always there", (*FLEET, LINKS)),
    Arm("unequal, come and go", PHONES, folder="all"),  # the same run
)
ASKING = (*SHARED, "fleet.devices=16", "rounds=18")
RULES = {"DA-GRPO": "da_grpo", "router": "classifier", "confidence": "confidence", "random": "random", "alone": "never"}
"""Methods of `flsim list methods`; all but DA-GRPO train by GRPO, and share that training."""
NAMES = {
    "ends": "accuracy worst_decile_mean class_gap waste_share busiest_share staleness round_length",
    "unequal": "accuracy virtual_end joules class_gap busiest_share round_length",
    "asking": "accuracy cloud_grants question_joules question_seconds joules_per_right seconds_per_right",
}
"""Measures of each table."""


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = study_parser("systems", __doc__, seeds=(0, 1, 2), root="runs/systems")
    parser.add_argument("--target", type=float, help="share that is to be right (default: what `all` reaches)")
    parser.add_argument("--only", nargs="+", choices=("ends", "unequal", "asking"), help="of the three questions")
    args = parser.parse_args(arguments)
    return exit_status(lambda: _run(args))


def asking_arms() -> list[Arm]:
    """A line for every rule and link."""
    learned = find_method("grpo").files
    return [
        Arm(
            f"{rule}, {link}",
            (*ASKING, f"system.links.{link}.share=1"),
            fragments=(*(() if rule == "DA-GRPO" else learned), *find_method(method).files),
        )
        for link in ("wifi", "lte")
        for rule, method in RULES.items()
    ]


def _run(args: argparse.Namespace) -> int:
    arms = {"ends": ENDS, "unequal": UNEQUAL, "asking": asking_arms()}
    wanted = args.only or list(arms)
    runs = {name: runs_of(CONFIG, arms[name], args.seeds, args.root, args.more) for name in wanted}
    every = {run.folder: run for own in runs.values() for run in own}
    if not run_missing(list(every.values()), args.jobs):
        return 1
    print(f"\n{conditions('seeds ' + ' '.join(map(str, args.seeds)), 'a run a core')}")
    for name, own in runs.items():
        print(f"\n{name}\n")
        if name == "ends":
            _show_ends(own, args.target, args.root.with_name(f"{args.root.name}-ends"))
        else:
            _show_apart(own, NAMES[name].split())
    return 0


def _show_ends(runs: Sequence[Planned], target: float | None, out: Path) -> None:
    """What the target takes under each end, and what else differs; with a page."""
    found = compare([], labels=by_label(runs), against="all", target=target)
    for rows in (target_rows(found), speed_rows(found)):
        print(f"{markdown_table(rows)}\n")
    print(measures_table(found, NAMES["ends"].split(), against=("all",), bounds=False))
    print(f"\npage: {found.write(out)[0]}", flush=True)


def _show_apart(runs: Sequence[Planned], names: Sequence[str]) -> None:
    """A line for every arm; each is compared with nothing, since the systems differ."""
    measures = chosen(names)
    lines = [["", *(one.title for one in measures)]]
    for label, folders in by_label(runs).items():
        (result,) = compare([], labels={label: folders}, measures=measures).results
        lines.append([label, *(cell(result, one) for one in measures)])
    print(markdown_table(lines), flush=True)


if __name__ == "__main__":
    sys.exit(main())
