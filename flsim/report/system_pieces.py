"""What a run's page says of devices as systems: tables of work, virtual time, joules and questions, and of classes."""

from collections.abc import Callable

from flsim.metrics.measures import TABLES, of_table
from flsim.report.html import heading, table
from flsim.report.summary import Summary
from flsim.report.system_summary import SHOWN
from flsim.text import duration, energy, percent


def system_pieces(summary: Summary) -> list[str]:
    """Pieces of HTML; of a run without a system the counts of its work alone."""
    pieces = [heading("Devices as systems")] if summary.classes else []
    for name in SHOWN:
        shown = [one for one in of_table(name) if one.name in summary.measured]
        rows = [[one.meaning.removesuffix("."), one.written(summary.measured[one.name])] for one in shown]
        pieces += [table([TABLES[name], ""], rows)] if rows else []
    return [*pieces, *_classes(summary)]


def _classes(summary: Summary) -> list[str]:
    """A line per class of device."""
    if not summary.classes:
        return []
    rows = [
        [
            one.name,
            str(one.devices),
            *(percent(share) for share in (one.work, one.accuracy, one.alone_accuracy)),
            *(_or_dash(duration, value) for value in (one.round_seconds, one.question_seconds)),
            *(_or_dash(energy, value) for value in (one.joules, one.question_joules)),
        ]
        for one in summary.classes
    ]
    headings = ["class of device", "devices", "share of the work", "may ask", "alone", "a round", "a question"]
    return [table([*headings, "joules of a round", "of a question"], rows)]


def _or_dash(written: Callable[[float], str], value: float | None) -> str:
    return "-" if value is None else written(value)
