"""Accuracy over what a test question takes as a picture: a panel for calls, tokens, bytes, joules and seconds each."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from flsim.comparison.figures import draw_key, front_of, hue, key_lines, letters, name_points
from flsim.comparison.result import Compared
from flsim.metrics.measures import MEASURES
from flsim.report.plot import as_percent_axis, new_figure, stretch
from flsim.text import unit_for

_TITLES = {
    "cloud_grants": "Questions that are sent",
    "cloud_test_tokens": "Tokens of the cloud",
    "question_bytes": "Bytes to and from the cloud",
    "question_joules": "Joules of the battery",
    "question_seconds": "Seconds until it is answered",
}
"""Measures of a test question, and what a panel of each is called."""
_ACROSS = 3  # panels side by side
_FAR = 20.0  # times the least of a panel, from which on its axis is of logarithms


def shown(comparison: Compared) -> list[str]:
    """Those that all runs know; none where no run names a mode of help."""
    if not any("helping" in result.method.config.client for result in comparison.results):
        return []
    return [name for name in _TITLES if all(np.isfinite(result.value(name)) for result in comparison.results)]


def question_figure(comparison: Compared) -> Figure:
    """Means over seeds as large dots, seeds as small ones; nothing lies above and left of the grey line."""
    names = shown(comparison)
    down = math.ceil(len(names) / _ACROSS)
    below = 0.55 + 0.24 * key_lines(comparison)
    height = 3.3 * down + below
    figure = new_figure(12, height)
    figure.subplots_adjust(left=0.07, right=0.985, top=1 - 0.4 / height, bottom=(below + 0.5) / height)
    figure.subplots_adjust(hspace=0.5, wspace=0.12)
    panels = figure.subplots(down, _ACROSS, sharey=True, squeeze=False).ravel()
    for panel, name in zip(panels, names, strict=False):
        _draw(panel, comparison, name)
    for panel in panels[len(names) :]:
        panel.set_visible(False)
    figure.supylabel("accuracy of the mean user", x=0.005, size=11)
    draw_key(figure, comparison)
    return figure


def _draw(axes: Axes, comparison: Compared, name: str) -> None:
    """One unit."""
    measure, marks, points = MEASURES[name], letters(comparison), []
    values = [result.value(name) for result in comparison.results]
    size, unit = unit_for(measure.unit, max(values))
    for result in comparison.results:
        colour = hue(comparison, result)
        each = [[float(run.users[one].mean()) for run in result.runs] for one in (name, "accuracy")]  # (2, S)
        axes.scatter(np.array(each[0]) / size, each[1], s=12, color=colour, alpha=0.5, linewidth=0, zorder=2)
        x, y = result.value(name) / size, result.value("accuracy")
        axes.scatter([x], [y], s=60, color=colour, edgecolor="white", linewidth=0.8, zorder=3)
        points.append((x, y, marks[result.label]))
    front = front_of([(x, y) for x, y, _ in points])
    axes.step(*zip(*front, strict=True), where="post", color="#AAAAAA", linewidth=1.4, zorder=1)
    if max(values) > _FAR * min(values) > 0:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")  # powers would be spelt in TeX, which is off
        axes.xaxis.set_minor_formatter(NullFormatter())
    elif measure.unit == "share":
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    axes.margins(0.1)
    stretch(axes)
    name_points(axes, points)
    as_percent_axis(axes)
    axes.set_title(_TITLES[name], pad=8)
    axes.set_xlabel(f"{unit} a test question".strip())
    axes.grid(visible=True, axis="both")
