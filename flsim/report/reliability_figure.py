"""Whether claims come true, drawn: how often the device alone is wrong against what the asking rule claims of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flsim.report.plot import INK, QUIET, new_figure, percent

_LARGEST = 450.0  # area of the dot of all prompts, in square points


@dataclass(frozen=True)
class Claimant:
    """One line of the figure."""

    text: str
    colour: str
    sums: pd.DataFrame
    """By tenth of the claim, as `flsim.metrics.calibration.by_tenths`."""
    dash: Any = "solid"
    """Of matplotlib; lines may coincide."""


def reliability_figure(claimants: Sequence[Claimant]) -> Figure:
    """Above, how often a claim comes true, with the diagonal where all would lie; below, how often it is made.

    Args:
        claimants: at least one; each with at least one claim.
    """
    beside = 4.4 if len(claimants) > 1 else 0.5  # inches at the right
    width = 0.9 + 5.3 + beside
    figure = new_figure(width, 7.4)
    figure.subplots_adjust(left=0.9 / width, right=1 - beside / width, top=0.94, bottom=0.08, hspace=0.16)
    above, below = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 1]})
    above.plot([0, 1], [0, 1], color=INK, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1)
    for one in claimants:
        _draw_curve(above, one)
        _draw_share(below, one)
    above.set_title("How often a claim comes true", pad=10)
    above.set(xlim=(0, 1), ylim=(0, 1), ylabel="prompts that are wrong alone")
    below.set(xlabel="claimed chance of being wrong alone", ylabel="prompts", ylim=(0, None))
    for axes in (above, below):
        axes.yaxis.set_major_formatter(lambda value, _: percent(value))
        axes.grid(visible=True, axis="both")
    below.xaxis.set_major_formatter(lambda value, _: percent(value))
    if len(claimants) > 1:
        above.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0.0, fontsize=10)
    else:
        above.text(0.02, 0.95, claimants[0].text, transform=above.transAxes, color=QUIET, size=10)
    return figure


def _draw_curve(axes: Axes, one: Claimant) -> None:
    """A dot per tenth that holds any, as large as it holds many."""
    held = one.sums[one.sums["prompts"] > 0]
    prompts = held["prompts"].to_numpy(dtype=float)  # (B,)
    claimed, wrong = (held[name].to_numpy(dtype=float) / prompts for name in ("claimed", "wrong"))  # (B,) each
    axes.plot(claimed, wrong, color=one.colour, linewidth=1.8, linestyle=one.dash, label=one.text, zorder=2)
    sizes = np.maximum(_LARGEST * prompts / prompts.sum(), 4.0)  # (B,)
    axes.scatter(claimed, wrong, s=sizes, color=one.colour, edgecolor="white", linewidth=0.6, zorder=3, clip_on=False)


def _draw_share(axes: Axes, one: Claimant) -> None:
    """The share of all prompts in each tenth."""
    shares = (one.sums["prompts"] / one.sums["prompts"].sum()).to_numpy(dtype=float)  # (10,)
    axes.stairs(shares, np.linspace(0, 1, len(shares) + 1), color=one.colour, linewidth=1.8, linestyle=one.dash)
