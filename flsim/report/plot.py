"""What all figures share: style, direct labels, phase marks and saving; nothing here knows a measure."""

import io
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import MaxNLocator, PercentFormatter

from flsim.charts.colours import COLOURS as COLOURS
from flsim.charts.colours import GROUP_COLOURS as GROUP_COLOURS
from flsim.charts.colours import INK as INK
from flsim.charts.colours import QUIET as QUIET
from flsim.files import UnwritableError, write_atomically
from flsim.tasks.stream import Phase

_LOG = logging.getLogger("flsim.run.report")  # in the run's log

DPI = 120
_FONT = "DejaVu Sans"
_LABEL_SIZE = 10.0  # points
_SPAN = 0.06  # least length of an axis of accuracies
_EFFORT = 3  # of 9, in packing a picture: half the time of the usual 6, and files a fourteenth larger


@dataclass(frozen=True)
class EndLabel:
    """A text at the right edge of a panel, beside the end of its line."""

    y: float
    """Where the line ends, in data units."""
    text: str
    colour: str


def drawing_style() -> AbstractContextManager[None]:
    """The settings of all figures, in force only within its `with` block."""
    return matplotlib.rc_context(
        {
            "font.family": _FONT,
            "font.size": 11.0,
            "text.color": INK,
            "text.parse_math": False,  # a name may hold a dollar sign
            "axes.edgecolor": "#999999",
            "axes.labelcolor": INK,
            "axes.titlelocation": "left",
            "axes.titlesize": 12.0,
            "axes.titleweight": "bold",
            "axes.titlepad": 24.0,
            "axes.titley": 1.0,  # else it is sought by laying out all ticks once more: no axis here has any at its top
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
            "axes.grid": True,
            "axes.grid.axis": "y",
            "grid.color": "#E8E8E8",
            "xtick.color": "#555555",
            "ytick.color": "#555555",
            "legend.frameon": False,
            "lines.solid_capstyle": "round",
        }
    )


def new_figure(width: float, height: float) -> Figure:
    """A figure of `width` x `height` inches that draws itself without any global state of pyplot."""
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Save at `DPI` dots per inch, as the file's suffix says; the folder is made when missing."""
    buffer, kind = io.BytesIO(), path.suffix.lstrip(".") or "png"
    packed: dict[str, Any] = {"pil_kwargs": {"compress_level": _EFFORT}} if kind == "png" else {}
    with drawing_style():
        figure.savefig(buffer, format=kind, dpi=DPI, **packed)
    write_atomically(path, buffer.getvalue(), what="a picture", durable=False)


def save_if_drawn(draw: Callable[[], Figure], path: Path) -> bool:
    """Draw and save a figure; False with a warning if its drawing fails, in whichever library, as numbers matter more.

    Raises:
        UnwritableError: if the file cannot be written.
    """
    try:
        with drawing_style():
            save_figure(draw(), path)
    except UnwritableError:
        raise
    except Exception as error:
        _LOG.warning("%s is left out: it cannot be drawn (%s: %s)", path, type(error).__name__, error)
        path.unlink(missing_ok=True)  # of an earlier report, which would say something else
        return False
    return True


def drawable(text: str) -> str:
    """The text with a box for every character that the figures' font does not have, as in Chinese labels."""
    known = get_font(findfont(_FONT)).get_charmap()
    return "".join(letter if ord(letter) in known or letter.isspace() else "□" for letter in text)


def text_inches(text: str, size: float, weight: str = "normal") -> float:
    """How wide a line of text of so many points is drawn, and a little more."""
    font = get_font(findfont(FontProperties(family=_FONT, weight=weight)))
    font.set_size(size, DPI)
    font.set_text(text)
    return 1.02 * float(font.get_width_height()[0]) / 64 / DPI  # FreeType counts in 64ths of a pixel


def percent(value: float) -> str:
    """`0.614` as `61 %`."""
    return f"{100 * value:.0f} %"


def darker(colour: str) -> tuple[float, float, float]:
    """The colour for text, which needs more contrast than a line."""
    red, green, blue = to_rgb(colour)
    return (0.75 * red, 0.75 * green, 0.75 * blue)


def as_percent_axis(axes: Axes) -> None:
    """Write the y axis of shares in percent."""
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))


def as_rounds_axis(axes: Axes, last_round: int, *, first_round: int = 0) -> None:
    """Span the x axis over the rounds of the run, with whole numbers."""
    axes.set_xlim(first_round - 0.5, max(last_round, first_round + 1) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=True))
    axes.set_xlabel("round")


