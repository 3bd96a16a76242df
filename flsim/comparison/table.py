"""A comparison as tables: frames with all numbers, and plain text for the terminal."""

import pandas as pd

from flsim.comparison.pairing import Pair
from flsim.comparison.result import Compared, Result, difference_of, under
from flsim.metrics.intervals import Interval
from flsim.metrics.measures import MEASURES, Measure

AT_END = ("accuracy", "worst_decile_mean", "alone_accuracy", "cloud_grants")
"""Columns of the first part of the main table; the difference comes after them."""
ALL_ALONG = (
    *("during_task", "post_switch", "forgetting_max", "training_usage", "violation"),
    *("calls", "money"),
)
"""Columns of its second part, unless others are named."""


def table_frame(comparison: Compared) -> pd.DataFrame:
    """Every number of every method, bound and reference; as `Comparison.table` says."""
    lines = []
    for kind, results in (("method", comparison.results), ("bound", comparison.bounds)):
        for result in results:
            line: dict[str, object] = {"method": result.label, "kind": kind, "seeds": len(result.runs)}
            line |= _flat(result.means)
            line |= {name: value for name, value in result.facts.items() if name not in line}
            if result.label != comparison.against:
                gaps = difference_of(comparison, result.label)
                line |= _flat({f"{name}_difference": interval for name, interval in gaps.items()})
                for pair in (pair for pair in comparison.pairs if pair.label == result.label):
                    line |= {f"{pair.measure}_win_rate": pair.win_rate, f"{pair.measure}_hurt": len(pair.hurt)}
            lines.append(line)
    for label, means in comparison.references.items():
        lines.append({"method": label, "kind": "reference", "seeds": len(comparison.seeds), **_flat(means)})
    return pd.DataFrame(lines)


def per_user_frame(comparison: Compared) -> pd.DataFrame:
    """Every user of every method and bound run; as `Comparison.per_user` says."""
    base = comparison.of(comparison.against)
    parts = []
    for result in (*comparison.results, *comparison.bounds):
        for seeds, own, other in zip(comparison.seeds, result.users, base.users, strict=True):
            gaps = (own["accuracy"] - other["accuracy"]).reindex(own.index)
            parts.append(under(result.label, seeds, own.assign(accuracy_difference=gaps).reset_index()))
    return pd.concat(parts, ignore_index=True)


def end_rows(comparison: Compared) -> list[list[str]]:
    """The main table, first part: headings, then a line per method, bound and reference."""
    heads = ["at the end", *(MEASURES[name].title for name in AT_END), f"accuracy minus {comparison.against}"]
    lines = [
        [r.label, *(cell(r, MEASURES[name]) for name in AT_END), difference_text(comparison.pair(r.label))]
        for r in (*comparison.results, *comparison.bounds)
    ]
    for label, means in comparison.references.items():
        lines.append([label, *(interval_text(means[name]) if name in means else "-" for name in AT_END), ""])
    return [heads, *lines]


def along_rows(comparison: Compared) -> list[list[str]]:
    """The main table, second part: headings, then a line per method."""
    heads = ["over the run", *(one.title for one in comparison.shown)]
    return [heads, *([r.label, *(cell(r, one) for one in comparison.shown)] for r in comparison.results)]


def cell(result: Result, measure: Measure) -> str:
    """One number of a method; accuracy with its interval."""
    if measure.name == "accuracy" and measure.name in result.means:
        return interval_text(result.means[measure.name])
    return measure.written(result.value(measure.name))


def interval_text(interval: Interval) -> str:
    """`61.4 % (58.0..64.9)`."""
    return f"{100 * interval.mean:.1f} % ({100 * interval.low:.1f}..{100 * interval.high:.1f})"


def difference_text(pair: Pair | None) -> str:
    """`+3.1 (+0.4..+5.9) *` in points, with a star where the interval excludes 0; empty without a pair."""
    return "" if pair is None else gap_text(pair.difference)


def gap_text(gap: Interval) -> str:
    """`+3.1 (+0.4..+5.9) *`: a difference in points, with a star where its interval excludes 0."""
    star = " *" if gap.excludes_zero else ""
    return f"{100 * gap.mean:+.1f} ({100 * gap.low:+.1f}..{100 * gap.high:+.1f}){star}"


def _flat(means: dict[str, Interval]) -> dict[str, float]:
    ends = (("", "mean"), ("_low", "low"), ("_high", "high"))
    return {f"{name}{end}": getattr(interval, part) for name, interval in means.items() for end, part in ends}
