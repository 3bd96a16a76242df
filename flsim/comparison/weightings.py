"""A comparison under every weighting of users: a frame of all measures, and a table of some beside the main one."""

import numpy as np
import pandas as pd

from flsim.comparison.cost_table import speed_rows, target_rows
from flsim.comparison.pairing import differences
from flsim.comparison.result import Compared, Result, difference_of, means_of
from flsim.comparison.table import along_rows, end_rows, gap_text
from flsim.config.schema import Config
from flsim.metrics.intervals import Interval, of_columns
from flsim.metrics.measures import MEASURES
from flsim.metrics.weighting import WEIGHTINGS, Weighting
from flsim.tasks.stream import TaskStream
from flsim.tasks.testing import panel_of
from flsim.text import aligned, wrapped

SHOWN = {
    "accuracy": "accuracy",
    "alone_accuracy": "alone",
    "cloud_grants": "test usage",
    "training_usage": "training",
    "asking_auc": "asking AUC",
    "task_auc": "task AUC",
    "class_auc": "class AUC",
}
"""Measures of the table, each where some method has it, and their headings; the files have all."""


def weighting_frame(comparison: Compared) -> pd.DataFrame:
    """Every measure of users under every weighting.

    Returns:
        Columns `method, kind, weighting, measure, mean, low, high`, and `difference, difference_low, difference_high`
        to `against`; a line is missing where nobody's weight or nobody's value is known.
    """
    lines = []
    for kind, results in (("method", comparison.results), ("bound", comparison.bounds)):
        for result in results:
            for weighting in WEIGHTINGS.values():
                gaps = _gaps(comparison, result, weighting)
                for name, mean in _means(comparison, result, weighting).items():
                    line = {"method": result.label, "kind": kind, "weighting": weighting.name, "measure": name}
                    lines.append({**line, **vars(mean), **_difference(gaps.get(name))})
    return pd.DataFrame(lines)


def weighting_rows(comparison: Compared) -> list[list[str]]:
    """Headings, then a line per method and weighting: some measures, and the difference of accuracy to `against`."""
    results, base = (*comparison.results, *comparison.bounds), comparison.of(comparison.against)
    shown = [name for name in SHOWN if any(table[name].notna().any() for result in results for table in result.users)]
    lines = [["users weighed by", "", *(SHOWN[name] for name in shown), f"accuracy minus {comparison.against}"]]
    for result in results:
        for weighting in WEIGHTINGS.values():
            means = of_columns(_only(result.users, shown), _only(result.weights(weighting), shown))
            cells = [MEASURES[name].written(means[name].mean if name in means else None) for name in shown]
            gaps = {}
            if result is not base:
                accuracies = (_only(own, ["accuracy"]) for own in (result.users, base.users, base.weights(weighting)))
                gaps = differences(*accuracies)
            lines.append([result.label, weighting.name, *cells, *(gap_text(gap) for gap in gaps.values())])
    return [[*line, *[""] * (len(lines[0]) - len(line))] for line in lines]


def _only(tables: list[pd.DataFrame], names: list[str]) -> list[pd.DataFrame]:
    return [table[names] for table in tables]


def panel_text(config: Config) -> str:
    """The panel of a run that tests some of its devices only."""
    strata = config.evaluation.strata
    spread = "" if strata is None else f", spread by {strata}"
    tested = panel_of(config.evaluation, config.fleet, TaskStream(config.stream, config.rounds))
    return f"a panel of {len(tested)} of {config.fleet.devices} devices{spread}"


def panel_note(config: Config) -> str:
    """What such a panel means for numbers over users, as a sentence and a space; "" where all devices are tested."""
    if config.evaluation.devices is None:
        return ""
    said = (
        f"Users are those of {panel_text(config)}, the same under all methods: uniform means are unbiased for the "
        f"fleet, other weightings nearly so, and intervals are for users like these; percentiles, the worst 10 % and "
        f"Gini are those of the panel. "
    )
    if config.evaluation.strata is None:
        return said
    return f"{said}Intervals are as of users drawn by chance alone, and rather too wide for a panel that is spread. "


def terminal_table(comparison: Compared) -> str:
    """The main table in plain text, the same under every weighting, and how to read both."""
    tables = [end_rows(comparison), along_rows(comparison), weighting_rows(comparison)]
    tables += [rows for rows in (target_rows(comparison), speed_rows(comparison)) if rows]
    seeds = len(comparison.seeds)
    note = (
        f"{seeds} seed{'s' * (seeds > 1)}; means over users ({comparison.weighting.title}), then seeds; in brackets "
        f"95 % intervals by bootstrap over\nseeds and users. Differences and forgetting are in points; * the interval "
        f"excludes 0."
    )
    more = panel_note(comparison.results[0].method.config)
    note = f"{note}\n{wrapped(more)}" if more else note
    return "\n\n".join([*("\n".join(aligned(rows)) for rows in tables), note])


def _means(comparison: Compared, result: Result, weighting: Weighting) -> dict[str, Interval]:
    if weighting == comparison.weighting:
        return result.means
    return means_of(result.runs, weighting, comparison.own)


def _gaps(comparison: Compared, result: Result, weighting: Weighting) -> dict[str, Interval]:
    return {} if result.label == comparison.against else difference_of(comparison, result.label, weighting)


def _difference(gap: Interval | None) -> dict[str, float]:
    ends = {"difference": "mean", "difference_low": "low", "difference_high": "high"}
    return {name: np.nan if gap is None else float(getattr(gap, end)) for name, end in ends.items()}
