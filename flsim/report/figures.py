"""The figures of a run, one function each: rows in, a figure out, and all of them into `plots/`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flsim.charts.breakdown import break_down
from flsim.charts.chart import Chart
from flsim.metrics.run_rows import RunRows
from flsim.report.panels import draw_curves, draw_matrix, draw_users, draw_worst_users
from flsim.report.plot import (
    COLOURS,
    DPI,
    QUIET,
    EndLabel,
    as_rounds_axis,
    label_ends,
    mark_phases,
    new_figure,
    save_if_drawn,
    say_missing,
)
from flsim.report.reliability_figure import Claimant, reliability_figure
from flsim.report.stream_figure import stream_figure
from flsim.report.summary import Reliability, Summary
from flsim.report.system_figures import system_figures
from flsim.report.time_figure import time_figure
from flsim.text import percent
from flsim.timing import RoundTiming

Charts = Mapping[str, Chart]
"""The charts of a run by name, of those that it has rows for."""
TESTED, TRAINED = "evaluation of the global adapter", "training rounds"
_NOTE = "Lines: the mean user. Bands: 10th to 90th percentile of users. Framed: what the phase taught."


def accuracy_figure(run: RunRows, charts: Charts) -> Figure:
    """Accuracy over rounds, above with the cloud and below alone; one panel of a run where there is no cloud."""
    whole, alone = charts.get("accuracy"), charts.get("alone_accuracy")
    if alone is None:
        figure = new_figure(10, 4.4)
        figure.subplots_adjust(left=0.09, right=0.79, top=0.84, bottom=0.13)
        axes = figure.subplots()
        draw_curves(axes, whole, run, missing=TESTED)
        axes.set_title("Accuracy")
        return figure
    figure = new_figure(10, 8)
    figure.subplots_adjust(left=0.09, right=0.79, top=0.9, bottom=0.07, hspace=0.42)
    above, below = figure.subplots(2, 1)
    draw_curves(above, whole, run, missing=TESTED)
    above.set_title("Accuracy when the device may ask the cloud")
    draw_curves(below, alone, run, missing=TESTED)
    below.set_title(alone.title)
    return figure


def usage_figure(run: RunRows, charts: Charts) -> Figure:
    """Training cloud usage against the budget, and the dual variable below."""
    figure = new_figure(10, 7.4)
    figure.subplots_adjust(left=0.09, right=0.82, top=0.9, bottom=0.08, hspace=0.42)
    above, below = figure.subplots(2, 1)
    draw_curves(above, charts.get("usage"), run, missing=TRAINED)
    above.set_title("How often devices ask the cloud while training")
    draw_curves(below, charts.get("lambda"), run, missing="dual variable")
    below.set_title("The price of asking that devices learn (dual variable λ)")
    return figure


def matrix_figure(run: RunRows) -> Figure:
    """The accuracy matrix with the cloud and alone, side by side."""
    figure = new_figure(12, 1.6 + 0.75 * (2 + len(run.phases)))
    figure.subplots_adjust(left=0.09, right=0.985, top=1 - 0.6 / figure.get_figheight(), bottom=0.09, wspace=0.24)
    left, right = figure.subplots(1, 2)
    draw_matrix(left, run)
    left.set_title("When the device may ask", pad=10)
    draw_matrix(right, run, name="alone_accuracy")
    right.set_title("The device alone", pad=10)
    return figure


def users_figure(charts: Charts) -> Figure:
    """All users at the end, sorted, and the worst-off ones by name."""
    figure = new_figure(12, 4.8)
    figure.subplots_adjust(left=0.08, right=0.985, top=0.85, bottom=0.13)
    left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": [1.15, 1], "wspace": 0.62})
    draw_users(left, charts.get("users"))
    left.set_title("All users at the end")
    draw_worst_users(right, charts.get("worst_users"))
    return figure


def claims_figure(found: Reliability) -> Figure:
    """The reliability curve of the run's asking rule."""
    sums = pd.DataFrame([vars(tenth) for tenth in found.tenths]).set_index("begins")
    return reliability_figure([Claimant(f"ECE {percent(found.error, digits=1)}", COLOURS["global"], sums)])


def cost_figure(run: RunRows, charts: Charts) -> Figure:
    """Bytes, cloud calls and seconds of the whole fleet per round."""
    figure = new_figure(13, 4)
    figure.subplots_adjust(left=0.055, right=0.94, top=0.84, bottom=0.14, wspace=0.48)
    for axes, name in zip(figure.subplots(1, 3), ("transfer", "requests", "seconds"), strict=True):
        _draw_sums(axes, charts.get(name), run)
    return figure


