"""Tables of a study in Markdown, by names of measures: means with intervals, differences by user, values by seed."""

import statistics
from collections.abc import Sequence

from flsim.comparison.pairing import differences
from flsim.comparison.result import Compared, Result, gap_recovered_difference
from flsim.comparison.table import gap_text
from flsim.comparison.weightings import weighting_rows
from flsim.metrics.intervals import Interval
from flsim.metrics.measured import Measured
from flsim.metrics.measures import Measure, chosen
from flsim.metrics.weighting import Weighting, mean_by
from flsim.text import markdown_table

Names = Sequence[str | Measure]
"""Measures as `flsim.metrics.measures.chosen` takes them: names, measures of one's own, or paths of them."""


def measures_table(
    comparison: Compared, names: Names, *, against: Sequence[str] = (), corner: str = "method", bounds: bool = True
) -> str:
    """A line per method and bound: what each measure is, over users and seeds.

    Args:
        comparison: of finished runs.
        names: a column each; shares are in percent, with their interval where they have one.
        against: methods that all others are paired with in accuracy, a column each.
        corner: above the methods.
        bounds: whether they have lines, too.
    """
    measures = chosen(names)
    lines = [[corner, *(title_of(one) for one in measures), *(f"accuracy minus {other}" for other in against)]]
    for result in _results(comparison, bounds):
        gaps = [gap_of(comparison, result, other, "accuracy") for other in against]
        lines.append([result.label, *(cell(result, one) for one in measures), *gaps])
    return markdown_table(lines)


def paired_table(comparison: Compared, names: Names, against: str | None = None) -> str:
    """A line per method: itself minus another, user by user, in points; a star where the interval excludes 0.

    Args:
        comparison: of finished runs.
        names: measures of users, a column each.
        against: the other method; None is the one that the comparison pairs with.
    """
    other, measures = against or comparison.against, chosen(names)
    lines = [[f"minus {other}, points", *(title_of(one) for one in measures)]]
    for result in _results(comparison):
        if result.label != other:
            lines.append([result.label, *(gap_of(comparison, result, other, one.name) for one in measures)])
    return markdown_table(lines)


def question_table(comparison: Compared, names: Names, paired: Names, *, bounds: bool = True) -> str:
    """A line per method: what measures are, then what it has more than the method that the comparison pairs with.

    Args:
        comparison: of finished runs.
        names: measures, a column each.
        paired: measures of users, a column each of differences in points, user by user; a star excludes 0.
        bounds: whether they have lines, too.
    """
    measures, gaps, against = chosen(names), chosen(paired), comparison.against
    lines = [["method", *(title_of(one) for one in measures), *(f"{title_of(one)}, minus {against}" for one in gaps)]]
    for result in _results(comparison, bounds):
        differences_ = [gap_of(comparison, result, against, one.name) for one in gaps]
        lines.append([result.label, *(cell(result, one) for one in measures), *differences_])
    return markdown_table(lines)


def seeds_table(comparison: Compared, names: Names) -> str:
    """A line per method and measure, a column per seed, then mean and standard deviation over seeds."""
    seeds = [f"seed {seed}" for seed, _ in comparison.seeds]
    lines = [["method", "measure", *seeds, "mean", "sd"]]
    for result in comparison.results:
        for one in chosen(names):
            values = [_of_seed(run, one.name, comparison.weighting) for run in result.runs]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells = (*values, statistics.mean(values), spread)
            lines.append([result.label, title_of(one), *(one.written(value) for value in cells)])
    return markdown_table(lines)


def weightings_table(comparison: Compared) -> str:
    """A line per method and weighting of users: accuracy, usage and AUCs, and accuracy minus the method paired with."""
    return markdown_table(weighting_rows(comparison))


def title_of(measure: Measure) -> str:
    """Of its column; what is taken without the cloud says so."""
    return f"{measure.title}, alone" if measure.table.endswith(" alone") else measure.title


def cell(result: Result, measure: Measure) -> str:
    """One measure of one method; shares and points without their sign of percent, so that columns stay narrow."""
    interval = result.means.get(measure.name)
    if interval is not None and measure.unit == "share":
        return percent_text(interval)
    return measure.written(result.value(measure.name))


def percent_text(interval: Interval | None) -> str:
    """`61.4 (58.0..64.9)`: a share in percent with its interval; a dash for None."""
    if interval is None:
        return "-"
    return f"{100 * interval.mean:.1f} ({100 * interval.low:.1f}..{100 * interval.high:.1f})"


def gap_of(comparison: Compared, result: Result, against: str, measure: str) -> str:
    """`+3.1 (+0.4..+5.9) *`: a method minus another in points; empty for that one itself, a dash if not measured."""
    if result.label == against:
        return ""
    base = comparison.of(against)
    weights = base.weights(comparison.weighting)
    if measure == "apgr":  # a ratio of mean users, not a mean of users' ratios
        gap = gap_recovered_difference(result.users, base.users, [own["accuracy"] for own in weights])
        return "-" if gap is None else gap_text(gap)
    if any(measure not in one for one in result.users):
        return "-"
    first, second = ([table[[measure]] for table in of.users] for of in (result, base))
    gaps = differences(first, second, weights)
    return gap_text(gaps[measure]) if measure in gaps else "-"


def _of_seed(run: Measured, name: str, weighting: Weighting) -> float:
    """A measure of one seed's run; nan where it was not measured."""
    if name not in run.users:
        return run.facts.get(name, float("nan"))
    found = mean_by(run.users[name].dropna(), run.weights(weighting)[name])
    return float("nan") if found is None else found


def _results(comparison: Compared, bounds: bool = True) -> Sequence[Result]:
    return (*comparison.results, *comparison.bounds) if bounds else comparison.results
