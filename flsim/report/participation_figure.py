"""Who took part as a picture: the Lorenz curve of work over devices, and each class's part of fleet and work."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flsim.charts.systems import FLASH, shares_of_classes
from flsim.metrics.fairness import gini
from flsim.metrics.run_rows import RunRows
from flsim.metrics.systems import BUSIEST, lorenz, share_of_busiest, work_of
from flsim.report.plot import COLOURS, INK, QUIET, as_percent_axis, darker, new_figure, percent


def participation_figure(run: RunRows) -> Figure:
    """Draw it; of a run in which some device's update counted."""
    work = work_of(run.rows)
    figure = new_figure(11, 4.7)
    figure.subplots_adjust(left=0.075, right=0.97, top=0.87, bottom=0.13, wspace=0.22)
    left, right = figure.subplots(1, 2)
    _draw_lorenz(left, work)
    _draw_classes(right, shares_of_classes(run))
    return figure


def _draw_lorenz(axes: Axes, work: pd.Series) -> None:
    devices, done = lorenz(work)
    colour = COLOURS["global"]
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=1.2, linestyle=(0, (4, 3)))
    axes.fill_between(devices, devices, done, color=colour, alpha=0.12, linewidth=0)
    axes.plot(devices, done, color=colour, linewidth=2.4)
    busiest = share_of_busiest(work)
    axes.plot(BUSIEST, busiest, "o", color=colour, markersize=8, markeredgecolor="white", clip_on=False, zorder=4)
    axes.plot(
        *FLASH, "D", color=COLOURS["random"], markerfacecolor="white", markersize=8, markeredgewidth=1.8, zorder=4
    )
    own = f"● here: the busiest {percent(BUSIEST)} did {percent(busiest)}"
    flash = f"◇ FLASH (TMC 2022): {percent(FLASH[0])} did {percent(FLASH[1])}"
    for text, line, hue in ((own, 0.13, colour), (flash, 0.06, COLOURS["random"])):
        axes.text(0.98, line, text, size=9.5, color=darker(hue), ha="right", va="center")
    axes.text(0.7, 0.66, "all alike", size=9, color=QUIET, rotation=37, va="top", rotation_mode="anchor")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="share of the work")
    axes.set_xlabel(f"share of the {len(work)} devices, the busiest first")
    as_percent_axis(axes)
    axes.xaxis.set_major_formatter(lambda value, _: percent(value))
    axes.set_title(f"Work that counted (Gini {gini(work):.2f})", pad=10)
    axes.grid(visible=True, axis="both")


def _draw_classes(axes: Axes, shares: pd.DataFrame) -> None:
    """Of each class, its share of the fleet and of the work."""
    fleet, done, took = (shares[name] for name in ("fleet", "work", "took"))
    for place, name in enumerate(fleet.index):
        for shift, share, colour in ((-0.2, fleet[name], "#B0B0B0"), (0.2, done[name], COLOURS["global"])):
            axes.bar(place + shift, share, 0.38, color=colour)
            axes.text(place + shift, share, percent(float(share)), ha="center", va="bottom", size=9.5)
    labels = [f"{name}\n{percent(float(took[name]))} took part" for name in fleet.index]
    axes.set_xticks(np.arange(len(fleet)), labels, color=INK)
    axes.tick_params(axis="x", length=0)
    axes.set_ylim(0, 1.15 * max(float(fleet.max()), float(done.max())))
    as_percent_axis(axes)
    axes.set_title("Classes of devices", pad=22)
    for start, text, colour in ((0.0, "■ share of the fleet", QUIET), (0.36, "■ share of the work", COLOURS["global"])):
        axes.text(start, 1.03, text, transform=axes.transAxes, size=9.5, color=darker(colour))
