"""The paper's table: what is learned, what is kept over a switch, what is asked in each phase, paired with DA-GRPO."""

from collections.abc import Mapping, Sequence

from experiments.reproduce_paper.phases import PhaseUsage
from flsim.comparison.result import Compared, Result, difference_of
from flsim.comparison.table import gap_text
from flsim.metrics.intervals import Interval
from flsim.text import markdown_table as table

MEASURES = (
    ("during_task", "during task"),
    ("post_switch", "post switch"),
    ("forgetting_relative", "forgets, relative"),
    ("alone_forgetting_relative", "forgets alone"),
    ("accuracy", "at the end"),
    ("alone_accuracy", "alone"),
    ("worst_decile_mean", "worst 10 %"),
    ("cloud_grants", "test usage"),
)


def measures_table(comparison: Compared) -> str:
    """A line per method and bound: means over users with intervals over users and seeds."""
    lines = [["method", *(title for _, title in MEASURES)]]
    for result in (*comparison.results, *comparison.bounds):
        lines.append([result.label, *(_cell(result, name) for name, _ in MEASURES)])
    return table(lines)


def paired_table(comparison: Compared) -> str:
    """A line per method: itself minus the one that it is paired with, user by user; a star where 0 is excluded."""
    names = ("during_task", "post_switch", "forgetting_relative", "alone_forgetting_relative", "accuracy")
    titles = dict(MEASURES)
    lines = [[f"minus {comparison.against}, points", *(titles[name] for name in names)]]
    for result in (*comparison.results, *comparison.bounds):
        if result.label != comparison.against:
            gaps = difference_of(comparison, result.label)
            lines.append([result.label, *(gap_text(gaps[name]) if name in gaps else "-" for name in names)])
    return table(lines)


def usage_table(usage: Mapping[str, Sequence[PhaseUsage]]) -> str:
    """A line per method that asks while it learns: usage in the last quarter of each phase, and who is above."""
    first = next(iter(usage.values()))
    lines = [["usage in the last quarter", *(f"phase {n + 1} ({of.phase.name})" for n, of in enumerate(first))]]
    for label, phases in usage.items():
        lines.append([label, *(f"{_share(of.usage)}, {of.above:.0%} above" for of in phases)])
    return table(lines)


def _cell(result: Result, name: str) -> str:
    if name in result.means:
        return _share(result.means[name])
    value = result.value(name)
    return "-" if value != value else f"{100 * value:.1f}"


def _share(found: Interval) -> str:
    return f"{100 * found.mean:.1f} ({100 * found.low:.1f}..{100 * found.high:.1f})"
