"""Write a comparison to a folder: tables for spreadsheets and papers, figures, and the page."""

import io
from functools import partial
from pathlib import Path

import pandas as pd

from flsim.comparison.cost_figure import cost_figure
from flsim.comparison.cost_table import axes_of, target_of, targets_frame
from flsim.comparison.figures import asking_figure, curves_figure, paired_figure, pareto_figure, users_figure
from flsim.comparison.page import page
from flsim.comparison.paper import latex_tables, markdown_tables
from flsim.comparison.question_figure import question_figure, shown
from flsim.comparison.result import Compared
from flsim.comparison.spend import curves_of, spend_figure
from flsim.comparison.table import per_user_frame, table_frame
from flsim.comparison.weightings import weighting_frame
from flsim.comparison.wish import claimants, wish_figure
from flsim.files import write_atomically
from flsim.report.plot import save_if_drawn


def write_comparison(comparison: Compared, folder: Path) -> list[Path]:
    """Write tables, figures and the page over what an earlier comparison left; one method alone has no `paired.png`.

    What it takes to get to an accuracy is there where runs have virtual time, or an accuracy was named.

    Args:
        comparison: what to write.
        folder: made when missing.

    Returns:
        The files, the page first.
    """
    tables = {
        "table.csv": table_frame(comparison),
        "weightings.csv": weighting_frame(comparison),
        "per_user.csv": per_user_frame(comparison),
        "curves.csv": comparison.curves,
        "matrices.csv": comparison.matrices,
    }
    priced = target_of(comparison) is not None
    if priced:
        tables |= {"costs.csv": comparison.courses, "targets.csv": targets_frame(comparison)}
    for name, frame in tables.items():
        _write_csv(folder / name, frame)
    figures = {"pareto.png": pareto_figure, "curves.png": curves_figure, "asking.png": asking_figure}
    figures["users.png"] = users_figure
    if curves_of(comparison):
        figures["spend.png"] = spend_figure
    if shown(comparison):
        figures["questions.png"] = question_figure
    if claimants(comparison):
        figures["reliability.png"] = wish_figure
    if priced and axes_of(comparison):
        figures["costs.png"] = cost_figure
    if comparison.pairs:
        figures["paired.png"] = paired_figure
    drawn = [name for name, draw in figures.items() if save_if_drawn(partial(draw, comparison), folder / name)]
    papers = {"tables.tex": latex_tables(comparison), "tables.md": markdown_tables(comparison)}
    for name, text in papers.items():
        write_atomically(folder / name, text.encode(), what="a table for a paper")
    write_atomically(folder / "page.html", page(comparison, folder).encode(), what="the comparison's page")
    return [folder / name for name in ("page.html", *tables, *papers, *drawn)]


def _write_csv(path: Path, frame: pd.DataFrame) -> None:
    buffer = io.StringIO()
    frame.to_csv(buffer, index=False)
    write_atomically(path, buffer.getvalue().encode(), what="a table of the comparison")
