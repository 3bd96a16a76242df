"""Findings as the page and the terminal show them."""

import textwrap
from collections.abc import Sequence

from flsim.diagnosis.finding import NOTE, Finding, counted
from flsim.diagnosis.table import KINDS
from flsim.report.html import paragraph, table
from flsim.text import WIDTH


def finding_pieces(findings: Sequence[Finding]) -> list[str]:
    """Of the page: how many there are, and each with its number, its rows and its mend."""
    pieces = [paragraph(f"Diagnosis: {counted(findings)}.")]
    if not findings:
        return pieces
    rows = [
        [one.severity, title_of(one), one.sentence, one.against, one.mend, "; ".join(map(str, one.rows))]
        for one in findings
    ]
    headings = ["severity", "finding", "what was seen", "number, threshold", "what to try", "rows"]
    return [*pieces, table(headings, rows, kind="words", marks=[one.severity for one in findings])]


def finding_lines(findings: Sequence[Finding]) -> list[str]:
    """Of the end table: how many there are, and what is worse than a note."""
    lines = ["", f"diagnosis: {counted(findings)}"]
    for one in findings:
        if one.severity != NOTE:
            lines += told(one)
    return lines


def told(one: Finding) -> list[str]:
    """A finding and its mend as lines of at most 100 columns."""
    opening = f"  {one.severity}: "
    text = f"{one.sentence} Try: {one.mend}"
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=opening,
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def title_of(one: Finding) -> str:
    """What pages call it."""
    return KINDS[one.name].title if one.name in KINDS else one.name
