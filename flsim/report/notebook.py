"""A run as a notebook shows it: the answer, a table and a figure, and panels to go on drawing in."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flsim.charts.chart import Chart
from flsim.charts.curves import accuracy_charts, dual_charts, usage_charts
from flsim.charts.users import users_charts
from flsim.config.ranges import ConfigError, near
from flsim.diagnosis.finding import NOTE
from flsim.metrics.rows import read_compact
from flsim.metrics.run_rows import RunRows
from flsim.report.figures import TESTED, TRAINED, both
from flsim.report.findings import title_of
from flsim.report.html import paragraph, table
from flsim.report.panels import draw_curves, draw_matrix, draw_users, draw_worst_users
from flsim.report.plot import drawing_style, new_figure
from flsim.report.summary import Summary
from flsim.report.table import answer, model_lines, spread_cells

_DPI = 80
_SHOWN = ("by examples", "by traffic", "uniform", "p10", "p50", "p90", "worst 10 %")

Draw = Callable[[Axes, RunRows], str]


def _accuracy(axes: Axes, run: RunRows) -> str:
    draw_curves(axes, both(_named(accuracy_charts(run))), run, missing=TESTED)
    return "Accuracy"


def _curves(name: str, make: Callable[[RunRows], list[Chart]], missing: str) -> Draw:
    def draw(axes: Axes, run: RunRows) -> str:
        chart = _named(make(run)).get(name)
        draw_curves(axes, chart, run, missing=missing)
        return "" if chart is None else chart.title

    return draw


def _users(name: str, draw_one: Callable[[Axes, Chart | None], None]) -> Draw:
    def draw(axes: Axes, run: RunRows) -> str:
        chart = _named(users_charts(run)).get(name)
        draw_one(axes, chart)
        return "" if chart is None else chart.title

    return draw


def _matrix(axes: Axes, run: RunRows) -> str:
    draw_matrix(axes, run)
    return "Accuracy by task"


def _named(charts: Sequence[Chart]) -> dict[str, Chart]:
    return {chart.name: chart for chart in charts}


PANELS: Mapping[str, Draw] = {
    "accuracy": _accuracy,
    "alone_accuracy": _curves("alone_accuracy", accuracy_charts, TESTED),
    "usage": _curves("usage", usage_charts, TRAINED),
    "lambda": _curves("lambda", dual_charts, "dual variable"),
    "users": _users("users", draw_users),
    "worst_users": _users("worst_users", draw_worst_users),
    "matrix": _matrix,
}
"""What `run.plot` draws, by name: each draws into axes, and says the title."""


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
    with drawing_style():
        if axes is None:
            from matplotlib import pyplot  # only now: it looks for a screen

            figure = pyplot.figure(figsize=(8, 4), facecolor="white")
            axes = figure.add_axes((0.13, 0.13, 0.61, 0.7))
        title = PANELS[name](axes, rows_of(folder, found))
        axes.set_title(title, loc="center")  # where a caller's own title takes its place
    return axes


def rows_of(folder: Path, found: Summary) -> RunRows:
    """All rows of a run, as the report reads them."""
    return RunRows.under(read_compact(folder), found.phases, found.tau)


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
            _accuracy(axes, rows_of(folder, found))
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
