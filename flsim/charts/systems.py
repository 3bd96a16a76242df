"""Charts of devices as systems: joules, participation, the virtual day and deadlines; and the numbers behind them."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from flsim.charts.chart import Chart, Line, numbers
from flsim.charts.colours import COLOURS, GROUP_COLOURS, QUIET
from flsim.metrics.fairness import gini
from flsim.metrics.rows import training
from flsim.metrics.run_rows import RunRows
from flsim.metrics.systems import (
    BUSIEST,
    deadlines,
    has_system,
    lorenz,
    of_classes,
    share_of_busiest,
    stints_of,
    virtual_seconds,
    work_of,
)
from flsim.text import percent, seconds, unit_for

JOULES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "compute_joules": ("#E69F00", "computing"),
        "waiting_joules": ("#C8C8C8", "waiting for the cloud"),
        "radio_joules": (COLOURS["global"], "radio"),
        "cloud_joules": (COLOURS["cloud"], "in the cloud"),
    }
)
"""Rows of the parts, in their order in a bar: colour and what they are. The cloud's come from no battery."""
FLASH = (0.3, 0.86)
"""Yang et al. (TMC 2022): on their traces the busiest 30 % of devices did 86 % of the work."""
HOUR, DAY = 3600.0, 24
STEPS = 4
"""Parts of an hour of the virtual day."""
LEAST_OF_A_DAY = 6 * HOUR
"""Virtual seconds of a run from which on the hours of its day are drawn."""


def system_charts(run: RunRows) -> list[Chart]:
    """Those that the run has rows for; of a run without a system none."""
    if not has_system(run.rows):
        return []
    return [*_energy(run), *_participation(run), *(_day(run.rows) if has_day(run.rows) else []), *_deadlines(run)]


def has_energy(run: RunRows) -> bool:
    """Whether rows say what devices of classes take."""
    return bool(len(run.classes) and len(training(run.rows, name="joules")))


def has_work(run: RunRows) -> bool:
    """Whether some device of a class did something that counted."""
    return bool(len(run.classes) and work_of(run.rows).sum() > 0)


def has_day(rows: pd.DataFrame) -> bool:
    """Whether somebody was waited for, in a run that is long enough for hours of the day to say something."""
    away = bool((training(rows, name="waited_seconds")["total"] > 0).any())
    return away and bool(virtual_seconds(rows).iloc[-1] >= LEAST_OF_A_DAY)


def joules_by_class(run: RunRows) -> pd.DataFrame:
    """Joules of a device in a round in which it took part: a line per class, a column per part, means over rounds.

    A device counts as often as it took part, so that the parts of a class add up to what it took.
    """
    counts = training(run.rows, name="joules").groupby("device")["weight"].sum()
    sums = {name: training(run.rows, name=name).groupby("device")["total"].sum() for name in JOULES}
    classes = run.classes.reindex(counts.index)
    by_class = {
        name: own.reindex(counts.index).fillna(0.0).groupby(classes, observed=True).sum() for name, own in sums.items()
    }
    return pd.DataFrame(by_class).div(counts.groupby(classes, observed=True).sum(), axis=0)


def _energy(run: RunRows) -> list[Chart]:
    """A device's round by what joules went into, and a test question, by class."""
    if not has_energy(run):
        return []
    names = run.classes.cat.categories
    rounds = joules_by_class(run).reindex(names, fill_value=0.0)
    size, unit = unit_for("joules", float(rounds.sum(axis=1).max()))
    parts = {JOULES[part][1]: (JOULES[part][0], rounds[part] / size) for part in JOULES if rounds[part].any()}
    found = [_by_class("joules", "A device's round", unit, names, parts)]
    questions = of_classes(run.value_at_end("question_joules"), run.classes)
    if len(questions):
        size, unit = unit_for("joules", float(questions.max()))
        asked = {"a test question": (COLOURS["dual"], questions.reindex(names) / size)}
        found.append(_by_class("question_joules", "A test question, from the battery", unit, names, asked))
    return found


