"""The table of a part: a line per arm, means over users and seeds, and paired differences with their intervals."""

import statistics
from collections.abc import Callable, Mapping, Sequence

from experiments.compare_strategies.measure import Outcome
from experiments.compare_strategies.plan import Part
from flsim.comparison.table import gap_text
from flsim.metrics.intervals import Interval, paired_over_users
from flsim.metrics.users import worst_decile_mean
from flsim.text import markdown_table as table

Outcomes = Mapping[str, Sequence[Outcome]]
"""Arm -> its runs, in the order of the seeds."""


def part_table(part: Part, outcomes: Outcomes) -> str:
    """All arms of a part as Markdown.

    Percent, except forgetting and differences, which are points of accuracy. `worst 10 %` is the mean of the worst-off
    tenth of users. Spread (sd) is over seeds; intervals are 95 %, by bootstrap over seeds and users.
    """
    against = [f"- {name} (points)" for name in part.against]
    header = ["arm", "user mean (sd)", "worst 10 %", "alone", "forgets", *against, "harmed"]
    header += ["bias", "cut", "up MB", "down MB", "calls", "money"]
    lines = [header]
    for arm in part.arms:
        runs = outcomes[arm.name]
        pairs = ["" if arm.name == other else gap_text(difference(outcomes, arm.name, other)) for other in part.against]
        lines.append(
            [
                arm.name,
                _with_spread([float(run.accuracy.mean()) for run in runs]),
                _percent(runs, lambda run: worst_decile_mean(run.accuracy.to_numpy(dtype=float))),
                _percent(runs, lambda run: float(run.alone.mean())),
                f"{100 * statistics.mean(float(run.forgetting.mean()) for run in runs):+.1f}",
                *pairs,
                "" if arm.name == part.against[0] else f"{100 * harmed(outcomes, arm.name, part.against[0]):.0f}",
                _optional([run.bias for run in runs], "{:.1%}"),
                _optional([run.cut for run in runs], "{:.2%}"),
                *(f"{statistics.mean(of):.0f}" for of in ([r.uplink_mb for r in runs], [r.downlink_mb for r in runs])),
                f"{statistics.mean(run.calls for run in runs):.0f}",
                f"{statistics.mean(run.money for run in runs):.4f}",
            ]
        )
    return table(lines)


def difference(outcomes: Outcomes, one: str, other: str) -> Interval:
    """Accuracy of one arm minus another's, paired by user and seed."""
    return paired_over_users(*([run.accuracy for run in outcomes[name]] for name in (one, other)))


def harmed(outcomes: Outcomes, one: str, other: str) -> float:
    """Share of users, over all seeds, who are worse off with one arm than with the other."""
    worse = [
        float(value < before[user])
        for after, before in zip(*([run.accuracy for run in outcomes[name]] for name in (one, other)), strict=True)
        for user, value in after.items()
    ]
    return statistics.mean(worse)


def _with_spread(values: Sequence[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{100 * statistics.mean(values):.1f} ({100 * spread:.1f})"


def _percent(runs: Sequence[Outcome], of: Callable[[Outcome], float]) -> str:
    return f"{100 * statistics.mean(of(run) for run in runs):.1f}"


def _optional(values: Sequence[float | None], shape: str) -> str:
    known = [value for value in values if value is not None]
    return shape.format(statistics.mean(known)) if known else ""
