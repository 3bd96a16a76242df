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
from flsim.metrics.users import over_rounds, per_user
from flsim.text import percent

_ROUND = "round"


def accuracy_charts(run: RunRows) -> list[Chart]:
    """Accuracy with the cloud, and alone; of a run where there is no cloud, one chart."""
    if run.tested("alone_accuracy").empty:
        return accuracy_chart(run, "accuracy", "Accuracy", alone=False)
    return [
        *accuracy_chart(run, "accuracy", "Accuracy when the device may ask the cloud", alone=False),
        *accuracy_chart(run, "alone_accuracy", "Accuracy of the device alone (asking disabled)", alone=True),
    ]


def accuracy_chart(run: RunRows, name: str, title: str, *, alone: bool | None) -> list[Chart]:
    """Accuracy of the mean user over rounds, with the references as level lines; none before the first test.

    Args:
        run: its rows.
        name: of the chart.
        title: of the chart.
        alone: True draws accuracy with asking disabled, False accuracy with the cloud, None both.
    """
    asks = not run.tested("alone_accuracy").empty
    lines = _asking(run, "may ask" if asks else "global") if alone is not True else []
    lines += _alone(run) if alone is not False else []
    if all(line.dashed for line in lines):
        return []
    return [_over_rounds(run, name, "accuracy", title, "test prompts right", lines)]


def _asking(run: RunRows, text: str) -> list[Line]:
    levels = (("random", "asks at random"), ("cloud", "cloud LLM"))
    found = [_level(run, run.at_end("accuracy", model), says, model) for model, says in levels]
    return [*curve(run.tested("accuracy"), text, COLOURS["global"]), *(line for one in found for line in one)]


def _alone(run: RunRows) -> list[Line]:
    levels = (("frozen", "frozen, alone"), ("base", "bare base, alone"))
    found = [_level(run, run.at_end("alone_accuracy", model), says, model) for model, says in levels]
    return [*curve(run.tested("alone_accuracy"), "alone", COLOURS["alone"]), *(line for one in found for line in one)]


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
    title = "The price of asking that devices learn (dual variable λ)"
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


def _level(run: RunRows, measured: pd.DataFrame, text: str, model: str) -> list[Line]:
    """The mean user of a model that does not learn, at every round."""
    values = per_user(measured)
    rounds = tuple(map(float, sorted(run.tested("accuracy")["round"].unique())))
    return [_flat(rounds, float(values.mean()), text, COLOURS[model])] if len(values) and rounds else []


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
    marks = phase_marks(run.phases, int(run.rows["round"].max()))
    return Chart(name, group, title, _ROUND, y_title, tuple(lines), share, marks=marks, from_zero=from_zero)
