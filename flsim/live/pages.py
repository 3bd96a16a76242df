"""What the page is sent: the list of runs, and one of them, as JSON; numbers as they are, tables as pieces of HTML."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flsim.charts.chart import Chart, as_plain
from flsim.live.following import Entry, Shown
from flsim.report.page import Section, sections_of

_FIRST = ("opening", "accuracy", "usage", "users")
"""Sections that one looks at while a run goes; the others follow in the order of the report."""
_FEW = 150
"""Letters of a reason that the list has room for; the run itself has the whole."""


def index_data(root: Path, entries: Sequence[Entry]) -> dict[str, Any]:
    """The list: the folder, and its runs."""
    return {"root": str(root), "runs": [{**_entry(root, one), "why": one.why[:_FEW]} for one in entries]}


def run_data(root: Path, shown: Shown) -> dict[str, Any]:
    """A run that was opened: its entry, its sections with the names of their charts, and the charts.

    Without a summary there are no sections, and a sentence says what is waited for.
    """
    summary, entry = shown.summary, shown.entry
    told = [] if summary is None else sections_of(summary, shown.timings)
    groups: dict[str, list[Chart]] = {}
    for chart in shown.charts:
        groups.setdefault(chart.group, []).append(chart)
    more = [Section(group, "", "", ()) for group in groups if group not in {one.name for one in told}]
    told.sort(key=lambda one: _FIRST.index(one.name) if one.name in _FIRST else len(_FIRST))
    sections = [_section(one, groups.get(one.name, [])) for one in [*told, *more]]
    return {
        **_entry(root, entry),
        "why": entry.why,
        "notes": list(shown.notes),
        "troubles": list(shown.look.troubles),
        "report": shown.look.summary is not None and (shown.look.folder / "report.html").is_file(),
        "sections": [one for one in sections if one["html"] or one["charts"]],
        "charts": as_plain(shown.charts),
    }


def _entry(root: Path, entry: Entry) -> dict[str, Any]:
    """Its fields, and how it is called: the name of the folder for the one that is followed itself."""
    return {**asdict(entry), "name": root.name if entry.path == "." else entry.path}


def _section(one: Section, charts: Sequence[Chart]) -> dict[str, Any]:
    return {
        "name": one.name,
        "title": one.title if charts or one.pieces else "",
        "caption": one.caption if charts else "",
        "html": "\n".join(one.pieces),
        "charts": [{"name": chart.name, "title": chart.title, "note": chart.note} for chart in charts],
    }


def as_json(data: dict[str, Any]) -> bytes:
    """As it is sent; equal data give equal bytes."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
