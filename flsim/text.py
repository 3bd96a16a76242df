"""Numbers and tables as people read them: percentages, points, sizes, times; plain and Markdown tables."""

import textwrap
from collections.abc import Sequence

WIDTH = 100


BAR = 24  # letters of the longest bar


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
    """Bytes in the largest decimal unit that leaves a number of at least 1: `2_500_000` as `2.5 MB`."""
    if value is None:
        return "-"
    sizes = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
    return next((f"{value / size:.1f} {unit}" for size, unit in sizes if value >= size), f"{value:.0f} bytes")


def seconds(value: float) -> str:
    """A time for people: `125.3` as `125 s`, `3.14159` as `3.14 s`, `0.0123` as `12 ms`."""
    if value >= 0.9995:
        return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f} s"
    return f"{1000 * value:.{0 if value >= 0.001 or value == 0 else 2}f} ms"


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
