"""The figures of a run, one function each: rows in, a figure out, and all of them into `plots/`."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flsim.metrics.rows import evaluation, training
from flsim.metrics.run_rows import RunRows
from flsim.report.panels import draw_accuracy, draw_dual, draw_matrix, draw_usage, draw_users, draw_worst_users
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
from flsim.report.summary import Reliability, Summary, WorstUser
from flsim.report.system_figures import system_figures
from flsim.report.time_figure import break_down, time_figure
from flsim.tasks.stream import Phase
from flsim.text import percent, unit_for
from flsim.timing import RoundTiming

_NOTE = "Lines: the mean user. Bands: 10th to 90th percentile of users. Framed: what the phase taught."


def accuracy_figure(rows: pd.DataFrame, phases: Sequence[Phase]) -> Figure:
    """Accuracy over rounds, above with the cloud and below alone; one panel of a run where there is no cloud."""
    if evaluation(rows, model="global", name="alone_accuracy").empty:
        figure = new_figure(10, 4.4)
        figure.subplots_adjust(left=0.09, right=0.79, top=0.84, bottom=0.13)
        axes = figure.subplots()
        draw_accuracy(axes, rows, phases, alone=False)
        axes.set_title("Accuracy")
        return figure
    figure = new_figure(10, 8)
    figure.subplots_adjust(left=0.09, right=0.79, top=0.9, bottom=0.07, hspace=0.42)
    above, below = figure.subplots(2, 1)
    draw_accuracy(above, rows, phases, alone=False)
    above.set_title("Accuracy when the device may ask the cloud")
    draw_accuracy(below, rows, phases, alone=True)
    below.set_title("Accuracy of the device alone (asking disabled)")
    return figure


def usage_figure(rows: pd.DataFrame, phases: Sequence[Phase], *, tau: float | None) -> Figure:
    """Training cloud usage against the budget, and the dual variable below."""
    figure = new_figure(10, 7.4)
    figure.subplots_adjust(left=0.09, right=0.82, top=0.9, bottom=0.08, hspace=0.42)
    above, below = figure.subplots(2, 1)
    draw_usage(above, rows, phases, tau=tau)
    above.set_title("How often devices ask the cloud while training")
    draw_dual(below, rows, phases)
    below.set_title("The price of asking that devices learn (dual variable λ)")
    return figure


def matrix_figure(rows: pd.DataFrame, phases: Sequence[Phase]) -> Figure:
    """The accuracy matrix with the cloud and alone, side by side."""
    figure = new_figure(12, 1.6 + 0.75 * (2 + len(phases)))
    figure.subplots_adjust(left=0.09, right=0.985, top=1 - 0.6 / figure.get_figheight(), bottom=0.09, wspace=0.24)
    left, right = figure.subplots(1, 2)
    draw_matrix(left, rows, phases, name="accuracy")
    left.set_title("When the device may ask", pad=10)
    draw_matrix(right, rows, phases, name="alone_accuracy")
    right.set_title("The device alone", pad=10)
    return figure


def users_figure(rows: pd.DataFrame, worst_users: Sequence[WorstUser]) -> Figure:
    """All users at the end, sorted, and the worst-off ones by name."""
    figure = new_figure(12, 4.8)
    figure.subplots_adjust(left=0.08, right=0.985, top=0.85, bottom=0.13)
    left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": [1.15, 1], "wspace": 0.62})
    draw_users(left, rows)
    left.set_title("All users at the end")
    draw_worst_users(right, worst_users)
    return figure


def claims_figure(found: Reliability) -> Figure:
    """The reliability curve of the run's asking rule."""
    sums = pd.DataFrame([vars(tenth) for tenth in found.tenths]).set_index("begins")
    return reliability_figure([Claimant(f"ECE {percent(found.error, digits=1)}", COLOURS["global"], sums)])


def cost_figure(rows: pd.DataFrame, phases: Sequence[Phase]) -> Figure:
    """Bytes, cloud calls and seconds of the whole fleet per round."""
    figure = new_figure(13, 4)
    figure.subplots_adjust(left=0.055, right=0.94, top=0.84, bottom=0.14, wspace=0.48)
    panels = figure.subplots(1, 3)
    size, unit = _byte_unit(training(rows, name="downlink_bytes"), training(rows, name="uplink_bytes"))
    transfer = {"uplink_bytes": ("up", "global"), "downlink_bytes": ("down", "cloud")}
    calls = {"cloud_calls": ("granted", "global"), "cloud_refused": ("refused", "random")}
    _draw_sums(panels[0], rows, phases, names=transfer, unit=size)
    panels[0].set(title="Adapters sent", ylabel=f"{unit} per round, all devices")
    _draw_sums(panels[1], rows, phases, names=calls, unit=1.0)
    panels[1].set(title="Cloud requests while training", ylabel="requests per round, all devices")
    _draw_sums(panels[2], rows, phases, names={"seconds": ("work", "dual")}, unit=1.0)
    panels[2].set(title="Time", ylabel="device-seconds per round")
    return figure


