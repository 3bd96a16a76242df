"""A comparison as a notebook shows it: its two main tables, and the differences user by user as a figure."""

from flsim.comparison.figures import curves_figure, paired_figure
from flsim.comparison.result import Compared
from flsim.comparison.table import along_rows, end_rows
from flsim.report.html import paragraph, table
from flsim.report.notebook import image_of
from flsim.report.plot import drawing_style

_STAR = (
    "Means over users and seeds with 95 % intervals; differences in points, paired by user and seed, with a star where "
    "the interval excludes 0."
)


def comparison_html(comparison: Compared) -> str:
    """Both parts of the main table, and a figure; with a single method its curves."""
    several = len(comparison.results) + len(comparison.bounds) > 1
    with drawing_style():
        figure = paired_figure(comparison) if several else curves_figure(comparison)
    tables = (table(heads, lines) for heads, *lines in (end_rows(comparison), along_rows(comparison)))
    return "\n".join(
        ["<div>", *tables, paragraph(_STAR), image_of(figure, f"Differences to {comparison.against}"), "</div>"]
    )