def _by_class(name: str, title: str, unit: str, names: pd.Index, parts: dict[str, tuple[str, pd.Series]]) -> Chart:
    places = tuple(map(float, range(len(names))))
    lines = tuple(Line(text, places, numbers(own), colour) for text, (colour, own) in parts.items())
    return Chart(
        *(name, "joules", title, "", unit, lines), unit=unit, categories=tuple(map(str, names)), bars=True,
        stacked=True, sideways=True, from_zero=True,
    )  # fmt: skip


def shares_of_classes(run: RunRows) -> pd.DataFrame:
    """Of each class its share of the `fleet` and of the `work` that counted, and how many of it took part, `took`."""
    work = work_of(run.rows)
    work = work[work.index.isin(run.classes.index)]
    classes = run.classes.reindex(work.index)
    fleet = classes.value_counts(normalize=True).sort_index()
    done = work.groupby(classes, observed=True).sum().reindex(fleet.index) / work.sum()
    took = (work > 0).groupby(classes, observed=True).mean().reindex(fleet.index)
    return pd.DataFrame({"fleet": fleet, "work": done, "took": took})


def _participation(run: RunRows) -> list[Chart]:
    """The Lorenz curve of work over devices, and each class's part of fleet and work."""
    if not has_work(run):
        return []
    work = work_of(run.rows)
    devices, done = lorenz(work)
    curve = Line("work", tuple(devices.tolist()), numbers(done), COLOURS["global"])
    alike = Line("all alike", (0.0, 1.0), (0.0, 1.0), QUIET, dashed=True)
    dots = (
        _dot("here", BUSIEST, share_of_busiest(work), COLOURS["global"]),
        _dot("FLASH (TMC 2022)", *FLASH, COLOURS["random"]),
    )
    below = f"share of the {len(work)} devices, the busiest first"
    shares = shares_of_classes(run)
    places = tuple(map(float, range(len(shares))))
    lines = (
        Line("share of the fleet", places, numbers(shares["fleet"]), COLOURS["base"]),
        Line("share of the work", places, numbers(shares["work"]), COLOURS["global"]),
        Line("took part", places, numbers(shares["took"]), COLOURS["cloud"]),
    )
    return [
        Chart(
            *("participation", "participation", f"Work that counted (Gini {gini(work):.2f})", below),
            "share of the work", (curve, alike, *dots), percent=True, percent_x=True, from_zero=True, top=1.0,
        ),
        Chart(
            *("classes", "participation", "Classes of devices", "", "share of the class or of all", lines),
            percent=True, categories=tuple(map(str, shares.index)), bars=True, from_zero=True,
        ),
    ]  # fmt: skip


def _dot(name: str, busiest: float, did: float, colour: str) -> Line:
    label = f"{name}: {percent(busiest, digits=0)} did {percent(did, digits=0)}"
    return Line(name, (busiest,), numbers([did]), colour, label, sizes=(0.15,))


def by_hour(spans: pd.DataFrame, end: float) -> NDArray[np.float64]:
    """Devices at work at each time of day: the mean over the days of the run; nan where no day had that time.

    Args:
        spans: as `stints_of` gives.
        end: virtual seconds of the run.

    Returns:
        `(96,)`, a number for each quarter of an hour, counted at its middle.
    """
    times = (np.arange(int(np.ceil(end / HOUR * STEPS))) + 0.5) * HOUR / STEPS  # (T,)
    times = times[times < end]
    begun, done = np.sort(spans["begun"]), np.sort(spans["done"])
    busy = np.searchsorted(begun, times, side="right") - np.searchsorted(done, times, side="right")  # (T,)
    found = np.full(DAY * STEPS, np.nan)  # (96,)
    place = (times / HOUR * STEPS).astype(int) % len(found)  # (T,)
    sums, counts = (np.bincount(place, weights, len(found)) for weights in (busy.astype(float), None))
    np.divide(sums, counts, out=found, where=counts > 0)
    return found


