"""A run as a notebook shows it: the answer, a table and a figure, and panels to go on drawing in."""

import base64
import io
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flsim.config.ranges import ConfigError, near
from flsim.diagnosis.finding import NOTE
from flsim.metrics.rows import read_rows
from flsim.report.findings import title_of
from flsim.report.html import paragraph, table
from flsim.report.panels import draw_accuracy, draw_dual, draw_matrix, draw_usage, draw_users, draw_worst_users
from flsim.report.plot import drawing_style, new_figure
from flsim.report.summary import Summary
from flsim.report.table import answer, model_lines, spread_cells

_DPI = 80
_SHOWN = ("by examples", "by traffic", "uniform", "p10", "p50", "p90", "worst 10 %")

Draw = Callable[[Axes, pd.DataFrame, Summary], None]
PANELS: Mapping[str, tuple[str, Draw]] = {
    "accuracy": ("Accuracy", lambda axes, rows, found: draw_accuracy(axes, rows, found.phases)),
    "may ask": (
        "Accuracy when the device may ask the cloud",
        lambda axes, rows, found: draw_accuracy(axes, rows, found.phases, alone=False),
    ),
    "alone": (
        "Accuracy of the device alone",
        lambda axes, rows, found: draw_accuracy(axes, rows, found.phases, alone=True),
    ),
    "usage": (
        "How often devices ask the cloud while training",
        lambda axes, rows, found: draw_usage(axes, rows, found.phases, tau=found.tau),
    ),
    "dual": ("The price of asking (λ)", lambda axes, rows, found: draw_dual(axes, rows, found.phases)),
    "users": ("All users at the end", lambda axes, rows, found: draw_users(axes, rows)),
    "worst users": ("", lambda axes, rows, found: draw_worst_users(axes, found.worst_users)),
    "matrix": ("Accuracy by task", lambda axes, rows, found: draw_matrix(axes, rows, found.phases)),
}
"""What `run.plot` draws, by name: title, and how."""


def draw_panel(name: str, folder: Path, found: Summary, axes: Axes | None = None) -> Axes:
    """Draw one panel of the report and hand it over.

    Args:
        name: of `PANELS`.
        folder: the run's.
        found: its summary.
        axes: to draw in, with room for labels at the right; None makes a figure that pyplot knows.

    Raises:
        ConfigError: for a name that there is not.
    """
    if name not in PANELS:
        raise ConfigError(
            f"plot({name!r}): there is no such figure{near(name, PANELS)}; there are: {', '.join(PANELS)}"
        )
    title, draw = PANELS[name]
    with drawing_style():
        if axes is None:
            from matplotlib import pyplot  # only now: it looks for a screen

            figure = pyplot.figure(figsize=(8, 4), facecolor="white")
            axes = figure.add_axes((0.13, 0.13, 0.61, 0.7))
        draw(axes, read_rows(folder), found)
        if title:
            axes.set_title(title)
    return axes


def run_html(folder: Path, found: Summary) -> str:
    """The answer, how the models ended, what is wrong, accuracy over rounds, and where the page is; some 40 kB."""
    worse = [one for one in found.findings if one.severity != NOTE]
    pieces = [
        f"<b>{escape(found.run)}</b>",
        paragraph(answer(found)),
        table(["at the end", *_SHOWN], [[label, *spread_cells(one)] for label, one in model_lines(found)]),
        *(paragraph(f"{one.severity}: {title_of(one)}. {one.sentence}") for one in worse[:3]),
    ]
    if (folder / "rows").is_dir():
        with drawing_style():
            figure = new_figure(8, 3.4)
            axes = figure.add_axes((0.11, 0.14, 0.64, 0.7))
            draw_accuracy(axes, read_rows(folder), found.phases)
        pieces.append(image_of(figure, f"Accuracy over the rounds of {found.run}"))
    page = folder / "report.html"
    return "\n".join(["<div>", *pieces, paragraph(f"The page of the run: {page}"), "</div>"])


def image_of(figure: Figure, caption: str) -> str:
    """A figure as a small picture within HTML."""
    buffer = io.BytesIO()
    with drawing_style():
        figure.savefig(buffer, format="png", dpi=_DPI)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
