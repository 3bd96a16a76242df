"""What methods take to get to an accuracy, and how accurate they are for the same cost: frames and tables."""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd

from flsim.comparison.result import Compared, Result
from flsim.metrics.measure import UNITS
from flsim.metrics.systems import of_classes
from flsim.metrics.time_to import AXES, TIME, Axis, accuracy_at, area_under, cost_to, median_cost, speed_up
from flsim.text import percent

COLUMNS = ("method", "cost", "target", "median", "reached", "seeds", "end", "speed_up", "speed_up_low", "speed_up_high")
"""Of `targets_frame`."""


def axes_of(comparison: Compared) -> list[Axis]:
    """The kinds of cost that all runs know, and that any of them has."""
    courses = [run.course for result in comparison.results for run in result.runs]
    known = [axis for axis in AXES if all(axis.name in course for course in courses)]
    return [axis for axis in known if any(course[axis.name].max() > 0 for course in courses)]


def target_of(comparison: Compared) -> float | None:
    """The accuracy to reach: the one that was named, else what `against` reaches in all seeds, in whole percents.

    None where none was named and runs have no virtual time, or `against` has learned nothing that can be counted.
    """
    if comparison.aim is not None:
        return comparison.aim
    base = comparison.of(comparison.against)
    if TIME not in axes_of(comparison):
        return None
    reached = min(float(run.course[comparison.weighting.name].max()) for run in base.runs)
    whole = math.floor(100 * reached + 1e-9) / 100
    return whole if whole > 0 else None


def costs_of(comparison: Compared, result: Result, axis: Axis, target: float) -> list[float | None]:
    """What each seed took to the target; None where it was not reached."""
    return [cost_to(run.course, axis.name, target, comparison.weighting.name) for run in result.runs]


def end_of(result: Result, axis: Axis) -> float:
    """What a method had taken by its end, mean over seeds."""
    return float(np.mean([run.course[axis.name].iloc[-1] for run in result.runs]))


def targets_frame(comparison: Compared) -> pd.DataFrame:
    """A line per method and kind of cost, with `COLUMNS`.

    `median` is over seeds, infinite where half of them or more do not get there; `reached` of `seeds` do; `end` is what
    the run took in all; `speed_up` is the median of `against` over the method's own.
    """
    target, lines = target_of(comparison), []
    if target is None:
        return pd.DataFrame(columns=list(COLUMNS))
    for result in comparison.results:
        for axis in axes_of(comparison):
            costs = costs_of(comparison, result, axis, target)
            base = costs_of(comparison, comparison.of(comparison.against), axis, target)
            gain = speed_up(base, costs)
            ratio = [np.nan] * 3 if gain is None else [gain.mean, gain.low, gain.high]
            reached = sum(cost is not None for cost in costs)
            end = end_of(result, axis)
            lines.append([result.label, axis.name, target, median_cost(costs), reached, len(costs), end, *ratio])
    return pd.DataFrame(lines, columns=list(COLUMNS))


def target_rows(comparison: Compared) -> list[list[str]]:
    """Headings, then a line per method: how many seeds get there, and what it takes; empty without a target."""
    frame, axes = targets_frame(comparison), {axis.name: axis for axis in axes_of(comparison)}
    if frame.empty:
        return []
    lines = [[f"to {percent(frame['target'].iloc[0])}", "reached", *(axis.title for axis in axes.values())]]
    for label, own in frame.groupby("method", sort=False):
        cells = [
            UNITS[axes[cost].unit](median) if np.isfinite(median) else f"not by {UNITS[axes[cost].unit](end)}"
            for cost, median, end in zip(own["cost"], own["median"], own["end"], strict=True)
        ]
        lines.append([str(label), f"{own['reached'].iloc[0]} of {own['seeds'].iloc[0]}", *cells])
    return lines


def speed_rows(comparison: Compared) -> list[list[str]]:
    """Headings, then a line per method: how many times less than `against` it takes; empty if there is one method."""
    frame, axes = targets_frame(comparison), {axis.name: axis for axis in axes_of(comparison)}
    frame = frame[frame["method"] != comparison.against]
    if frame.empty:
        return []
    lines = [[f"times less than {comparison.against}", *(axis.title for axis in axes.values())]]
    for label, own in frame.groupby("method", sort=False):
        bounds = zip(own["speed_up"], own["speed_up_low"], own["speed_up_high"], strict=True)
        lines.append([str(label), *(_times(*found, several=len(comparison.seeds) > 1) for found in bounds)])
    return lines


def _times(ratio: float, low: float, high: float, *, several: bool) -> str:
    """`1.80 (1.20..2.40) *`, with a star where 1 lies outside; a dash where neither gets there; of one seed `1.80`."""
    if np.isnan(ratio) or not several:
        return "-" if np.isnan(ratio) else _ratio(ratio)
    star = " *" if low > 1 or high < 1 else ""
    return f"{_ratio(ratio)} ({_ratio(low)}..{_ratio(high)}){star}"


def _ratio(value: float) -> str:
    return "∞" if np.isinf(value) else f"{value:.2f}"


def equal_rows(comparison: Compared) -> list[list[str]]:
    """Headings, then a line per method: the mean accuracy over time, and accuracies for the same cost.

    Each seed's runs are held against one another where the one that ended first, or took least, had its end.
    """
    axes = axes_of(comparison)
    if TIME not in axes:
        return []
    shared = {axis: _shared_ends(comparison, axis) for axis in axes}
    heads = [f"at {UNITS[axis.unit](float(np.mean(shared[axis])))}" for axis in axes]
    lines = [["accuracy of the mean user", f"mean up to {heads[0].removeprefix('at ')}", *heads]]
    for result in comparison.results:
        takers: list[tuple[Axis, Callable[[pd.DataFrame, str, float, str], float]]] = [(TIME, area_under)]
        takers += [(axis, accuracy_at) for axis in axes]
        cells = []
        for axis, take in takers:
            found = [
                take(run.course, axis.name, end, comparison.weighting.name)
                for run, end in zip(result.runs, shared[axis], strict=True)
            ]
            mean = float(np.mean(found))
            cells.append("-" if np.isnan(mean) else percent(mean))
        lines.append([result.label, *cells])
    return lines


def _shared_ends(comparison: Compared, axis: Axis) -> list[float]:
    """By seed, the least that a method had taken by its end."""
    runs = zip(*(result.runs for result in comparison.results), strict=True)
    return [min(float(run.course[axis.name].iloc[-1]) for run in of_seed) for of_seed in runs]


def class_rows(comparison: Compared) -> list[list[str]]:
    """Headings, then a line per method: accuracy at the end by class of device, the mean over seeds; empty without."""
    found = {
        result.label: pd.DataFrame([of_classes(run.users["accuracy"], run.classes) for run in result.runs]).mean()
        for result in comparison.results
    }
    names = list(dict.fromkeys(str(name) for means in found.values() for name in means.index))
    if not names:
        return []
    lines = [["accuracy by class of device", *names]]
    for label, means in found.items():
        lines.append([label, *(percent(float(means[name])) if name in means else "-" for name in names)])
    return lines
