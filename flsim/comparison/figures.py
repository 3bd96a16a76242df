"""The figures of a comparison by user and over rounds.

`paired.png` differences by user, `curves.png` accuracy over rounds, `asking.png` usage and its price, `users.png` the
band of users of each method, `pareto.png` accuracy against what it cost.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from flsim.comparison.pairing import Pair
from flsim.comparison.result import Compared, Result
from flsim.report.plot import (
    COLOURS,
    INK,
    QUIET,
    EndLabel,
    as_percent_axis,
    as_rounds_axis,
    draw_band,
    label_ends,
    mark_phases,
    new_figure,
    percent,
    say_missing,
    stretch,
)
from flsim.tasks.stream import Phase, TaskStream

# How methods are told apart, alike in all figures: by letter and place; colour and dashes only help.

_HUES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B8860B", "#56B4E9", "#8A5A9E", "#7A4B1E")


_DASHES = ("solid", (0, (6, 2)), (0, (2, 2)))


_LABEL = 26  # letters of a method's name that a figure shows


def letters(comparison: Compared) -> dict[str, str]:
    """The letter of every method: A, B, ..., Z, AA, AB, ..."""
    names = [chr(ord("A") + number) for number in range(26)]
    names += [first + second for first in names for second in names]
    return {result.label: names[number] for number, result in enumerate(comparison.results)}


def hue(comparison: Compared, result: Result) -> str:
    """The colour of a method; eight in turn."""
    return _HUES[comparison.results.index(result) % len(_HUES)]


def dash(comparison: Compared, result: Result) -> Any:
    """How a method's line is dashed; three ways in turn, since lines may coincide."""
    return _DASHES[comparison.results.index(result) % len(_DASHES)]


def short(label: str) -> str:
    """A method's name as far as a figure has room for it."""
    return label if len(label) <= _LABEL else f"{label[: _LABEL - 1]}…"


def paired_figure(comparison: Compared) -> Figure:
    """A line per method: its differences to the one it is paired with, with the cloud and alone, and who was hurt."""
    shown = [r for r in (*comparison.results, *comparison.bounds) if r.label != comparison.against]
    height = 1.55 + 0.38 * max(len(shown), 1)
    figure = new_figure(11, height)
    figure.subplots_adjust(left=0.235, right=0.985, top=1 - 0.75 / height, bottom=0.6 / height, wspace=0.06)
    marks = letters(comparison)
    places = list(range(len(shown), 0, -1))
    titles = {"accuracy": "may ask the cloud", "alone_accuracy": "alone (asking disabled)"}
    pairs = {measure: [comparison.pair(result.label, measure) for result in shown] for measure in titles}
    if not any(pairs["alone_accuracy"]):  # there is nobody to ask
        titles = {"accuracy": "accuracy"}
    panels = figure.subplots(1, len(titles), sharey=True, squeeze=False)[0]
    for axes, (measure, title) in zip(panels, titles.items(), strict=True):
        _draw_pairs(axes, pairs[measure], places)
        axes.set_title(title, pad=10)
    panels[0].set_yticks(places, [f"{short(r.label)}  {marks.get(r.label, '')}" for r in shown], color=INK)
    panels[0].set_ylim(0.4, len(shown) + 0.6)
    note = f"points of accuracy at the end minus {short(comparison.against)}, user by user, with 95 % intervals"
    figure.text(0.235, 0.1 / height, note, size=9.5)
    return figure


def curves_figure(comparison: Compared) -> Figure:
    """Accuracy with the cloud and alone over rounds; mean over seeds."""
    titles = {
        "accuracy": "Accuracy of the mean user who may ask",
        "alone_accuracy": "Accuracy of the mean user alone (asking disabled)",
    }
    return _two_curves(comparison, titles)


def asking_figure(comparison: Compared) -> Figure:
    """Usage against tau, and the price of asking, over rounds; mean over seeds. Lines always at 0 are left out."""
    titles = {
        "training_usage": "How often devices ask while training, where they ever do",
        "dual_variable": "The price of asking (dual variable λ), where there is one",
    }
    return _two_curves(comparison, titles)


