"""The tables: usage against the budget, accuracy at equal spend, and every rule against DA-GRPO."""

from collections.abc import Mapping, Sequence

from experiments.real_outcomes.outcomes import BAND, Outcome, difference
from experiments.real_outcomes.rules import CALIBRATED
from experiments.reproduce_paper.phases import PhaseUsage
from flsim.comparison.table import gap_text
from flsim.metrics.intervals import Interval
from flsim.text import markdown_table as table

SPENDS = (10, 20, 30, 50)
"""Percent of the prompts sent."""


def accuracy_table(outcomes: Mapping[str, Outcome]) -> str:
    """A line per rule: what it would send, accuracy at equal spend, APGR and AUC; user means with intervals."""
    spends = [f"at {spend} %" for spend in SPENDS]
    lines = [["rule", "would send", f"users within {BAND:g}", "accuracy", *spends, "APGR", "AUC"]]
    names = ["accuracy", *(f"sending_{spend}" for spend in SPENDS), "apgr", "asking_auc"]
    for name, outcome in outcomes.items():
        cells = [_share(outcome.means.get(measure)) for measure in names]
        lines.append([name, _share(outcome.means.get("wishes")), f"{outcome.within:.0%}", *cells])
    first = next(iter(outcomes.values())).means
    for name, measure in (("device alone", "alone_accuracy"), ("cloud alone", "cloud_accuracy")):
        lines.append([name, "", "", _share(first.get(measure)), *[""] * (len(SPENDS) + 2)])
    return table(lines)


def paired_table(outcomes: Mapping[str, Outcome], against: str = CALIBRATED) -> str:
    """A line per rule: itself minus DA-GRPO's order of prompts, in points; a star where the interval excludes 0."""
    names = [*(f"sending_{spend}" for spend in SPENDS), "apgr"]
    lines = [[f"minus {against}, points", *(f"at {spend} %" for spend in SPENDS), "APGR"]]
    for name, outcome in outcomes.items():
        if name != against:
            gaps = difference(outcome, outcomes[against])
            lines.append([name, *(gap_text(gaps[measure]) if measure in gaps else "-" for measure in names)])
    return table(lines)


def usage_table(phases: Sequence[PhaseUsage]) -> str:
    """A line per phase: usage while learning in its last quarter, and the users within the band."""
    lines = [["phase", "usage in its last quarter", f"users within {BAND:g}"]]
    for of in phases:
        lines.append([f"{of.phase.name}: {', '.join(of.phase.tasks)}", _share(of.usage), f"{of.within:.0%}"])
    return table(lines)


def _share(found: Interval | None) -> str:
    return "-" if found is None else f"{100 * found.mean:.1f} ({100 * found.low:.1f}..{100 * found.high:.1f})"