def there_by_hour(spans: pd.DataFrame) -> pd.DataFrame:
    """By the hour of invitation: `mean`, the share that was there at once, and `size`, how many were invited."""
    hour = (spans["invited"] / HOUR % DAY).astype(int)
    return (spans["begun"] <= spans["invited"]).groupby(hour).agg(["mean", "size"])


def said_of_days(end: float) -> str:
    """Of how much the hours of the day are the mean."""
    days = end / HOUR / DAY
    return f"mean over {days:.1f} days" if days >= 1 else f"{end / HOUR:.1f} hours of one day"


def _day(rows: pd.DataFrame) -> list[Chart]:
    spans, end = stints_of(rows), float(virtual_seconds(rows).iloc[-1])
    places = (np.arange(DAY * STEPS) + 0.5) / STEPS  # (96,)
    busy = Line("at work", tuple(places.tolist()), numbers(by_hour(spans, end)), COLOURS["global"], steps=True)
    there = there_by_hour(spans)
    hours = tuple(f"{hour} h, {count} invited" for hour, count in there["size"].items())
    line = Line("there at once", tuple(map(float, range(len(hours)))), numbers(there["mean"]), COLOURS["cloud"])
    below, title = "hour of the virtual day", f"Devices at work ({said_of_days(end)})"
    return [
        Chart("day", "day", title, below, "devices", (busy,), from_zero=True),
        Chart(
            *("available", "day", "Of those invited in an hour, who was there", below, "there at once", (line,)),
            percent=True, categories=hours, bars=True, from_zero=True, top=1.0,
        ),
    ]  # fmt: skip


def right_in_time(run: RunRows, before: str) -> dict[str, list[float]]:
    """Over the deadlines, the share of test questions in time: the mean user of each class, and of `all`.

    Args:
        run: its rows.
        before: `right_` for those that are also right, empty for all that are answered.
    """
    users = [run.value_at_end(f"{before}{name}") for name in deadlines(run.rows).values()]
    classes = run.classes
    lines = {
        str(name): [float(of_classes(own, classes).get(name, np.nan)) for own in users]
        for name in classes.cat.categories
    }
    return {**lines, "all": [float(own.mean()) for own in users]}


def named_deadlines(run: RunRows) -> tuple[str, ...]:
    """The deadlines as an axis names them."""
    return tuple(seconds(limit) if limit != int(limit) else f"{limit:.0f} s" for limit in deadlines(run.rows))


def class_colour(number: int, name: str) -> str:
    """Of a class, or of `all`."""
    return COLOURS["frozen"] if name == "all" else GROUP_COLOURS[number % len(GROUP_COLOURS)]


def _deadlines(run: RunRows) -> list[Chart]:
    """All that is answered in time, and what is also right."""
    limits = named_deadlines(run)
    if not limits:
        return []
    places = tuple(map(float, range(len(limits))))
    whenever = {**of_classes(run.accuracy, run.classes), "all": float(run.accuracy.mean())}
    found = []
    for name, before, title in (("in_time", "", "Answered in time"), ("deadlines", "right_", "Right and in time")):
        ends = whenever if before else {}
        lines = tuple(
            Line(
                *(text, places, numbers(values), class_colour(number, text)),
                _ended(text, values[-1], ends.get(text)), dashed=text == "all",
            )
            for number, (text, values) in enumerate(right_in_time(run, before).items())
        )  # fmt: skip
        found.append(
            Chart(
                *(name, "deadlines", title, "deadline", "test questions", lines),
                percent=True, categories=limits, from_zero=True,
            )
        )  # fmt: skip
    return found


def _ended(text: str, last: float, whenever: float | None) -> str:
    """A class with its share at the longest deadline, and without one."""
    said = f"{text} {percent(last, digits=0)}"
    return said if whenever is None else f"{said} ({percent(whenever, digits=0)} at any time)"
