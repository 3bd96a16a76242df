"""Usage by phase: how far from tau devices are in the last quarter of each, and how many are above it."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from flsim.config.schema import Config
from flsim.metrics.intervals import Interval, over_users_and_seeds
from flsim.metrics.rows import ASKED, in_rounds, read_rows, training
from flsim.metrics.users import per_user
from flsim.tasks.stream import Phase, TaskStream

BAND = 0.05
"""How far above tau a device's usage may be."""


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
