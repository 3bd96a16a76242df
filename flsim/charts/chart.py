"""A chart as data: what is drawn, in which colours and units. A browser draws it as matplotlib does, adding nothing."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from flsim.tasks.stream import Phase


@dataclass(frozen=True)
class Line:
    """One line, or one colour of bars; `x` and `y` have a number per point."""

    name: str
    """What it is, such as `may ask`."""
    x: tuple[float, ...]
    """Rounds, shares or whatever the axis says; of a chart with categories the place of each, from 0."""
    y: tuple[float | None, ...]
    """None where nothing was measured."""
    colour: str
    """Such as `#0072B2`."""
    label: str = ""
    """The name with the number to read off, such as `may ask 61 %`; empty: the name alone."""
    low: tuple[float | None, ...] = ()
    """Lower edge of the band about it, a number per point; empty: no band."""
    high: tuple[float | None, ...] = ()
    """Upper edge; as many as `low`."""
    dashed: bool = False
    """A level or a reference, which nothing learned."""
    users: tuple[str, ...] = ()
    """Whose value each point is, where a point is a user; empty elsewhere."""
    sizes: tuple[float, ...] = ()
    """How much of all each point stands for, from 0 to 1, where points are drawn as large as they hold much."""
    steps: bool = False
    """Drawn as steps: each value holds around its point."""


@dataclass(frozen=True)
class Mark:
    """A phase: a stretch of the x axis with a name."""

    begins: float
    ends: float
    name: str
    tasks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chart:
    """One set of axes."""

    name: str
    """What it is called in a page and in JSON, such as `alone_accuracy`; there is one of a name."""
    group: str
    """The figure that it is part of, such as `accuracy`: `plots/GROUP.png` is the same as a picture."""
    title: str
    x_title: str
    y_title: str
    lines: tuple[Line, ...]
    percent: bool = False
    """y is a share, and written in percent."""
    percent_x: bool = False
    unit: str = ""
    """What y is in, where that is no share, such as `MB`."""
    marks: tuple[Mark, ...] = ()
    """Phases; only over rounds."""
    categories: tuple[str, ...] = ()
    """Names along the x axis, where that is no number."""
    bars: bool = False
    """Bars beside one another, a colour for each line."""
    stacked: bool = False
    """Bars upon one another."""
    sideways: bool = False
    """Bars from left to right: categories stand at the left, and y goes across."""
    from_zero: bool = False
    """y begins at 0."""
    top: float | None = None
    """Where y ends; None: where the data do."""
    note: str = ""
    """What one should know beside the caption of the figure."""


def phase_marks(phases: Sequence[Phase], last_round: int) -> tuple[Mark, ...]:
    """The phases that have begun, from half a round before their first to half a round after their last.

    Args:
        phases: of the run's stream.
        last_round: that is drawn; a phase that goes on ends there.
    """
    begun = [phase for phase in phases if phase.first_round <= last_round]
    return tuple(
        Mark(phase.first_round - 0.5, min(phase.last_round, last_round) + 0.5, phase.name, tuple(phase.tasks))
        for phase in begun
    )


def numbers(values: Iterable[float]) -> tuple[float | None, ...]:
    """Values as JSON can hold them: None for what is no number."""
    return tuple(float(value) if math.isfinite(value) else None for value in values)


def as_plain(charts: Iterable[Chart]) -> list[dict[str, Any]]:
    """Charts as lists and dicts, fields by their names, for whoever writes the JSON."""
    return [asdict(chart) for chart in charts]


def as_json(charts: Iterable[Chart]) -> str:
    """Charts as JSON, as `flsimCharts.show` takes it; equal charts give equal texts."""
    return json.dumps(as_plain(charts), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
