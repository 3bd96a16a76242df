"""The figures of a comparison by user and over rounds.

`paired.png` differences by user, `curves.png` accuracy over rounds, `asking.png` usage and its price, `users.png` the
band of users of each method.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flsim.comparison.lettering import hue, letters, short
from flsim.comparison.pairing import Pair
from flsim.comparison.result import Compared
from flsim.report.drawing import (
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

_DASHES = ("solid", (0, (6, 2)), (0, (2, 2)))


def paired_figure(comparison: Compared) -> Figure:
    """A line per method: its differences to the one it is paired with, with the cloud and alone, and who was hurt."""
    shown = [r for r in (*comparison.results, *comparison.bounds) if r.label != comparison.against]
    height = 1.55 + 0.38 * max(len(shown), 1)
    figure = new_figure(11, height)
    figure.subplots_adjust(left=0.235, right=0.985, top=1 - 0.75 / height, bottom=0.6 / height, wspace=0.06)
    panels = figure.subplots(1, 2, sharey=True)
    marks = letters(comparison)
    places = list(range(len(shown), 0, -1))
    for axes, measure, title in zip(
        panels, ("accuracy", "local_accuracy"), ("may ask the cloud", "alone (asking disabled)"), strict=True
    ):
        pairs = [comparison.pair(result.label, measure) for result in shown]
        _draw_pairs(axes, pairs, places)
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
        "local_accuracy": "Accuracy of the mean user alone (asking disabled)",
    }
    return _two_curves(comparison, titles)


def asking_figure(comparison: Compared) -> Figure:
    """Usage against tau, and the price of asking, over rounds; mean over seeds. Lines always at 0 are left out."""
    titles = {
        "cloud_usage": "How often devices ask while training, where they ever do",
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
    for number, result in enumerate(comparison.results):
        curve = mean_curve(comparison, result.label, measure)
        if curve.empty or (measure in ("cloud_usage", "dual_variable") and not curve["mean"].any()):
            continue
        colour, dash = hue(comparison, result), _DASHES[number % len(_DASHES)]  # lines may coincide
        axes.plot(curve.index, curve["mean"], color=colour, linewidth=2.2, linestyle=dash)
        end = float(curve["mean"].iloc[-1])
        value = f"{end:.2f}" if measure == "dual_variable" else percent(end)
        labels.append(EndLabel(end, f"{marks[result.label]} {short(result.label)} {value}", colour))
    if not labels:
        say_missing(axes, measure.replace("_", " "))
        return
    if measure == "cloud_usage":
        axes.axhline(tau, color=INK, linewidth=1.6, linestyle=(0, (5, 3)))
        labels.append(EndLabel(tau, f"budget τ = {percent(tau)}", INK))
        axes.set_ylim(bottom=0)
    if measure == "dual_variable":
        axes.set_ylabel("λ (reward per request)")
    else:
        stretch(axes)
        as_percent_axis(axes)
        axes.set_ylabel("responses that ask" if measure == "cloud_usage" else "test prompts right")
    last = comparison.results[0].method.config.rounds
    as_rounds_axis(axes, last)
    mark_phases(axes, phases, last)
    label_ends(axes, labels)


def _mark_switches(axes: Axes, comparison: Compared) -> None:
    config = comparison.results[0].method.config
    for phase in TaskStream(config.stream, config.rounds).phases[1:]:
        axes.axvline(phase.first_round - 0.5, color="#999999", linewidth=1, linestyle=(0, (2, 2)), zorder=1)
