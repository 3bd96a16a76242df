"""The panels that figures are made of: rows in, one set of axes drawn, all at user level."""

from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from flsim.metrics.continual import accuracy_matrix
from flsim.metrics.rows import ASKED, WEIGHED, evaluation, latest, training
from flsim.metrics.users import over_rounds, per_user
from flsim.report.plot import (
    COLOURS,
    INK,
    EndLabel,
    as_percent_axis,
    as_rounds_axis,
    darker,
    draw_band,
    label_ends,
    mark_phases,
    percent,
    say_missing,
)
from flsim.report.summarise import evaluated_ends, ordered_tasks, own_accuracy_name
from flsim.report.summary import WorstUser
from flsim.tasks.stream import Phase


def draw_accuracy(axes: Axes, rows: pd.DataFrame, phases: Sequence[Phase], *, alone: bool | None = None) -> None:
    """Accuracy of the mean user over rounds, with the references as level lines.

    Args:
        axes: the panel.
        rows: all rows of the run.
        phases: the run's phases.
        alone: True draws accuracy with asking disabled, False accuracy with the cloud, None both in one panel.
    """
    lines: list[tuple[str, str, str, str]] = []  # model, name, colour, label
    levels: list[tuple[str, str, str, str]] = []
    asks = not evaluation(rows, model="global", name="alone_accuracy").empty
    if alone is not True:
        lines.append(("global", "accuracy", "global", "may ask" if asks else "global"))
        levels += [("random", "accuracy", "random", "asks at random"), ("cloud", "accuracy", "cloud", "cloud LLM")]
    if alone is not False:
        lines.append(("global", "alone_accuracy", "alone", "alone"))
        levels.append(("frozen", own_accuracy_name(rows, "frozen"), "frozen", "frozen, alone"))
        levels.append(("base", "alone_accuracy", "base", "bare base, alone"))
    curves = [(colour, text, over_rounds(evaluation(rows, model=model, name=n))) for model, n, colour, text in lines]
    curves = [(colour, text, curve) for colour, text, curve in curves if len(curve)]
    if not curves:
        say_missing(axes, "evaluation of the global adapter")
        return
    labels = []
    for colour, text, curve in curves:
        draw_band(axes, curve, COLOURS[colour])
        end = float(curve["mean"].iloc[-1])
        labels.append(EndLabel(end, f"{text} {percent(end)}", COLOURS[colour]))
    for model, name, colour, text in levels:
        values = per_user(latest(evaluation(rows, model=model, name=name)))
        if len(values):
            level = float(values.mean())
            axes.axhline(level, color=COLOURS[colour], linewidth=1.6, linestyle=(0, (5, 3)), zorder=1.5)
            labels.append(EndLabel(level, f"{text} {percent(level)}", COLOURS[colour]))
    as_percent_axis(axes)
    axes.set_ylabel("test prompts right")
    last_round = int(rows["round"].max())
    as_rounds_axis(axes, last_round)
    mark_phases(axes, phases, last_round)
    label_ends(axes, labels)


def draw_usage(axes: Axes, rows: pd.DataFrame, phases: Sequence[Phase], *, tau: float | None) -> None:
    """Share of training responses that asked the cloud, over rounds, against the budget `tau` (None: no budget).

    Where the budget has a unit, each counts by it.
    """
    weighed = training(rows, name=WEIGHED)
    curve = over_rounds(training(rows, name=ASKED) if weighed.empty else weighed)
    if curve.empty:
        say_missing(axes, "training rounds")
        return
    draw_band(axes, curve, COLOURS["global"])
    end = float(curve["mean"].iloc[-1])
    labels = [EndLabel(end, f"asked {percent(end)}", COLOURS["global"])]
    if tau is not None:
        axes.axhline(tau, color=INK, linewidth=1.6, linestyle=(0, (5, 3)))
        labels.append(EndLabel(tau, f"budget τ = {percent(tau)}", INK))
    axes.set_ylim(0, 1.08 * max(float(curve["p90"].max()), tau or 0.0, 0.01))
    as_percent_axis(axes)
    axes.set_ylabel("responses that ask" if weighed.empty else "responses that ask, by cost")
    last_round = int(rows["round"].max())
    as_rounds_axis(axes, last_round)
    mark_phases(axes, phases, last_round)
    label_ends(axes, labels)


def draw_dual(axes: Axes, rows: pd.DataFrame, phases: Sequence[Phase]) -> None:
    """The price of asking that devices learn, `lambda`, over rounds."""
    curve = over_rounds(training(rows, name="dual_variable"))
    if curve.empty:
        say_missing(axes, "dual variable")
        return
    draw_band(axes, curve, COLOURS["dual"])
    end = float(curve["mean"].iloc[-1])
    axes.set_ylabel("λ (reward per request)")
    last_round = int(rows["round"].max())
    as_rounds_axis(axes, last_round)
    mark_phases(axes, phases, last_round)
    label_ends(axes, [EndLabel(end, f"λ = {end:.2f}", COLOURS["dual"])])


