"""The main tables of a comparison for a paper: LaTeX with booktabs, and Markdown; the numbers are those of the page."""

import re

import pandas as pd

from flsim.comparison.result import Compared
from flsim.comparison.table import along_rows, end_rows
from flsim.text import markdown_table

_MINUS = re.compile(r"(?<![\w.])-(?=\d)")
_LEFT = str.maketrans({"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"})  # as they are by pandas
_OPENING = "% needs \\usepackage{booktabs}; written by flsim compare, numbers as in table.csv"


def latex_tables(comparison: Compared) -> str:
    """Both parts of the main table as LaTeX, each in a `table` with caption and label `tab:end` and `tab:along`."""
    told = _told(comparison).replace("%", "\\%")
    first = _latex(end_rows(comparison), told, "tab:end")
    second = _latex(along_rows(comparison), "Over the whole run, of the runs of Table~\\ref{tab:end}.", "tab:along")
    return "\n".join([_OPENING, first, second])


def markdown_tables(comparison: Compared) -> str:
    """Both parts as Markdown, with what the numbers are between them."""
    parts = (end_rows(comparison), along_rows(comparison))
    cells = ([[_range(cell).replace("|", "\\|") for cell in row] for row in rows] for rows in parts)
    first, second = (markdown_table(rows) for rows in cells)
    return f"{first}\n\n{_told(comparison)}\n\n{second}\n"


def _told(comparison: Compared) -> str:
    """What the numbers are."""
    users, seeds = len(comparison.results[0].users[0]), len(comparison.seeds)
    return (
        f"Means over {users} users{'' if seeds == 1 else f' and {seeds} seeds'} ({comparison.weighting.name} weights) "
        f"with 95 % bootstrap intervals; the last column in points, paired by user and seed, with a star where the "
        f"interval excludes 0."
    )


def _latex(rows: list[list[str]], caption: str, label: str) -> str:
    heads, *lines = [[_range(cell) for cell in row] for row in rows]
    frame = pd.DataFrame(lines, columns=pd.Index(heads))
    columns = "l" + "r" * (len(heads) - 1)
    text = frame.to_latex(index=False, escape=True, column_format=columns, caption=caption, label=label, position="t")
    text = text.translate(_LEFT)
    return _MINUS.sub("$-$", text.replace("\\begin{tabular}", "\\centering\n\\begin{tabular}"))


def _range(cell: str) -> str:
    """`61.4 % (58.0..64.9)` as `61.4 % (58.0 to 64.9)`."""
    return re.sub(r"(?<=\d)\.\.(?=[+-]?\d)", " to ", cell)
