"""Charts over rounds: the mean user's accuracy, usage against the budget, the price of asking; each with its band.

All are at user level: the line is the mean user, the band reaches from the 10th to the 90th percentile of users.
"""

import math
from collections.abc import Sequence

import pandas as pd

from flsim.charts.chart import Chart, Line, numbers, phase_marks
from flsim.charts.colours import COLOURS, INK
from flsim.metrics.rows import WEIGHED
from flsim.metrics.run_rows import RunRows
from flsim.metrics.users import over_rounds
from flsim.text import percent

_ROUND = "round"


def accuracy_charts(run: RunRows) -> list[Chart]:
    """The mean user's accuracy with the cloud, and alone, with the references as level lines; none before a test.

    Of a run where there is no cloud it is one chart.
    """
    asking, alone = run.tested("accuracy"), run.tested("alone_accuracy")
    without = alone.empty
    above = curve(asking, "global" if without else "may ask", COLOURS["global"])
    below = curve(alone, "alone", COLOURS["alone"])
    titles = ("Accuracy when the device may ask the cloud", "Accuracy of the device alone (asking disabled)")
    levels = (
        (("random", "accuracy", "asks at random"), ("cloud", "accuracy", "cloud LLM")),
        (("frozen", "alone_accuracy", "frozen, alone"), ("base", "alone_accuracy", "bare base, alone")),
    )
    charts = []
    for name, title, found, references in zip(
        ("accuracy", "alone_accuracy"), ("Accuracy", "") if without else titles, (above, below), levels, strict=True
    ):
        if found:
            lines = [*found, *_levels(run, found[0].x, references)]
            charts.append(_over_rounds(run, name, "accuracy", title, "test prompts right", lines))
    return charts


def _levels(run: RunRows, rounds: tuple[float, ...], references: Sequence[tuple[str, str, str]]) -> list[Line]:
    """The mean users of models that do not learn: (model, measure, what it is called)."""
    found = ((run.value_at_end(name, model), model, text) for model, name, text in references)
    return [_flat(rounds, float(own.mean()), text, COLOURS[model]) for own, model, text in found if len(own)]


def usage_charts(run: RunRows) -> list[Chart]:
    """Share of training responses that asked the cloud, against the budget; where that has a unit, each by its cost."""
    lines = curve(run.usage, "asked", COLOURS["global"])
    if not lines:
        return []
    if not math.isnan(run.tau):
        lines.append(_flat(lines[0].x, run.tau, "budget τ =", INK))
    said = "responses that ask" if run.trained(WEIGHED).empty else "responses that ask, by cost"
    title = "How often devices ask the cloud while training"
    return [_over_rounds(run, "usage", "usage", title, said, lines, from_zero=True)]


def dual_charts(run: RunRows) -> list[Chart]:
    """The price of asking that devices learn, `lambda`."""
    lines = curve(run.trained("dual_variable"), "λ =", COLOURS["dual"], share=False)
    if not lines:
        return []
    title = "The price of asking that devices learn, λ"
    return [_over_rounds(run, "lambda", "usage", title, "λ (reward per request)", lines, share=False)]


def curve(rows: pd.DataFrame, text: str, colour: str, *, share: bool = True) -> list[Line]:
    """A measure over rounds, at user level, with its band; none without rows."""
    found = over_rounds(rows)
    if found.empty:
        return []
    mean, low, high = (numbers(found[name]) for name in ("mean", "p10", "p90"))
    end = float(found["mean"].iloc[-1])
    label = f"{text} {percent(end, digits=0) if share else format(end, '.2f')}"
    name = text.removesuffix(" =")
    return [Line(name, tuple(map(float, found.index)), mean, colour, label, low, high)]


def _flat(x: tuple[float, ...], level: float, text: str, colour: str) -> Line:
    label = f"{text} {percent(level, digits=0)}"
    return Line(text.removesuffix(" ="), x, (level,) * len(x), colour, label, dashed=True)


def _over_rounds(
    run: RunRows,
    name: str,
    group: str,
    title: str,
    y_title: str,
    lines: Sequence[Line],
    *,
    share: bool = True,
    from_zero: bool = False,
) -> Chart:
    """A chart over the rounds of the run, with its phases."""
    marks = phase_marks(run.phases, run.last)
    return Chart(name, group, title, _ROUND, y_title, tuple(lines), share, marks=marks, from_zero=from_zero)