def _byte_unit(*found: pd.DataFrame) -> tuple[float, str]:
    """The unit in which the largest round's bytes read well, as (bytes, name)."""
    largest = max((float(rows.groupby("round")["total"].sum().max()) for rows in found if len(rows)), default=0.0)
    return unit_for("bytes", largest)


def _draw_sums(
    axes: Axes, rows: pd.DataFrame, phases: Sequence[Phase], *, names: dict[str, tuple[str, str]], unit: float
) -> None:
    """Draw the fleet's sum per round of every name: name -> (label, key of the colour)."""
    labels: list[EndLabel] = []
    top = 0.0
    for name, (text, colour) in names.items():
        sums = training(rows, name=name).groupby("round")["total"].sum() / unit
        if len(sums):
            heights = sums.to_numpy(dtype=float)
            top = max(top, float(heights.max()))
            dashes = "dashed" if labels else "solid"  # two lines may lie on one another
            rounds = sums.index.to_numpy(dtype=float)
            axes.plot(rounds, heights, color=COLOURS[colour], linewidth=2.2, linestyle=dashes)
            labels.append(EndLabel(float(heights[-1]), text, COLOURS[colour]))
    if not labels:
        say_missing(axes, "training rounds")
        return
    axes.set_ylim(0, 1.1 * top or 1.0)
    last_round = int(rows["round"].max())
    as_rounds_axis(axes, last_round)
    mark_phases(axes, phases, last_round)
    label_ends(axes, labels)


def overview_figure(
    rows: pd.DataFrame, phases: Sequence[Phase], *, tau: float | None, title: str, answer: str
) -> Figure:
    """Accuracy, usage, users and matrix on one sheet of 1400 x 1000 pixels, with the answer on top."""
    figure = new_figure(1400 / DPI, 1000 / DPI)
    figure.text(0.018, 0.967, title, size=16, weight="bold", va="center")
    figure.text(0.018, 0.944, answer.replace("; ", ";\n"), size=11, va="top", linespacing=1.4)
    accuracy, usage = figure.add_axes((0.072, 0.525, 0.385, 0.29)), figure.add_axes((0.675, 0.525, 0.21, 0.29))
    users, matrix = figure.add_axes((0.072, 0.08, 0.385, 0.32)), figure.add_axes((0.675, 0.08, 0.308, 0.32))
    draw_accuracy(accuracy, rows, phases)
    accuracy.set_title("Accuracy over rounds")
    draw_usage(usage, rows, phases, tau=tau)
    usage.set_title("Cloud usage while training")
    draw_users(users, rows)
    users.set_title("Users at the end", pad=10)
    draw_matrix(matrix, rows, phases)
    matrix.set_title("Accuracy by task", pad=10)
    figure.text(0.983, 0.012, _NOTE, size=8.5, color=QUIET, ha="right", va="bottom")
    return figure


def write_figures(
    plots_dir: Path,
    rows: pd.DataFrame,
    phases: Sequence[Phase],
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
        rows: all rows of the run.
        phases: the run's phases.
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
    tau = summary.tau
    figures = {
        "overview.png": lambda: overview_figure(rows, phases, tau=tau, title=title, answer=answer),
        "accuracy.png": lambda: accuracy_figure(rows, phases),
        "matrix.png": lambda: matrix_figure(rows, phases),
        "users.png": lambda: users_figure(rows, summary.worst_users),
        "cost.png": lambda: cost_figure(rows, phases),
    }
    if tau is not None:
        figures["usage.png"] = lambda: usage_figure(rows, phases, tau=tau)
    claims = summary.reliability
    if claims is not None:
        figures["reliability.png"] = lambda: claims_figure(claims)
    if stream is not None and len(stream):
        figures["stream.png"] = lambda: stream_figure(stream, phases)
    figures |= system_figures(RunRows(rows, phases, tau=float("nan")))
    if timings:
        figures["time.png"] = lambda: time_figure(timings, break_down(timings))
    return [plots_dir / name for name, draw in figures.items() if save_if_drawn(draw, plots_dir / name)]