def users_figure(comparison: Compared) -> Figure:
    """A panel per method: the mean user's accuracy with its band from p10 to p90; dashed what it is paired with."""
    shown = comparison.results
    across = min(3, len(shown))
    down = math.ceil(len(shown) / across)
    height = 0.75 + 2.55 * down
    figure = new_figure(4.0 * across + 0.2, height)
    figure.subplots_adjust(left=0.24 / across, right=0.985, top=1 - 0.45 / height, bottom=0.5 / height)
    figure.subplots_adjust(wspace=0.09, hspace=0.48)
    panels = np.atleast_1d(figure.subplots(down, across, sharex=True, sharey=True)).ravel()
    marks, base = letters(comparison), mean_curve(comparison, comparison.against, "accuracy")
    for axes, result in zip(panels, shown, strict=False):
        curve = mean_curve(comparison, result.label, "accuracy")
        if curve.empty:
            say_missing(axes, "evaluation")
            continue
        draw_band(axes, curve, COLOURS["global"])
        if result.label != comparison.against:
            axes.plot(base.index, base["mean"], color=INK, linewidth=1.3, linestyle=(0, (4, 2)))
        _mark_switches(axes, comparison)
        axes.set_title(f"{marks[result.label]}  {short(result.label)}", pad=6, size=11)
        as_percent_axis(axes)
        as_rounds_axis(axes, result.method.config.rounds)
        axes.set_xlabel("round" if axes in panels[-across:] else "")
    for axes in panels[len(shown) :]:
        axes.set_visible(False)
    return figure


def mean_curve(comparison: Compared, label: str, measure: str) -> pd.DataFrame:
    """Mean over seeds of a method's curve: by round `mean`, `p10`, `p90` and `users`."""
    curves = comparison.curves
    own = curves[(curves["method"] == label) & (curves["measure"] == measure)]
    return own.groupby("round")[["mean", "p10", "p90", "users"]].mean()


def _draw_pairs(axes: Axes, pairs: Sequence[Pair | None], places: Sequence[int]) -> None:
    axes.axvline(0, color=QUIET, linewidth=1.2, linestyle=(0, (4, 3)))
    for pair, place in zip(pairs, places, strict=True):
        if pair is None:
            continue
        gap = pair.difference
        sure = gap.excludes_zero
        colour = COLOURS["global"] if sure and gap.mean > 0 else COLOURS["random"] if sure else QUIET
        axes.plot([100 * gap.low, 100 * gap.high], [place, place], color=colour, linewidth=2.2)
        axes.plot(100 * gap.mean, place, "o", color=colour, markerfacecolor=colour if sure else "white", markersize=7)
        text = f"{percent(pair.win_rate)} win, {len(pair.hurt)} of {pair.pairs} hurt"
        axes.text(1.0, place, text, transform=axes.get_yaxis_transform(), ha="right", va="center", size=9, color=INK)
    low, high = axes.get_xlim()
    axes.set_xlim(low, high + 0.75 * (high - low))  # room for the texts
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.tick_params(axis="y", length=0)


def _two_curves(comparison: Compared, titles: dict[str, str]) -> Figure:
    """A panel above another: measure -> title."""
    config = comparison.results[0].method.config
    phases, tau = TaskStream(config.stream, config.rounds).phases, config.budget.tau
    height = 8.2 + 0.4 * max(0, len(comparison.results) - 12)  # for a label at the end of every line
    figure = new_figure(11, height)
    figure.subplots_adjust(left=0.075, right=0.76, top=1 - 0.7 / height, bottom=0.53 / height, hspace=0.38)
    for axes, (measure, title) in zip(figure.subplots(2, 1), titles.items(), strict=True):
        _draw_curves(axes, comparison, measure, phases, tau)
        axes.set_title(title)
    return figure


