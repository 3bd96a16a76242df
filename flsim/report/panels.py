"""The panels that figures are made of: rows in, one set of axes drawn, all at user level."""

from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from flsim.charts.chart import Chart, Line
from flsim.metrics.continual import accuracy_matrix
from flsim.metrics.run_rows import RunRows
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
from flsim.report.summarise import evaluated_ends, ordered_tasks


def draw_curves(axes: Axes, chart: Chart | None, run: RunRows, *, missing: str) -> None:
    """A chart over rounds: lines with their bands, levels dashed across the panel, and phases.

    Args:
        axes: the panel.
        chart: as `flsim.charts.curves` makes it; None writes that there is none.
        run: whose rounds and phases the panel spans.
        missing: what there is none of then.
    """
    if chart is None:
        say_missing(axes, missing)
        return
    labels = []
    for line in sorted(chart.lines, key=lambda one: one.dashed):
        end = float(line.y[-1] or 0.0)
        if line.dashed:
            axes.axhline(end, color=line.colour, linewidth=1.6, linestyle=(0, (5, 3)), zorder=1.5)
        else:
            draw_band(axes, _frame(line), line.colour)
        labels.append(EndLabel(end, line.label, line.colour))
    if chart.from_zero:
        highs = [value or 0.0 for line in chart.lines for value in line.high or line.y]
        axes.set_ylim(0, 1.08 * max(*highs, 0.01))
    if chart.percent:
        as_percent_axis(axes)
    axes.set_ylabel(chart.y_title)
    as_rounds_axis(axes, run.last)
    mark_phases(axes, run.phases, run.last)
    label_ends(axes, labels)


def _frame(line: Line) -> pd.DataFrame:
    """A line as `draw_band` takes it."""
    return pd.DataFrame({"mean": line.y, "p10": line.low, "p90": line.high}, index=list(line.x), dtype=float)


def draw_matrix(axes: Axes, run: RunRows, *, name: str = "accuracy") -> None:
    """The accuracy matrix of the global adapter: stages down, tasks across, the taught ones framed."""
    measured, phases = run.measured(name), run.phases
    if measured.empty:
        say_missing(axes, "evaluation of the global adapter")
        return
    tasks = ordered_tasks(phases, sorted(measured["task"].unique()))
    ends = evaluated_ends(run, phases, name)
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


def draw_users(axes: Axes, chart: Chart | None) -> None:
    """Every user's accuracy at the end, sorted within each model from the worst-off user to the best."""
    if chart is None:
        say_missing(axes, "evaluation")
        return
    labels, worst = [], None
    for line in chart.lines:
        heights = np.array(line.y, dtype=float)  # (U,)
        style = {"linewidth": 1.4, "marker": "o", "markersize": 6} if heights.size <= 60 else {"linewidth": 2.4}
        main = line.colour == COLOURS["global"]
        axes.plot(line.x, heights, color=line.colour, zorder=3 if main else 2, **style)
        labels.append(EndLabel(float(heights[-1]), f"{line.name}\nmean {percent(heights.mean())}", line.colour))
        worst = (line.users[0], line.x[0], float(heights[0])) if main else worst
    as_percent_axis(axes)
    axes.set_ylabel(chart.y_title)
    axes.set_xlim(0, 1)
    axes.set_xticks([0.1, 0.5, 0.9], ["10 %", "50 %", "90 %"])
    axes.set_xlabel(chart.x_title)
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


def draw_worst_users(axes: Axes, chart: Chart | None) -> None:
    """The worst-off users, a line each: with the global adapter, asking at random, and frozen.

    Args:
        axes: the panel.
        chart: as `flsim.charts.users` makes it, worst first; None writes that there are none.
    """
    if chart is None:
        say_missing(axes, "users")
        return
    values = pd.DataFrame({line.colour: line.y for line in chart.lines}, dtype=float)  # a line per user
    for place, (_, own) in enumerate(values.iterrows()):
        axes.plot([own.min(), own.max()], [place, place], color="#D0D0D0", linewidth=3, zorder=1)
    for line in reversed(chart.lines):
        main = line.colour == COLOURS["global"]
        axes.scatter(values[line.colour], line.x, s=60, color=line.colour, zorder=3 if main else 2)
    axes.set_yticks(range(len(values)), chart.categories, color=INK)
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.xaxis.set_major_formatter(lambda value, _: percent(value))
    axes.set_xlabel(chart.y_title)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.tick_params(axis="y", length=0)
    axes.set_title(chart.title, color=INK)
    for number, line in enumerate(chart.lines):
        text, colour = f"● {line.name}", darker(line.colour)
        axes.text(0.34 * number, 1.02, text, transform=axes.transAxes, color=colour, size=9.5)
