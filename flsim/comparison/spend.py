"""What training and test cost together, and the accuracy that methods reach for the same cost."""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from flsim.comparison.figures import dash, hue, letters, name_points, short
from flsim.comparison.result import Compared, Result, ratio_difference
from flsim.comparison.table import gap_text, interval_text
from flsim.metrics.formulas import SENDING, at_equal_spend
from flsim.metrics.measures import MEASURES
from flsim.report.plot import INK, EndLabel, as_percent_axis, label_ends, new_figure, percent, stretch

_SHOWN = ("training_calls", "cloud_grants", "total_spend", "accuracy")
"""Measures of the table beside the accuracy at equal spend."""
_EQUAL = "accuracy_at_equal_spend"


@dataclass(frozen=True)
class SpendCurve:
    """A method that sends more and more of its test prompts."""

    result: Result
    spend: NDArray[np.float64]
    """Calls per prompt, training and test together, `(P,)`."""
    accuracy: NDArray[np.float64]
    """Of the mean user at test, `(P,)`."""


def curves_of(comparison: Compared) -> list[SpendCurve]:
    """Of the methods whose curve and training calls were measured: nothing sent, 10 to 90 %, all sent."""
    names = ["alone_accuracy", *(f"sending_{percent}" for percent in SENDING), "cloud_accuracy"]
    shares = np.array([0, *SENDING, 100]) / 100  # (P,)
    found = []
    for result in comparison.results:
        accuracy = np.array([result.value(name) for name in names])  # (P,)
        training = result.value("training_calls")
        if np.isfinite(accuracy).all() and np.isfinite(training):
            spend = (training + comparison.life.horizon * shares) / (1 + comparison.life.horizon)  # (P,)
            found.append(SpendCurve(result, spend, accuracy))
    return found


def spend_rows(comparison: Compared) -> list[list[str]]:
    """Headings, then a line per method with what it cost and reached; empty where no training calls are known."""
    if not any(np.isfinite(result.value("training_calls")) for result in comparison.results):
        return []
    base = comparison.of(comparison.against)
    weights = [own["accuracy"] for own in base.weights(comparison.weighting)]
    lines = [["calls per prompt", *(MEASURES[name].title for name in (*_SHOWN, _EQUAL)), f"minus {comparison.against}"]]
    for result in comparison.results:
        cells = [MEASURES[name].written(result.value(name)) for name in _SHOWN]
        reached = result.means.get(_EQUAL)
        gap = None if result is base else ratio_difference(at_equal_spend(), result.users, base.users, weights)
        cells += ["-" if reached is None else interval_text(reached), "" if gap is None else gap_text(gap)]
        lines.append([result.label, *cells])
    return lines


def spend_figure(comparison: Compared) -> Figure:
    """Accuracy at test over calls per prompt of training and test together; a line begins where training ended."""
    curves, marks = curves_of(comparison), letters(comparison)
    used = [(result.value("total_spend"), result.value("accuracy"), result) for result in comparison.results]
    used = [(x, y, result) for x, y, result in used if np.isfinite([x, y]).all()]
    right = min(1.0, 1.5 * max([comparison.spend, *(x for x, _, _ in used)]))
    height = 5.2 + 0.3 * max(0, len(curves) - 12)  # for a label at the end of every line
    figure = new_figure(11, height)
    figure.subplots_adjust(left=0.075, right=0.74, top=1 - 0.5 / height, bottom=0.6 / height)
    axes, labels = figure.subplots(), []
    for curve in curves:
        colour, own = hue(comparison, curve.result), curve.spend <= right
        end = float(np.interp(right, curve.spend, curve.accuracy))
        places, values = np.append(curve.spend[own], right), np.append(curve.accuracy[own], end)  # (P',) each
        axes.plot(places, values, color=colour, linewidth=2.0, linestyle=dash(comparison, curve.result))
        axes.plot(places[:1], values[:1], "|", color=colour, markersize=11, markeredgewidth=2)
        labels.append(EndLabel(end, f"{marks[curve.result.label]} {short(curve.result.label)}", colour))
    for x, y, result in used:
        axes.plot(x, y, "o", color=hue(comparison, result), markeredgecolor="white", markersize=8)
    axes.axvline(comparison.spend, color=INK, linewidth=1.3, linestyle=(0, (5, 3)), zorder=1)
    axes.set_xlim(0, right)
    stretch(axes)
    as_percent_axis(axes)
    axes.xaxis.set_major_formatter(lambda value, _: percent(value))
    axes.set(xlabel="cloud calls per prompt, training and test together", ylabel="accuracy of the mean user at the end")
    axes.set_title(f"What training and test cost together (H = {comparison.life.horizon:g})", pad=10)
    axes.grid(visible=True, axis="both")
    label_ends(axes, labels)
    name_points(axes, [(x, y, marks[result.label]) for x, y, result in used])
    return figure
