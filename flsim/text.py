"""Numbers and tables as people read them: percentages, points, sizes, times; plain and Markdown tables."""

import textwrap
from collections.abc import Sequence

WIDTH = 100


BAR = 24  # letters of the longest bar


_LARGER = {
    "seconds": ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s")),
    "joules": ((1e9, "GJ"), (1e6, "MJ"), (1e3, "kJ"), (1.0, "J")),
    "bytes": ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "bytes")),
}
_EIGHTHS = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")


def percent(value: float | None, *, digits: int = 1) -> str:
    """`0.6143` as `61.4 %`; None as a dash."""
    return "-" if value is None else f"{100 * value:.{digits}f} %"


def points(value: float | None) -> str:
    """A difference of shares in percentage points: `0.072` as `+7.2`; None as a dash."""
    return "-" if value is None else f"{100 * value:+.1f}"


def amount(value: float | None) -> str:
    """A sum for people: whole numbers with thousands, small ones with three digits; None as a dash."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def data_size(value: float | None) -> str:
    """Bytes in the largest decimal unit that leaves a number of at least 1: `2_500_000` is `2.5 MB`, 3.62 stays so."""
    if value is None:
        return "-"
    sizes = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
    return next((f"{value / size:.1f} {unit}" for size, unit in sizes if value >= size), f"{amount(value)} bytes")


def seconds(value: float) -> str:
    """A time for people: `125.3` as `125 s`, `3.14159` as `3.14 s`, `0.0123` as `12 ms`."""
    if value >= 0.9995:
        return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f} s"
    return f"{1000 * value:.{0 if value >= 0.001 or value == 0 else 2}f} ms"


def unit_for(kind: str, value: float) -> tuple[float, str]:
    """The unit in which an axis or a number of that size reads best: how large it is, and its name.

    Args:
        kind: `seconds`, `joules`, `bytes`, or another, which has no unit.
        value: the largest of the axis; of times at least 1.5 in the unit, of the others at least 1.
    """
    units = _LARGER.get(kind, ((1.0, ""),))
    least = 1.5 if kind == "seconds" else 1.0
    return next(((size, name) for size, name in units if value >= least * size or size == 1.0), units[-1])


def duration(value: float) -> str:
    """Seconds in the largest unit that leaves a number of at least 1.5, with three digits: `5400` as `1.50 h`."""
    size, unit = unit_for("seconds", value)
    return seconds(value) if unit == "s" else f"{_three_digits(value / size)} {unit}"


def energy(value: float) -> str:
    """Joules in the largest decimal unit that leaves a number of at least 1: `2_500_000` as `2.50 MJ`."""
    size, unit = unit_for("joules", value)
    return f"{_three_digits(value / size)} {unit}"


def _three_digits(value: float) -> str:
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def bar(length: float) -> str:
    """A bar of up to 24 letters for a length from 0 to 1, in steps of an eighth of a letter."""
    whole, eighths = divmod(round(8 * BAR * length), 8)
    return "█" * whole + _EIGHTHS[eighths]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Left-align the first column and right-align the others, with a rule under the first row."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return [lines[0], "-" * len(lines[0]), *lines[1:]]


def wrapped(text: str) -> str:
    """Break a sentence between words, at most 100 columns a line."""
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells, the first row being the header, as a Markdown table that also reads well in a terminal."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])
