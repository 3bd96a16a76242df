"""By phase: how far from tau usage is in the last quarter of each, and what a switch costs of what was learned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from experiments.study.tables import percent_text
from flsim.config.schema import Config
from flsim.metrics.intervals import Interval, over_users_and_seeds
from flsim.metrics.rows import ASKED, evaluation, in_rounds, read_rows, training
from flsim.metrics.users import per_user
from flsim.tasks.stream import Phase, TaskStream
from flsim.text import markdown_table

BAND = 0.05
"""How far above tau a device's usage may be."""
_OVER_SWITCH = {"accuracy": "may ask", "alone_accuracy": "alone", "cloud_grants": "share sent to the cloud"}


@dataclass(frozen=True)
class PhaseUsage:
    """Training usage in the last quarter of one phase."""

    phase: Phase
    usage: Interval
    """Of the mean user over seeds."""
    above: float
    """Share of (seed, user) pairs whose usage is above tau + band."""
    within: float
    """Share of those whose usage is within tau +- band."""


def last_quarter(phase: Phase) -> tuple[int, int]:
    """Its first and last round: of 12 rounds the last 3, of fewer than 4 the last one."""
    length = phase.last_round - phase.first_round + 1
    return phase.last_round - max(1, length // 4) + 1, phase.last_round


def usage_by_phase(configs: Sequence[Config], *, band: float = BAND) -> list[PhaseUsage]:
    """Of one method's runs, one per seed; empty if it never could ask while training.

    Args:
        configs: of the finished runs.
        band: how far from tau a device's usage may be.
    """
    asked = [training(read_rows(config.folder), name=ASKED) for config in configs]
    if not any(float(rows["total"].sum()) for rows in asked):
        return []
    found = []
    for phase in TaskStream(configs[0].stream, configs[0].rounds).phases:
        users: list[pd.Series] = [per_user(in_rounds(rows, *last_quarter(phase))) for rows in asked]
        tau = configs[0].budget.tau
        gaps = pd.concat(users) - tau
        usage = over_users_and_seeds([u.to_numpy(dtype=float) for u in users])
        found.append(PhaseUsage(phase, usage, float((gaps > band).mean()), float((gaps.abs() <= band).mean())))
    return found


def within(usage: Sequence[PhaseUsage], tau: float) -> bool:
    """Whether in all phases usage is at most tau + `BAND`, and that of at most a tenth of the devices above."""
    return all(of.usage.mean <= tau + BAND and of.above <= 0.1 for of in usage)


def usage_table(usage: Mapping[str, Sequence[PhaseUsage]]) -> str:
    """A line per method that asks while it learns: usage in the last quarter of each phase, and who is above."""
    first = next(iter(usage.values()))
    lines = [["usage in the last quarter", *(f"phase {n + 1} ({of.phase.name})" for n, of in enumerate(first))]]
    for label, phases in usage.items():
        lines.append([label, *(f"{percent_text(of.usage)}, {of.above:.0%} above" for of in phases)])
    return markdown_table(lines)


def over_switch(configs: Sequence[Config]) -> dict[str, tuple[float, float]]:
    """Of one method's runs: each measure on the groups of phase 1, at its end and at the end of phase 2.

    Accuracy under the budget is made of two parts that can move against each other: what the model knows alone, and
    which share of the calls the groups get.

    Args:
        configs: of the finished runs, one per seed; evaluation is at the ends of phases at least.

    Returns:
        By measure (0 to 1): the mean user's, mean over seeds.
    """
    before, after = TaskStream(configs[0].stream, configs[0].rounds).phases[:2]
    runs = [read_rows(config.folder) for config in configs]
    found = {}
    for name in _OVER_SWITCH:
        measured = [evaluation(rows, model="global", name=name) for rows in runs]
        ends = []
        for phase in (before, after):
            wanted = [r[(r["round"] == phase.last_round) & r["task"].isin(before.tasks)] for r in measured]
            ends.append(sum(float(per_user(rows).mean()) for rows in wanted) / len(runs))
        found[name] = (ends[0], ends[1])
    return found


def switch_table(found: Mapping[str, Mapping[str, tuple[float, float]]], first_phase: str) -> str:
    """A line per method: `before to after, difference in points`."""
    lines = [[f"group {first_phase}, end of phase 1 to end of phase 2", *_OVER_SWITCH.values()]]
    for label, measures in found.items():
        pairs = [measures[name] for name in _OVER_SWITCH]
        cells = [f"{100 * old:.1f} to {100 * new:.1f}, {100 * (new - old):+.1f}" for old, new in pairs]
        lines.append([label, *cells])
    return markdown_table(lines)
