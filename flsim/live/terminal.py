"""All runs under a folder as a table in the terminal: in colour where there is one, else plain lines."""

import time
from collections import Counter
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flsim.live.following import Entry
from flsim.live.standing import DONE, FAILED, RUNNING, STATES, STOPPED, WAITING
from flsim.text import aligned, duration, percent

_COLOURS = {RUNNING: "blue", WAITING: "cyan", FAILED: "bold red", STOPPED: "yellow", DONE: "green"}
_HEADINGS = ("run", "state", "round", "left", "accuracy", "alone", "usage", "tau", "findings")
_LETTERS = ("F", "W", "N")


def cells(entry: Entry, now: float) -> list[str]:
    """A run as a line of `_HEADINGS`; a dash stands for what is not known.

    Args:
        entry: the run.
        now: seconds since 1970, from which the time left is counted.
    """
    done = "-" if entry.round is None else str(entry.round)
    left = "-" if entry.ends is None else duration(max(0.0, entry.ends - now))
    return [
        entry.path,
        entry.state,
        f"{done} of {'?' if entry.rounds is None else entry.rounds}",
        left,
        *map(percent, (entry.accuracy, entry.alone, entry.usage)),
        percent(entry.tau, digits=0),
        told_findings(entry.findings),
    ]


def told_findings(counts: Sequence[int] | None) -> str:
    """Faults, warnings and notes: `1F 2W`; `none` if nothing was found, a dash if nobody has looked yet."""
    if counts is None:
        return "-"
    return " ".join(f"{count}{letter}" for count, letter in zip(counts, _LETTERS, strict=True) if count) or "none"


def counted(entries: Sequence[Entry]) -> str:
    """How many runs there are of each state: `12 runs: 2 running, 10 done`."""
    counts = Counter(entry.state for entry in entries)
    found = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    return f"{len(entries)} run{'s' * (len(entries) != 1)}" + (f": {found}" if found else "")


def plain(entries: Sequence[Entry], now: float) -> str:
    """The table as plain text, and below it why runs stand as they do."""
    lines = [counted(entries)]
    if entries:
        lines += ["", *aligned([_HEADINGS, *(cells(entry, now) for entry in entries)])]
    reasons = [f"{entry.path}: {entry.why}" for entry in entries if entry.why and entry.state != WAITING]
    reasons += [f"{entry.path}: {note}" for entry in entries for note in entry.left_out]
    return "\n".join([*lines, *(["", *reasons] if reasons else [])])


def table(entries: Sequence[Entry], now: float, height: int) -> RenderableType:
    """The table in colour.

    Args:
        entries: the runs.
        now: seconds since 1970.
        height: lines of the terminal; of more runs than there is room for, those that need no look are left out.
    """
    room = max(3, height - 8)
    shown = sorted(entries, key=lambda one: STATES.index(one.state))[:room] if len(entries) > room else list(entries)
    found = Table(box=None, pad_edge=False, header_style="bold", expand=False)
    for place, title in enumerate(_HEADINGS):
        found.add_column(title, justify="left" if place < 2 else "right", overflow="fold" if place == 0 else "ellipsis")
    found.add_column("")
    for entry in shown:
        line = cells(entry, now)
        state = Text(line[1], style=_COLOURS[entry.state])
        bar = ProgressBar(total=entry.rounds or 1, completed=entry.round or 0, width=12)
        worst = _COLOURS[FAILED] if entry.findings and entry.findings[0] else ""
        found.add_row(line[0], state, *line[2:8], Text(line[8], style=worst), bar)
    left_out = len(entries) - len(shown)
    more = [Text(f"and {left_out} more; --once prints all", style="dim")] if left_out else []
    reasons = [
        Text(f"{entry.path}: {entry.why}", style="dim", no_wrap=True, overflow="ellipsis")
        for entry in shown
        if entry.why and entry.state in (FAILED, RUNNING)
    ] + [
        Text(f"{entry.path}: {note}", style="yellow", no_wrap=True, overflow="ellipsis")
        for entry in shown
        for note in entry.left_out
    ]
    head = Text(f"{counted(entries)}   {time.strftime('%H:%M:%S', time.localtime(now))}   Ctrl-C ends", style="bold")
    return Group(head, Text(""), found, *more, *([Text(""), *reasons[: max(2, height - len(shown) - 5)]]))
