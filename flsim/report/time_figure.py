"""Where the time went as a picture: a stacked column per round, and the mean round beside them as key and total.

Parts are told apart by place, label and hatching as well as by colour, so the picture also reads in grey.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flsim.report.plot import COLOURS, INK, QUIET, EndLabel, as_rounds_axis, label_ends, new_figure, percent
from flsim.text import seconds
from flsim.timing import PARTS, RoundTiming

# What the mean round of a run spends its time on, from the timing files; start and warm-up are set apart.

MEANING: Mapping[str, str] = MappingProxyType(
    {
        "rollout": "sampling completions",
        "cloud": "the cloud's answers",
        "reward": "verdicts on completions",
        "train": "forward, backward, optimizer",
        "evaluate": "tests on the devices",
        "store": "device states, read and written",
        "transport": "messages to and from devices",
        "aggregate": "the server's strategy",
        "commit": "rows and checkpoint",
        "idle": "workers that wait",
        "other": "what no other part claims",
    }
)
"""Every part in a few words."""


@dataclass(frozen=True)
class PartTime:
    """One part in the mean round."""

    name: str
    worker_s: float
    """Worker-seconds."""
    wall_s: float
    """Its piece of the round's wall-clock seconds: each round's worker-seconds over its workers."""
    share: float
    """Of all worker-seconds, from 0 to 1."""


@dataclass(frozen=True)
class Breakdown:
    """The mean round and what it is the mean of."""

    rounds: tuple[int, ...]
    """Rounds measured, ascending."""
    start: RoundTiming | None
    """Round 0, the measurement before training, which is set apart; None if there is none or nothing else."""
    warm_up: RoundTiming | None
    """The first round of training, which also warms caches up and is set apart; None if nothing else is left."""
    workers: tuple[int, ...]
    """Numbers of workers that occur, ascending; more than one if a run was resumed with another."""
    evaluated: int
    """How many of the rounds measured hold an evaluation."""
    wall_s: float
    """Wall-clock seconds of the mean round."""
    parts: tuple[PartTime, ...]
    """All of `PARTS` in their order, also those at zero; a part not known here comes last."""


def break_down(timings: Sequence[RoundTiming]) -> Breakdown:
    """Average the rounds of a run, without its start and its warm-up where anything else is left.

    By hand: two rounds of 1 s and 3 s by two workers, whose training took 1 and 3 worker-seconds and who waited for
    the rest, have a mean round of 2 s with 2 worker-seconds of training: half of all, and 1 s of wall-clock time.

    Args:
        timings: of one run, by round; at least one.
    """
    training = [timing for timing in timings if timing.round > 0]
    start = next((timing for timing in timings if timing.round == 0), None) if training else None
    warm_up = training[0] if len(training) > 1 else None
    measured = training[warm_up is not None :] or list(timings)
    names = [*PARTS, *sorted({name for timing in measured for name in timing.parts} - set(PARTS))]
    count = len(measured)
    worker_s = {name: sum(timing.parts.get(name, 0.0) for timing in measured) / count for name in names}
    wall_s = {name: sum(wall_parts(timing).get(name, 0.0) for timing in measured) / count for name in names}
    whole = sum(worker_s.values())
    return Breakdown(
        rounds=tuple(timing.round for timing in measured),
        start=start,
        warm_up=warm_up,
        workers=tuple(sorted({timing.workers for timing in measured})),
        evaluated=sum(timing.parts.get("evaluate", 0.0) > 0 for timing in measured),
        wall_s=sum(timing.wall_s for timing in measured) / count,
        parts=tuple(PartTime(n, worker_s[n], wall_s[n], worker_s[n] / whole if whole > 0 else 0.0) for n in names),
    )


def wall_parts(timing: RoundTiming) -> dict[str, float]:
    """Every part of a round as its piece of the wall-clock seconds; the pieces add up to the round."""
    return {name: seconds / timing.workers for name, seconds in timing.parts.items()}


LOOKS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "rollout": (COLOURS["global"], ""),
        "cloud": (COLOURS["cloud"], "////"),
        "reward": ("#F0E442", ""),
        "train": ("#E69F00", ""),
        "evaluate": (COLOURS["own"], "\\\\\\\\"),
        "store": (COLOURS["alone"], ""),
        "transport": (COLOURS["dual"], "----"),
        "aggregate": (COLOURS["random"], "xxxx"),
        "commit": ("#7A4B1E", ""),
        "idle": ("#E2E2E2", ""),
        "other": (COLOURS["frozen"], "...."),
    }
)
"""Colour and hatching of every part."""


SMALL = 0.01
"""A part below this share of the mean round is drawn as `other`."""


_MOST_COLUMNS = 60


_TALL = 1.5  # start and warm-up are cut off where they are this much longer than the longest round measured


@dataclass(frozen=True)
class Column:
    """One or several neighbouring rounds of the picture."""

    first: int
    last: int
    parts: dict[str, float]
    """Mean wall-clock seconds per part."""

    @property
    def height(self) -> float:
        """Seconds of the mean round in it."""
        return sum(self.parts.values())


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


def drawn_parts(found: Breakdown) -> list[str]:
    """The parts that have a colour of their own: of at least 1 %, in the order of `PARTS`, and `other` at last."""
    large = [part.name for part in found.parts if part.share >= SMALL and part.name in LOOKS and part.name != "other"]
    return [*large, "other"]


def columns_of(timings: Sequence[RoundTiming], found: Breakdown, names: Sequence[str]) -> list[Column]:
    """The columns from left to right: at most 60 of measured rounds, and before them start and warm-up.

    Where a column holds several rounds, start and warm-up would be too thin to see and are left out.

    Args:
        timings: of one run, by round.
        found: what `break_down` makes of them.
        names: parts to keep apart; the others become `other`.
    """
    apart = [[timing] for timing in timings if timing.round not in found.rounds]
    measured = [timing for timing in timings if timing.round in found.rounds]
    size = math.ceil(len(measured) / _MOST_COLUMNS)
    blocks = [measured[start : start + size] for start in range(0, len(measured), size)]
    blocks = [*apart, *blocks] if size == 1 else blocks
    return [Column(block[0].round, block[-1].round, _mean_parts(block, names)) for block in blocks]


def _mean_parts(block: Sequence[RoundTiming], names: Sequence[str]) -> dict[str, float]:
    means = dict.fromkeys(names, 0.0)
    for timing in block:
        for name, passed in wall_parts(timing).items():
            means[name if name in means else "other"] += passed / len(block)
    return means


def _draw_rounds(axes: Axes, timings: Sequence[RoundTiming], found: Breakdown, names: Sequence[str]) -> None:
    """A stacked column per round or per block of rounds."""
    columns = columns_of(timings, found, names)
    for column in columns:
        rounds = column.last - column.first + 1
        _stack(axes, (column.first + column.last) / 2, 0.84 * rounds, column.parts)
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
    tops = _stack(axes, 0.0, 1.0, parts)
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


def _stack(axes: Axes, centre: float, width: float, parts: Mapping[str, float]) -> dict[str, float]:
    """Draw parts upon one another; returns where each ends."""
    tops, bottom = {}, 0.0
    for name, height in parts.items():
        colour, hatch = LOOKS[name]
        axes.bar(
            centre, height, width, bottom=bottom, color=colour, hatch=hatch, edgecolor="white", linewidth=0.5, zorder=2
        )
        bottom += height
        tops[name] = bottom
    return tops