def draw_matrix(axes: Axes, rows: pd.DataFrame, phases: Sequence[Phase], *, name: str = "accuracy") -> None:
    """The accuracy matrix of the global adapter: stages down, tasks across, the taught ones framed."""
    measured = evaluation(rows, model="global", name=name)
    if measured.empty:
        say_missing(axes, "evaluation of the global adapter")
        return
    tasks = ordered_tasks(phases, sorted(measured["task"].unique()))
    ends = evaluated_ends(rows, phases, name)
    start = int(measured["round"].min())
    stages = [start] * (start == 0 or not ends) + [stage for _, stage in ends]
    values = accuracy_matrix(measured, stages, tasks=tasks).to_numpy(dtype=float)  # (S, J)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    low, high = (low, high) if high - low >= 0.2 else ((low + high) / 2 - 0.1, (low + high) / 2 + 0.1)
    blues = matplotlib.colormaps["Blues"]
    axes.grid(visible=False)
    shades = blues(np.clip((values - low) / (high - low), 0, 1) * 0.72 + 0.08)  # (S, J, 4)
    shades[~np.isfinite(values)] = 1.0
    axes.imshow(shades, aspect="auto")
    size = 11.0 if len(stages) <= 8 and len(tasks) <= 8 else 8.0
    for (i, j), value in np.ndenumerate(values):
        colour = "white" if shades[i, j, :3] @ (0.3, 0.59, 0.11) < 0.6 else INK
        text = percent(value) if np.isfinite(value) else "-"
        axes.text(j, i, text, ha="center", va="center", color=colour, size=size)
    _frame_taught(axes, tasks, [set(phase.tasks) for phase, _ in ends], first=len(stages) - len(ends))
    axes.set_xticks(range(len(tasks)), tasks, rotation=0 if len(tasks) <= 6 else 30, color=INK)
    between = "\n" if len(stages) <= 8 else ", "
    named = ["start"] * (len(stages) - len(ends))
    named += [f"after {phase.name}{between}round {stage}" for phase, stage in ends]
    axes.set_yticks(range(len(stages)), named, color=INK, size=10 if len(stages) <= 8 else 8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _frame_taught(axes: Axes, tasks: Sequence[str], taught: Sequence[set[str]], *, first: int) -> None:
    """Frame the cells of the tasks that each phase taught; `first` is the line of the first phase's end."""
    for line, framed in enumerate(taught, start=first):
        for column, task in enumerate(tasks):
            if task in framed:
                corner = (column - 0.45, line - 0.42)
                axes.add_patch(Rectangle(corner, 0.9, 0.84, fill=False, edgecolor="#E69F00", linewidth=2))


def draw_users(axes: Axes, rows: pd.DataFrame) -> None:
    """Every user's accuracy at the end, sorted within each model from the worst-off user to the best."""
    shown = (("global", "may ask"), ("random", "asks at random"), ("frozen", "frozen, alone"))
    labels, worst = [], None
    for model, text in shown:
        name = own_accuracy_name(rows, model) if model == "frozen" else "accuracy"
        values = per_user(latest(evaluation(rows, model=model, name=name))).sort_values(kind="stable")
        if values.empty:
            continue
        heights = values.to_numpy(dtype=float)  # (U,)
        shares = (np.arange(heights.size) + 0.5) / heights.size  # (U,)
        style = {"linewidth": 1.4, "marker": "o", "markersize": 6} if heights.size <= 60 else {"linewidth": 2.4}
        axes.plot(shares, heights, color=COLOURS[model], zorder=3 if model == "global" else 2, **style)
        labels.append(EndLabel(float(heights[-1]), f"{text}\nmean {percent(heights.mean())}", COLOURS[model]))
        worst = (str(values.index[0]), float(shares[0]), float(heights[0])) if model == "global" else worst
    if not labels:
        say_missing(axes, "evaluation")
        return
    as_percent_axis(axes)
    axes.set_ylabel("the user's test prompts right")
    axes.set_xlim(0, 1)
    axes.set_xticks([0.1, 0.5, 0.9], ["10 %", "50 %", "90 %"])
    axes.set_xlabel("users, from the worst-off to the best of each model")
    low, high = axes.get_ylim()
    axes.set_ylim(low - 0.14 * (high - low), high)
    if worst is not None:
        _name_worst(axes, *worst)
    label_ends(axes, labels)


def _name_worst(axes: Axes, device: str, place: float, value: float) -> None:
    """Ring the worst-off user of the global adapter and name it at the panel's foot."""
    dark = darker(COLOURS["global"])
    axes.plot(
        [place],
        [value],
        marker="o",
        markersize=12,
        markeredgewidth=1.6,
        markeredgecolor=dark,
        fillstyle="none",
        clip_on=False,
    )
    text = f"ringed, worst-off when it may ask: {device}, {percent(value)}"
    axes.text(0.02, 0.03, text, transform=axes.transAxes, size=9.5, color=dark, va="bottom")


def draw_worst_users(axes: Axes, users: Sequence[WorstUser]) -> None:
    """The worst-off users, one line each: with the global adapter, asking at random, and frozen.

    Args:
        axes: the panel.
        users: `worst_users` of the run's summary, worst first.
    """
    if not users:
        say_missing(axes, "users")
        return
    models = (("frozen", "frozen"), ("random", "random"), ("accuracy", "global"))
    for line, user in enumerate(users):
        values = {model: getattr(user, key) for key, model in models if getattr(user, key) is not None}
        axes.plot([min(values.values()), max(values.values())], [line, line], color="#D0D0D0", linewidth=3, zorder=1)
        for model, value in values.items():
            axes.scatter([value], [line], s=60, color=COLOURS[model], zorder=3 if model == "global" else 2)
    axes.set_yticks(range(len(users)), [user.device for user in users], color=INK)
    axes.set_ylim(len(users) - 0.5, -0.5)
    axes.xaxis.set_major_formatter(lambda value, _: percent(value))
    axes.set_xlabel("the user's test prompts right")
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.tick_params(axis="y", length=0)
    axes.set_title("Worst-off users at the end", color=INK)
    named = (("global", "● may ask"), ("random", "● asks at random"), ("frozen", "● frozen, alone"))
    for number, (model, text) in enumerate(named):
        axes.text(0.34 * number, 1.02, text, transform=axes.transAxes, color=darker(COLOURS[model]), size=9.5)
