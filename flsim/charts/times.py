"""Charts of where the time of a run goes: every round as a column of its parts, and the parts of the mean round."""

from collections.abc import Sequence

from flsim.charts.breakdown import PART_COLOURS, Breakdown, Column, break_down, columns_of, drawn_parts
from flsim.charts.chart import Chart, Line
from flsim.charts.colours import COLOURS
from flsim.text import percent, seconds
from flsim.timing import RoundTiming


def time_charts(timings: Sequence[RoundTiming]) -> list[Chart]:
    """Wall-clock seconds of every round, and of the mean round; none without timings."""
    if not timings:
        return []
    found = break_down(timings)
    return [_rounds(timings, found), _mean(found)]


def _rounds(timings: Sequence[RoundTiming], found: Breakdown) -> Chart:
    """A stacked column per round; start and warm-up, which may be far longer than the others, are told below."""
    names = drawn_parts(found)
    columns = [one for one in columns_of(timings, found, names) if one.first in found.rounds]
    places = tuple(map(float, range(len(columns))))
    lines = tuple(Line(name, places, tuple(one.parts[name] for one in columns), PART_COLOURS[name]) for name in names)
    size = max(one.last - one.first + 1 for one in columns)
    title = "Each round" if size == 1 else f"Rounds, the mean of {size} in each column"
    return Chart(
        *("time", "time", title, "round", "wall-clock seconds", lines),
        unit="s", categories=tuple(map(_named, columns)), bars=True, stacked=True, from_zero=True, note=_apart(found),
    )  # fmt: skip


def _named(column: Column) -> str:
    return str(column.first) if column.first == column.last else f"{column.first} to {column.last}"


def _apart(found: Breakdown) -> str:
    """How long the rounds took that are not shown and not in the mean."""
    named = ((found.start, "before training"), (found.warm_up, "warm-up"))
    texts = [f"round {one.round}, {what}: {seconds(one.wall_s)}" for one, what in named if one is not None]
    return f"Not shown and not in the mean: {'; '.join(texts)}." if texts else ""


def _mean(found: Breakdown) -> Chart:
    """A bar per part of the mean round, from the largest; parts that take no time are left out."""
    parts = sorted((one for one in found.parts if one.wall_s > 0), key=lambda one: -one.wall_s)
    names = tuple(f"{one.name} {percent(one.share, digits=0)}" for one in parts)
    places = tuple(map(float, range(len(parts))))
    line = Line("wall-clock seconds", places, tuple(one.wall_s for one in parts), COLOURS["global"])
    title = f"Mean round: {seconds(found.wall_s)}, of {len(found.rounds)} round{'s' * (len(found.rounds) > 1)}"
    return Chart(
        *("mean_round", "time", title, "", "wall-clock seconds", (line,)),
        unit="s", categories=names, bars=True, sideways=True, from_zero=True,
    )  # fmt: skip