def _draw_sums(axes: Axes, chart: Chart | None, run: RunRows) -> None:
    """Draw the fleet's sum per round of every part of a chart."""
    if chart is None:
        say_missing(axes, TRAINED)
        return
    labels: list[EndLabel] = []
    for line in chart.lines:
        heights = [value or 0.0 for value in line.y]
        dashes = "dashed" if line.dashed else "solid"
        axes.plot(line.x, heights, color=line.colour, linewidth=2.2, linestyle=dashes)
        labels.append(EndLabel(heights[-1], line.name, line.colour))
    axes.set_ylim(0, 1.1 * max(value or 0.0 for line in chart.lines for value in line.y) or 1.0)
    as_rounds_axis(axes, run.last)
    mark_phases(axes, run.phases, run.last)
    label_ends(axes, labels)
    axes.set(title=chart.title, ylabel=chart.y_title)


def overview_figure(run: RunRows, charts: Charts, *, title: str, answer: str) -> Figure:
    """Accuracy, usage, users and matrix on one sheet of 1400 x 1000 pixels, with the answer on top."""
    figure = new_figure(1400 / DPI, 1000 / DPI)
    figure.text(0.018, 0.967, title, size=16, weight="bold", va="center")
    figure.text(0.018, 0.944, answer.replace("; ", ";\n"), size=11, va="top", linespacing=1.4)
    accuracy, usage = figure.add_axes((0.072, 0.525, 0.385, 0.29)), figure.add_axes((0.675, 0.525, 0.21, 0.29))
    users, matrix = figure.add_axes((0.072, 0.08, 0.385, 0.32)), figure.add_axes((0.675, 0.08, 0.308, 0.32))
    draw_curves(accuracy, both(charts), run, missing=TESTED)
    accuracy.set_title("Accuracy over rounds")
    draw_curves(usage, charts.get("usage"), run, missing=TRAINED)
    usage.set_title("Cloud usage while training")
    draw_users(users, charts.get("users"))
    users.set_title("Users at the end", pad=10)
    draw_matrix(matrix, run)
    matrix.set_title("Accuracy by task", pad=10)
    figure.text(0.983, 0.012, _NOTE, size=8.5, color=QUIET, ha="right", va="bottom")
    return figure


def both(charts: Charts) -> Chart | None:
    """Accuracy with the cloud and alone in one chart."""
    found = [charts[name] for name in ("accuracy", "alone_accuracy") if name in charts]
    return replace(found[0], lines=tuple(line for one in found for line in one.lines)) if found else None


def write_figures(
    plots_dir: Path,
    run: RunRows,
    charts: Sequence[Chart],
    *,
    summary: Summary,
    title: str,
    answer: str,
    stream: pd.DataFrame | None = None,
    timings: Sequence[RoundTiming] = (),
) -> list[Path]:
    """Draw all figures of a run.

    Args:
        plots_dir: where the PNGs go.
        run: its rows and phases.
        charts: of the run, as `flsim.charts.of_run.charts_of` gives; pictures take their numbers from these.
        summary: as `summarise_run` gives.
        title: heading of the overview, such as the run's name.
        answer: the overview's second line.
        stream: the realised stream, columns `round, device, task, prompts, mean_difficulty`; None draws none.
        timings: of the run's rounds; draws none if empty.

    Returns:
        The files written. A picture that cannot be drawn is left out with a warning: the numbers are elsewhere.

    Raises:
        UnwritableError: if a file cannot be written.
    """
    by_name = {chart.name: chart for chart in charts}
    figures = {
        "overview.png": lambda: overview_figure(run, by_name, title=title, answer=answer),
        "accuracy.png": lambda: accuracy_figure(run, by_name),
        "matrix.png": lambda: matrix_figure(run),
        "users.png": lambda: users_figure(by_name),
        "cost.png": lambda: cost_figure(run, by_name),
    }
    if summary.tau is not None:
        figures["usage.png"] = lambda: usage_figure(run, by_name)
    claims = summary.reliability
    if claims is not None:
        figures["reliability.png"] = lambda: claims_figure(claims)
    if stream is not None and len(stream):
        figures["stream.png"] = lambda: stream_figure(stream, run.phases)
    figures |= system_figures(run)
    if timings:
        figures["time.png"] = lambda: time_figure(timings, break_down(timings))
    return [plots_dir / name for name, draw in figures.items() if save_if_drawn(draw, plots_dir / name)]
