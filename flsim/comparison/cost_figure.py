"""Accuracy over what it costs as a picture: a small panel for hours, joules, bytes and money each, and one legend."""

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from flsim.comparison.cost_table import axes_of, costs_of, end_of, target_of
from flsim.comparison.figures import dash, hue, letters, name_points, short
from flsim.comparison.result import Compared, Result
from flsim.metrics.time_to import Axis, median_cost
from flsim.report.plot import INK, as_percent_axis, new_figure, percent, stretch
from flsim.text import unit_for

_ACROSS = 2  # panels side by side
_KEYS = 3  # columns of the legend


def cost_figure(comparison: Compared) -> Figure:
    """Accuracy of the mean user over each kind of cost that the runs know; where a target is named, who gets there."""
    axes = axes_of(comparison)
    down, lines = math.ceil(len(axes) / _ACROSS), math.ceil(len(comparison.results) / _KEYS)
    below = 0.85 + 0.24 * lines
    height = 3.1 * down + below
    figure = new_figure(11, height)
    figure.subplots_adjust(left=0.085, right=0.98, top=1 - 0.4 / height, bottom=(below + 0.1) / height)
    figure.subplots_adjust(hspace=0.5, wspace=0.2)
    panels = np.atleast_1d(figure.subplots(down, min(_ACROSS, len(axes)), sharey=True)).ravel()
    for panel, axis in zip(panels, axes, strict=False):
        _draw_axis(panel, comparison, axis)
    for panel in panels[len(axes) :]:
        panel.set_visible(False)
    figure.supylabel("accuracy of the mean user", x=0.005, size=11)
    _draw_legend(figure, comparison)
    return figure


def _draw_axis(axes: Axes, comparison: Compared, axis: Axis) -> None:
    """Lines of all methods over one kind of cost, with their ends and where they meet the target."""
    target, marks = target_of(comparison), letters(comparison)
    size, unit = unit_for(axis.unit, max(end_of(result, axis) for result in comparison.results))
    ends = []
    for result in comparison.results:
        course = mean_course(comparison, result, axis)
        colour, places = hue(comparison, result), course["cost"] / size
        axes.fill_between(places, course["low"], course["high"], color=colour, alpha=0.14, linewidth=0)
        axes.plot(places, course["mean"], color=colour, linewidth=1.8, linestyle=dash(comparison, result))
        end = (float(places.iloc[-1]), float(course["mean"].iloc[-1]))
        took = np.inf if target is None else median_cost(costs_of(comparison, result, axis, target))
        missed = target is not None and np.isinf(took)
        face = "white" if missed else colour
        axes.plot(*end, ">" if missed else "o", color=colour, markerfacecolor=face, markersize=8, zorder=4)
        if target is not None and not missed:
            axes.plot(took / size, target, "D", color=colour, markeredgecolor="white", markersize=7, zorder=5)
        ends.append((*end, marks[result.label]))
    if target is not None:
        axes.axhline(target, color=INK, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1)
    axes.set_xlim(left=0)
    axes.margins(x=0.06)
    stretch(axes)
    as_percent_axis(axes)
    axes.set_title(axis.title[0].upper() + axis.title[1:], pad=8)
    axes.set_xlabel(unit or axis.title)
    axes.grid(visible=True, axis="both")
    name_points(axes, ends)


def mean_course(comparison: Compared, result: Result, axis: Axis) -> pd.DataFrame:
    """By test, mean over seeds of cost and accuracy, and the lowest and the highest seed: `cost, mean, low, high`."""
    courses = pd.concat([run.course for run in result.runs]).groupby(level=0)
    accuracy = courses[comparison.weighting.name]
    return pd.DataFrame(
        {"cost": courses[axis.name].mean(), "mean": accuracy.mean(), "low": accuracy.min(), "high": accuracy.max()}
    )


def _draw_legend(figure: Figure, comparison: Compared) -> None:
    """One legend for all panels: methods with their letters, and what the marks stand for."""
    marks, target = letters(comparison), target_of(comparison)
    handles = [
        Line2D([], [], color=hue(comparison, r), linewidth=2, linestyle=dash(comparison, r), marker="o",
               label=f"{marks[r.label]}  {short(r.label)}")
        for r in comparison.results
    ]  # fmt: skip
    figure.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.06, 0.3 / figure.get_figheight()), ncols=_KEYS)
    if target is not None:
        said = f"dashed: {percent(target)}; diamond: reached there, median of seeds; open arrow: not reached by the end"
        figure.text(0.075, 0.14 / figure.get_figheight(), said, size=9.5)
