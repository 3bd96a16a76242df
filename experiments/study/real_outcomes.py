r"""Real questions, recorded verdicts: a small reader learns by DA-GRPO when to ask, beside routers.

One training per domain and seed on eight devices serves all rules, which are tested on the same devices and held-out
questions. Prints the tables, and leaves a figure and a page per domain in the folder. What is finished is never done
again.

  python -m experiments.pretrain reader --data ../shared/data --out runs         # once
  flsim study real_outcomes                                      # all
  flsim study real_outcomes --domains gsm8k --seeds 0 1
  flsim study real_outcomes --seeds 100 --more evaluation.split=validation --root runs/real_validation
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from experiments.benchmark.measuring import conditions
from experiments.study.command import run_missing, study_parser
from experiments.study.phases import PhaseUsage, usage_by_phase
from experiments.study.plan import Arm, Planned, by_label, runs_of
from experiments.study.running import exit_status
from experiments.study.tables import gap_of, measures_table, paired_table, percent_text
from flsim import compare
from flsim.comparison.compare import Comparison
from flsim.comparison.result import Result
from flsim.files import write_atomically
from flsim.metrics.formulas import SENDING
from flsim.metrics.intervals import Interval
from flsim.metrics.measures import Measure
from flsim.metrics.run_rows import RunRows
from flsim.metrics.users import per_user
from flsim.report.plot import COLOURS, GROUP_COLOURS, QUIET, drawing_style, new_figure, save_figure
from flsim.text import markdown_table

CONFIGS = Path(__file__).parents[1] / "configs"
DOMAINS = {"gsm8k": "replay_gsm8k", "mmlu": "replay_mmlu", "code": "replay_code", "domains": "replay_domains"}
"""Name -> config."""
OWN, CALIBRATED = "DA-GRPO", "DA-GRPO, calibrated"
_MIXED = "experiments.study.rules:Mixed"
RULES: dict[str, dict[str, object]] = {
    OWN: {"path": "clients.asking.policy:Own"},  # by its own lambda
    CALIBRATED: {"path": _MIXED, "rule": "clients.asking.policy:OwnCalibrated"},
    "router, own outcomes": {"path": "experiments.study.rules:Router"},
    "router, all outcomes": {"path": "experiments.study.rules:Router", "pooled": True},
    "router, equal labels": {"path": "experiments.study.rules:Router", "pooled": True, "bought": True},
    "long questions": {"path": _MIXED, "rule": "experiments.study.rules:LongQuestions"},
    "at random": {"path": "clients.asking.simple:AtRandom"},
    "oracle": {"path": "clients.asking.simple:Oracle"},
}
"""Label -> `client.asking`."""
BAND = 0.03
"""How far from tau usage may be, up or down."""


def _wishes(run: RunRows) -> pd.Series:
    return per_user(run.at_end("cloud_requests"))


def _within(run: RunRows) -> pd.Series:
    return ((_wishes(run) - run.tau).abs() <= BAND + 1e-9).astype(float)


SPENDS = tuple(f"sending_{percent}" for percent in (10, 20, 30, 50))
WISHES = Measure("wishes", "would send", "share", "Share of the test prompts that the rule would send.", _wishes)
WITHIN = Measure(
    "within", f"users within {BAND:g}", "share", "Share of users whose wishes are about tau of the prompts.", _within
)
MEASURES: tuple[str | Measure, ...] = (WISHES, WITHIN, "accuracy", *SPENDS, "apgr", "asking_auc")
_DRAWN = {
    CALIBRATED: COLOURS["global"],
    "router, equal labels": GROUP_COLOURS[1],
    "router, all outcomes": GROUP_COLOURS[5],
    "long questions": GROUP_COLOURS[3],
    "at random": QUIET,
}
"""Rules that a line is drawn for; the others are in the tables, above all the oracle, beside which these are one."""


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = study_parser("real_outcomes", __doc__, seeds=range(5), root="runs/real_outcomes")
    names = list(DOMAINS)
    parser.add_argument("--domains", nargs="+", choices=names, default=names, help="default: all")
    args = parser.parse_args(arguments)
    return exit_status(lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    runs = {domain: domain_runs(domain, args.seeds, args.root, args.more) for domain in args.domains}
    if not run_missing([run for own in runs.values() for run in own], args.jobs):
        return 1
    show(runs, args.root)
    return 0


def domain_runs(domain: str, seeds: Sequence[int], root: Path, more: Sequence[str]) -> list[Planned]:
    """The runs of a domain, one per rule and seed."""
    arms = [_arm(domain, *rule) for rule in RULES.items()]
    return runs_of(CONFIGS / f"{DOMAINS[domain]}.yaml", arms, seeds, root, more)


def _arm(domain: str, label: str, asking: Mapping[str, object]) -> Arm:
    folder = domain if label == OWN else f"{domain}-{label.replace(', ', '-').replace(' ', '_')}"
    return Arm(label, tuple(f"client.asking.{key}={value}" for key, value in asking.items()), (), folder)


def show(runs: Mapping[str, Sequence[Planned]], root: Path) -> None:
    """Print what finished runs say, and write it with the figure."""
    found = {
        domain: compare([], labels=by_label(own), against=CALIBRATED, measures=MEASURES) for domain, own in runs.items()
    }
    parts = [part for domain, own in runs.items() for part in _parts(domain, own, found[domain])]
    text = "\n\n".join(["## all domains", recovered_table(found), *parts]) + "\n"
    print(text, flush=True)
    write_atomically(root / "tables.md", text.encode())
    spending_figure(found, root / "spending.png")
    pages = [comparison.write(root / "compared" / domain)[0] for domain, comparison in found.items()]
    print("\n".join(f"page: {page}" for page in pages), f"figure: {root / 'spending.png'}", sep="\n", flush=True)


def _parts(domain: str, runs: Sequence[Planned], found: Comparison) -> list[str]:
    configs = [run.config for run in runs if run.label == OWN]
    first, seeds = configs[0], ", ".join(str(config.seed) for config in configs)
    what = f"{first.fleet.devices} devices, {first.rounds} rounds", f"tau {first.budget.tau:g}", f"seeds {seeds}"
    ends = [percent_text(found.of(OWN).means.get(name)) for name in ("alone_accuracy", "cloud_accuracy")]
    return [
        f"## {domain}\n\n{conditions(*what)}",
        usage_table(usage_by_phase(configs, band=BAND)),
        measures_table(found, MEASURES, corner="rule"),
        f"The device alone: {ends[0]}, the cloud alone: {ends[1]}.",
        paired_table(found, [*SPENDS, "apgr"]),
    ]


def recovered_table(domains: Mapping[str, Comparison]) -> str:
    """A line per rule: in each domain its APGR in percent, and that minus the calibrated policy's, user by user."""
    lines = [["APGR", *domains]]
    for label in RULES:
        cells = []
        for found in domains.values():
            of = found.of(label)
            gap = gap_of(found, of, CALIBRATED, "apgr")
            cells.append(f"{100 * of.value('apgr'):.1f}" + (f"; {gap}" if gap else ""))
        lines.append([label, *cells])
    return markdown_table(lines)