def say_missing(axes: Axes, what: str) -> None:
    """Say in an empty panel what was not measured, instead of showing empty axes."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, f"no {what} yet", transform=axes.transAxes, ha="center", va="center", color=QUIET)


def draw_band(axes: Axes, curve: pd.DataFrame, colour: str) -> None:
    """Draw a mean line with its band from the 10th to the 90th percentile of users.

    Args:
        axes: the panel.
        curve: by round, as `over_rounds` gives.
        colour: of line and band.
    """
    rounds = curve.index.to_numpy(dtype=float)
    marker = "o" if len(rounds) <= 30 else None
    low, high = curve["p10"].to_numpy(dtype=float), curve["p90"].to_numpy(dtype=float)
    axes.fill_between(rounds, low, high, color=colour, alpha=0.16, linewidth=0)
    axes.plot(rounds, curve["mean"].to_numpy(dtype=float), color=colour, linewidth=2.4, marker=marker, markersize=4)


def mark_phases(axes: Axes, phases: Sequence[Phase], last_round: int) -> None:
    """Shade every second phase, mark the switches and name the phases above the panel.

    Args:
        axes: the panel, over rounds, with its x limits set.
        phases: the run's phases; those after `last_round` are left out.
        last_round: last round drawn.
    """
    begun = [phase for phase in phases if phase.first_round <= last_round]
    inches = axes.get_position().width * float(axes.get_figure(root=True).get_figwidth())  # type: ignore[union-attr]
    left, right = axes.get_xlim()
    spans = [(max(phase.first_round - 0.5, left), min(phase.last_round + 0.5, right)) for phase in begun]
    room = [(end - start) / (right - left) * inches * 72 / (0.54 * 9) for start, end in spans]  # letters of 9 points
    choices = ([f"{phase.name}: {', '.join(phase.tasks)}" for phase in begun], [phase.name for phase in begun])
    fitting = [texts for texts in choices if all(len(text) <= space for text, space in zip(texts, room, strict=True))]
    for number, (start, end) in enumerate(spans):
        if number % 2:
            axes.axvspan(start, end, color="#000000", alpha=0.035, linewidth=0, zorder=0)
        if number:
            axes.axvline(start, color="#999999", linewidth=1, linestyle=(0, (2, 2)), zorder=1)
        text = fitting[0][number] if fitting else ""
        transform = axes.get_xaxis_transform()
        axes.text((start + end) / 2, 1.015, text, transform=transform, ha="center", va="bottom", size=9, color=QUIET)


def stretch(axes: Axes) -> None:
    """Give the axis of accuracies a least length, so that its ticks are whole percents."""
    low, high = axes.get_ylim()
    more = max(0.0, _SPAN - (high - low)) / 2
    axes.set_ylim(low - more, high + more)


def label_ends(axes: Axes, labels: Sequence[EndLabel], *, reach: float = 0.02) -> None:
    """Write every label beside the end of its line, at the panel's right edge, moved apart where they would touch.

    Args:
        axes: the panel, with its y limits and its place in the figure set.
        labels: in any order.
        reach: length of the leader between line and label, as a share of the panel's width.
    """
    height = axes.get_position().height * float(axes.get_figure(root=True).get_figheight())  # type: ignore[union-attr]
    bottom, top = axes.get_ylim()
    lines = max((label.text.count("\n") + 1 for label in labels), default=1)
    gap = 1.3 * lines * _LABEL_SIZE / (72 * height)  # share of the panel's height
    ordered = sorted(labels, key=lambda label: label.y)
    shares = [(label.y - bottom) / (top - bottom) for label in ordered]
    for label, share, place in zip(ordered, shares, spread(shares, gap), strict=True):
        leader, colour = [1.0, 1.0 + reach], darker(label.colour)
        axes.plot(leader, [share, place], transform=axes.transAxes, color=label.colour, linewidth=1, clip_on=False)
        start = 1.0 + 1.5 * reach
        axes.text(start, place, label.text, transform=axes.transAxes, va="center", size=_LABEL_SIZE, color=colour)


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Move sorted places apart until neighbours are `gap` apart, as little and as evenly as possible.

    They stay within the panel as long as there is room. By hand: 0.50 and 0.52 with gap 0.10 become 0.46 and 0.56, and
    0.98 and 1.00 become 0.90 and 1.00.

    Args:
        places: ascending, in shares of the panel's height.
        gap: least distance of neighbours.
    """
    merged: list[tuple[list[float], float]] = []  # members, and the place around which they stand
    for place in places:
        merged.append(([place], _middle([place], gap)))
        while len(merged) > 1:
            (lower, low), (upper, high) = merged[-2:]
            if high - low >= gap * (len(lower) + len(upper)) / 2 - 1e-12:
                break
            merged[-2:] = [(lower + upper, _middle(lower + upper, gap))]
    return [centre + gap * (rank - (len(found) - 1) / 2) for found, centre in merged for rank in range(len(found))]


def _middle(places: Sequence[float], gap: float) -> float:
    """Their mean, moved so that all of them stand between 0 and 1; a half where they are too many."""
    reach = min(gap * (len(places) - 1) / 2, 0.5)
    return min(max(float(np.mean(places)), reach), 1 - reach)
