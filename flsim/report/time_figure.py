"""Where the time went as a picture: a stacked column per round, and the mean round beside them as key and total.

Parts are told apart by place, label and hatching as well as by colour, so the picture also reads in grey.
"""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flsim.charts.breakdown import PART_COLOURS, Breakdown, columns_of, drawn_parts
from flsim.report.plot import INK, QUIET, EndLabel, as_rounds_axis, label_ends, new_figure, percent
from flsim.text import seconds
from flsim.timing import RoundTiming

_HATCHES = {"cloud": "////", "evaluate": "\\\\\\\\", "transport": "----", "aggregate": "xxxx", "other": "...."}
LOOKS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {name: (colour, _HATCHES.get(name, "")) for name, colour in PART_COLOURS.items()}
)
"""Colour and hatching of every part."""


_TALL = 1.5  # start and warm-up are cut off where they are this much longer than the longest round measured


def time_figure(timings: Sequence[RoundTiming], found: Breakdown) -> Figure:
    """Draw where the time went.

    Args:
        timings: of one run, by round.
        found: what `break_down` makes of them.
    """
    names = drawn_parts(found)
    figure = new_figure(10, 5)
    left, right = figure.add_axes((0.08, 0.12, 0.55, 0.74)), figure.add_axes((0.695, 0.12, 0.07, 0.74))
    _draw_rounds(left, timings, found, names)
    _draw_mean(right, found, names)
    return figure


def _draw_rounds(axes: Axes, timings: Sequence[RoundTiming], found: Breakdown, names: Sequence[str]) -> None:
    """A stacked column per round or per block of rounds."""
    columns = columns_of(timings, found, names)
    centres = [(column.first + column.last) / 2 for column in columns]
    widths = [0.84 * (column.last - column.first + 1) for column in columns]
    _stack(axes, centres, widths, {name: [column.parts[name] for column in columns] for name in columns[0].parts})
    longest = max(column.height for column in columns if column.first in found.rounds)
    tallest = max(column.height for column in columns)
    top = 1.06 * (longest if tallest > _TALL * longest else tallest) or 1.0
    axes.set_ylim(0, top)
    axes.set_ylabel("wall-clock seconds")
    as_rounds_axis(axes, columns[-1].last, first_round=columns[0].first)
    size = max(column.last - column.first + 1 for column in columns)
    axes.set_title("Each round" if size == 1 else f"Rounds, the mean of {size} in each column")
    note = _set_apart(found, top if size == 1 else math.inf)
    axes.text(0, 1.015, note, transform=axes.transAxes, size=9, color=QUIET, va="bottom")


def _set_apart(found: Breakdown, top: float) -> str:
    """Which rounds are not in the mean, and which of them are higher than the panel's `top`."""
    named = ((found.start, "before training"), (found.warm_up, "warm-up"))
    texts = [
        f"round {timing.round}, {what}: {seconds(timing.wall_s)}{' (cut off)' if timing.wall_s > top else ''}"
        for timing, what in named
        if timing is not None
    ]
    return "; ".join([*texts, "not in the mean"]) if texts else ""


def _draw_mean(axes: Axes, found: Breakdown, names: Sequence[str]) -> None:
    """The mean round as one column, labelled at its side."""
    parts = dict.fromkeys(names, 0.0)
    shares = dict.fromkeys(names, 0.0)
    for part in found.parts:
        name = part.name if part.name in parts else "other"
        parts[name] += part.wall_s
        shares[name] += part.share
    axes.set_xlim(-0.5, 0.5)
    axes.set_ylim(0, found.wall_s or 1.0)
    tops = {name: ends[0] for name, ends in _stack(axes, [0.0], [1.0], {n: [s] for n, s in parts.items()}).items()}
    lumped = any(part.worker_s > 0 and part.name not in parts for part in found.parts)
    texts = {name: "the rest" if name == "other" and lumped else name for name in names}
    labels = [
        EndLabel(tops[name] - parts[name] / 2, f"{texts[name]}  {percent(shares[name])}  {seconds(parts[name])}", INK)
        for name in names
        if parts[name] > 0
    ]
    label_ends(axes, labels, reach=0.2)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_title(f"Mean round: {seconds(found.wall_s)}")
    axes.set_xlabel(f"{len(found.rounds)} round{'s' * (len(found.rounds) > 1)}")


def _stack(
    axes: Axes, centres: Sequence[float], widths: Sequence[float], parts: Mapping[str, Sequence[float]]
) -> dict[str, list[float]]:
    """Draw the parts of every column upon one another; returns where each ends in each column."""
    tops, bottom = {}, [0.0] * len(centres)
    for name, heights in parts.items():
        colour, hatch = LOOKS[name]
        axes.bar(
            centres, heights, widths, bottom=bottom, color=colour, hatch=hatch, edgecolor="white", linewidth=0.5,
            zorder=2,
        )  # fmt: skip
        bottom = [below + height for below, height in zip(bottom, heights, strict=True)]
        tops[name] = bottom
    return tops