def usage_table(phases: Sequence[PhaseUsage]) -> str:
    """A line per phase: usage while learning in its last quarter, and the users within the band."""
    lines = [["phase", "usage in its last quarter", f"users within {BAND:g}"]]
    for of in phases:
        lines.append([f"{of.phase.name}: {', '.join(of.phase.tasks)}", percent_text(of.usage), f"{of.within:.0%}"])
    return markdown_table(lines)


def spending_figure(domains: Mapping[str, Comparison], path: Path) -> None:
    """What each rule gains over requests at random, over the share of prompts sent: the mean user over seeds."""
    with drawing_style():
        width = 1.2 + 4.4 * len(domains)
        figure = new_figure(width, 5.0)
        figure.subplots_adjust(left=0.85 / width, right=1 - 0.35 / width, top=0.9, bottom=0.24, wspace=0.22)
        panels = figure.subplots(1, len(domains), squeeze=False)[0]
        for axes, (title, found) in zip(panels, domains.items(), strict=True):
            _draw(axes, found)
            axes.set_title(title, pad=8)
        panels[0].set_ylabel("accuracy above requests at random, points")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="lower center", ncols=5, fontsize=10)
        save_figure(figure, path)


def _draw(axes: Axes, found: Comparison) -> None:
    """At random the expected accuracy is the straight line from the device alone to the cloud alone."""
    for name, colour in _DRAWN.items():
        points = {percent / 100: of.mean for percent, of in _curve(found.of(name)).items()}
        rise = points[1.0] - points[0.0]
        gains = [100 * (accuracy - points[0.0] - rise * share) for share, accuracy in points.items()]
        axes.plot(list(points), gains, color=colour, lw=2.4 if name == CALIBRATED else 1.5, label=name)
    axes.axhline(0.0, color=QUIET, lw=0.8)
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of the prompts sent to the cloud")


def _curve(result: Result) -> dict[int, Interval]:
    """By percent sent, from none to all."""
    inner = {percent: result.means[f"sending_{percent}"] for percent in SENDING}
    return {0: result.means["alone_accuracy"], **inner, 100: result.means["cloud_accuracy"]}


if __name__ == "__main__":
    sys.exit(main())
