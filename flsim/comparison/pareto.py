"""Accuracy against what it cost: the methods that none beats for as little.

`pareto.png`, for the spend while training and for the share of test prompts that the cloud answered.
"""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from flsim.comparison.lettering import hue, letters, short
from flsim.comparison.result import Compared, Result
from flsim.report.drawing import QUIET, EndLabel, as_percent_axis, label_ends, new_figure, percent, say_missing, stretch

_KEYS = 4  # columns of the key


def pareto_figure(comparison: Compared) -> Figure:
    """Accuracy against what was spent: cloud calls while training, and the share of test prompts that the cloud got."""
    lines = -(-len(comparison.results) // _KEYS)
    below = 0.75 + 0.24 * lines
    height = 5.0 + below
    figure = new_figure(12, height)
    room = (below / height, 1 - (below + 0.45) / height)  # bottom and height of the panels
    left, right = figure.add_axes((0.065, room[0], 0.33, room[1])), figure.add_axes((0.47, room[0], 0.33, room[1]))
    has_money = any(_spent(result) > 0 for result in comparison.results)
    spent = {r.label: [_spent_of(run.facts, has_money) for run in r.runs] for r in comparison.results}
    _draw_front(left, comparison, spent)
    left.set_xlabel("money spent on the cloud in training" if has_money else "cloud calls in training")
    left.set_title("For what was spent in training", pad=10)
    used = {r.label: [float(run.users["cloud_usage"].mean()) for run in r.runs] for r in comparison.results}
    _draw_front(right, comparison, used, levels=True)
    right.xaxis.set_major_formatter(lambda value, _: percent(value))
    right.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    right.set_xlabel("test prompts that the cloud answered")
    right.set_title("For what it asks at test", pad=10)
    _draw_key(figure, comparison)
    return figure


def front_of(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The Pareto front of (spend, accuracy): the points that none beats for as little, by rising spend."""
    best: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or y > best[-1][1]:
            best.append((x, y))
    return best


def _draw_front(axes: Axes, comparison: Compared, spent: dict[str, list[float]], *, levels: bool = False) -> None:
    """Every method as a dot with its letter, small dots for its seeds, and the line of those none beats for less."""
    marks = letters(comparison)
    points: list[tuple[float, float, Result]] = []
    for result in comparison.results:
        x, y = np.array(spent[result.label]), np.array([float(run.users["accuracy"].mean()) for run in result.runs])
        axes.scatter(x, y, s=12, color=hue(comparison, result), alpha=0.5, linewidth=0, zorder=2)
        if np.isfinite(x).all() and np.isfinite(y).all():
            points.append((float(x.mean()), float(y.mean()), result))
    if not points:
        say_missing(axes, "spend measured")
        return
    front = front_of([(mean_x, mean_y) for mean_x, mean_y, _ in points])
    axes.step(*zip(*front, strict=True), where="post", color="#AAAAAA", linewidth=1.4, zorder=1)
    for mean_x, mean_y, result in points:
        place, colour = ([mean_x], [mean_y]), hue(comparison, result)
        axes.scatter(*place, s=60, color=colour, edgecolor="white", linewidth=0.8, zorder=3)
    axes.margins(0.1)
    stretch(axes)
    if levels:
        _draw_levels(axes, comparison)
    _name_points(axes, [(mean_x, mean_y, marks[result.label]) for mean_x, mean_y, result in points])
    as_percent_axis(axes)
    axes.set_ylabel("accuracy of the mean user at the end")
    axes.grid(visible=True, axis="both")


def _name_points(axes: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Write letters beside points, each where it covers neither a point nor another letter."""
    axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())
    scale = 72 / axes.get_figure(root=True).dpi  # type: ignore[union-attr]
    places = [axes.transData.transform((x, y)) * scale for x, y, _ in points]  # in typographic points
    taken = list(places)
    ways = [(np.cos(a), np.sin(a)) for a in np.linspace(0, 2 * np.pi, 12, endpoint=False) + 0.5]
    for (x, y, text), place in zip(points, places, strict=True):
        offers = [np.array(way) * reach for reach in (11.0, 17.0, 24.0, 32.0) for way in ways]
        free = (offer for offer in offers if all(np.hypot(*(place + offer - other)) > 10.5 for other in taken))
        offset = next(free, offers[-1])
        taken.append(place + offset)
        leader = {"arrowstyle": "-", "color": QUIET, "linewidth": 0.7, "shrinkA": 4, "shrinkB": 2}
        axes.annotate(
            text,
            (x, y),
            tuple(offset),
            textcoords="offset points",
            size=10,
            weight="bold",
            ha="center",
            va="center",
            zorder=4,
            arrowprops=leader,
        )


def _draw_levels(axes: Axes, comparison: Compared) -> None:
    """What bounds the methods, as level lines with their names at the right edge."""
    named = [
        (label, means.get("accuracy", means.get("local_accuracy"))) for label, means in comparison.references.items()
    ]
    named += [(result.label, result.means.get("accuracy")) for result in comparison.bounds]
    low, high = axes.get_ylim()
    low, high = low - 0.25 * (high - low), high + 0.25 * (high - low)
    axes.set_ylim(low, high)
    labels = []
    for label, interval in named:
        if interval is None:
            continue
        text = f"{short(label)} {percent(interval.mean)}"
        if low <= interval.mean <= high:
            axes.axhline(interval.mean, color=QUIET, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1)
            labels.append(EndLabel(interval.mean, text, QUIET))
        else:  # a line far away would press the methods together
            above = interval.mean > high
            labels.append(EndLabel(high if above else low, f"{'↑' if above else '↓'} {text}", QUIET))
    label_ends(axes, labels)


def _draw_key(figure: Figure, comparison: Compared) -> None:
    """Letter and name of every method under the panels, in columns."""
    height = float(figure.get_figheight())
    marks = letters(comparison)
    texts = [f"{marks[result.label]}  {short(result.label)}" for result in comparison.results]
    down = -(-len(texts) // _KEYS)
    for number, text in enumerate(texts):
        column, line = divmod(number, down)
        place = (0.065 + 0.23 * column, (0.1 + 0.24 * (down - 1 - line)) / height)
        figure.text(*place, text, size=10, va="baseline")


def _spent(result: Result) -> float:
    money = result.value("money")
    return 0.0 if math.isnan(money) else money


def _spent_of(facts: dict[str, float], in_money: bool) -> float:
    return facts["money"] + facts["server_money"] if in_money else facts["calls"]