def _draw_curves(axes: Axes, comparison: Compared, measure: str, phases: Sequence[Phase], tau: float) -> None:
    marks = letters(comparison)
    labels = []
    for result in comparison.results:
        curve = mean_curve(comparison, result.label, measure)
        if curve.empty or (measure in ("training_usage", "dual_variable") and not curve["mean"].any()):
            continue
        colour = hue(comparison, result)
        axes.plot(curve.index, curve["mean"], color=colour, linewidth=2.2, linestyle=dash(comparison, result))
        end = float(curve["mean"].iloc[-1])
        value = f"{end:.2f}" if measure == "dual_variable" else percent(end)
        labels.append(EndLabel(end, f"{marks[result.label]} {short(result.label)} {value}", colour))
    if not labels:
        say_missing(axes, measure.replace("_", " "))
        return
    if measure == "training_usage":
        axes.axhline(tau, color=INK, linewidth=1.6, linestyle=(0, (5, 3)))
        labels.append(EndLabel(tau, f"budget τ = {percent(tau)}", INK))
        axes.set_ylim(bottom=0)
    if measure == "dual_variable":
        axes.set_ylabel("λ (reward per request)")
    else:
        stretch(axes)
        as_percent_axis(axes)
        axes.set_ylabel("responses that ask" if measure == "training_usage" else "test prompts right")
    last = comparison.results[0].method.config.rounds
    as_rounds_axis(axes, last)
    mark_phases(axes, phases, last)
    label_ends(axes, labels)


def _mark_switches(axes: Axes, comparison: Compared) -> None:
    config = comparison.results[0].method.config
    for phase in TaskStream(config.stream, config.rounds).phases[1:]:
        axes.axvline(phase.first_round - 0.5, color="#999999", linewidth=1, linestyle=(0, (2, 2)), zorder=1)


# Accuracy against what it cost, for the spend while training and for the share of test prompts that the cloud
# answered: the methods that none beats for as little.

_KEYS = 4  # columns of the key


def pareto_figure(comparison: Compared) -> Figure:
    """Accuracy against what was spent: cloud calls while training, and the share of test prompts that the cloud got."""
    below = 0.75 + 0.24 * key_lines(comparison)
    height = 5.0 + below
    figure = new_figure(12, height)
    room = (below / height, 1 - (below + 0.45) / height)  # bottom and height of the panels
    left, right = figure.add_axes((0.065, room[0], 0.33, room[1])), figure.add_axes((0.47, room[0], 0.33, room[1]))
    has_money = any(_spent(result) > 0 for result in comparison.results)
    spent = {r.label: [_spent_of(run.facts, has_money) for run in r.runs] for r in comparison.results}
    _draw_front(left, comparison, spent)
    left.set_xlabel("money spent on the cloud in training" if has_money else "cloud calls in training")
    left.set_title("For what was spent in training", pad=10)
    used = {r.label: [float(run.users["cloud_grants"].mean()) for run in r.runs] for r in comparison.results}
    _draw_front(right, comparison, used, levels=True)
    right.xaxis.set_major_formatter(lambda value, _: percent(value))
    right.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    right.set_xlabel("test prompts that the cloud answered")
    right.set_title("For what it asks at test", pad=10)
    draw_key(figure, comparison)
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
    name_points(axes, [(mean_x, mean_y, marks[result.label]) for mean_x, mean_y, result in points])
    as_percent_axis(axes)
    axes.set_ylabel("accuracy of the mean user at the end")
    axes.grid(visible=True, axis="both")


def name_points(axes: Axes, points: Sequence[tuple[float, float, str]]) -> None:
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
        (label, means.get("accuracy", means.get("alone_accuracy"))) for label, means in comparison.references.items()
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


def key_lines(comparison: Compared) -> int:
    """Lines of the key under the panels."""
    return -(-len(comparison.results) // _KEYS)


def draw_key(figure: Figure, comparison: Compared) -> None:
    """Letter and name of every method under the panels, in columns."""
    height = float(figure.get_figheight())
    marks = letters(comparison)
    texts = [f"{marks[result.label]}  {short(result.label)}" for result in comparison.results]
    down = key_lines(comparison)
    for number, text in enumerate(texts):
        column, line = divmod(number, down)
        place = (0.065 + 0.23 * column, (0.1 + 0.24 * (down - 1 - line)) / height)
        figure.text(*place, text, size=10, va="baseline")


def _spent(result: Result) -> float:
    money = result.value("money")
    return 0.0 if math.isnan(money) else money


def _spent_of(facts: dict[str, float], in_money: bool) -> float:
    return facts["money"] + facts["stage_money"] if in_money else facts["calls"]
