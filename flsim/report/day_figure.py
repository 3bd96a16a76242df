"""Day and night as a picture: over the hours of a virtual day, who was at work and who was there when invited."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from flsim.charts.systems import DAY, STEPS, by_hour, said_of_days, there_by_hour
from flsim.metrics.systems import stints_of, virtual_seconds
from flsim.report.plot import COLOURS, QUIET, as_percent_axis, new_figure, say_missing


def day_figure(rows: pd.DataFrame) -> Figure:
    """Draw it; of a run in which somebody was waited for."""
    spans, end = stints_of(rows), float(virtual_seconds(rows).iloc[-1])
    figure = new_figure(10, 5.6)
    figure.subplots_adjust(left=0.09, right=0.97, top=0.92, bottom=0.1, hspace=0.5)
    above, below = figure.subplots(2, 1, sharex=True)
    _draw_busy(above, by_hour(spans, end), end)
    _draw_there(below, spans)
    below.set_xlabel("hour of the virtual day")
    return figure


def _draw_busy(axes: Axes, busy: NDArray[np.float64], end: float) -> None:
    places = (np.arange(len(busy)) + 0.5) / STEPS  # (96,)
    axes.fill_between(places, busy, step="mid", color=COLOURS["global"], alpha=0.25, linewidth=0)
    axes.plot(places, busy, drawstyle="steps-mid", color=COLOURS["global"], linewidth=1.8)
    axes.set(xlim=(0, DAY), ylabel="devices")
    axes.set_ylim(bottom=0)
    axes.set_xticks(range(0, DAY + 1, 3))
    axes.set_title(f"Devices at work ({said_of_days(end)})", pad=10)


def _draw_there(axes: Axes, spans: pd.DataFrame) -> None:
    """By the hour of invitation, the share that was there at once, and as text how many were invited."""
    there = there_by_hour(spans)
    if there.empty:
        say_missing(axes, "invitations")
        return
    places = there.index.to_numpy(dtype=float) + 0.5  # (hours,)
    axes.bar(places, 1.0, 0.9, color="#EFEFEF")
    axes.bar(places, there["mean"], 0.9, color=COLOURS["cloud"])
    for place, count in zip(places, there["size"], strict=True):
        axes.text(place, 1.02, f"{count}", ha="center", va="bottom", size=8, color=QUIET)
    axes.set_ylim(0, 1.12)
    as_percent_axis(axes)
    axes.set_ylabel("there at once")
    axes.set_title("Available: of those invited in an hour (numbers above), who was there", pad=10)
