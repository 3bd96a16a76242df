"""All charts of a run, as far as its rows go: the report has them at the end, and `flsim watch` while it goes."""

import logging
from collections.abc import Callable, Sequence
from functools import partial

from flsim.charts.chart import Chart
from flsim.charts.claims import claims_charts
from flsim.charts.cost import cost_charts
from flsim.charts.curves import accuracy_charts, dual_charts, usage_charts
from flsim.charts.systems import system_charts
from flsim.charts.times import time_charts
from flsim.charts.users import users_charts
from flsim.metrics.run_rows import RunRows
from flsim.timing import RoundTiming

_LOG = logging.getLogger("flsim.run.report")  # in the run's log


def charts_of(run: RunRows, timings: Sequence[RoundTiming] = ()) -> tuple[Chart, ...]:
    """The charts of a run, whole or partial, in the order of its page; those without rows are left out.

    Args:
        run: its rows and phases, and its tau, which is nan without a budget.
        timings: of its rounds; without them nothing is said of where time goes.

    Returns:
        Charts with names of their own. One that cannot be made is left out with a warning: the numbers are elsewhere.
    """
    makers: dict[str, Callable[[], list[Chart]]] = {
        "accuracy": partial(accuracy_charts, run),
        "usage": partial(usage_charts, run),
        "lambda": partial(dual_charts, run),
        "reliability": partial(claims_charts, run),
        "users": partial(users_charts, run),
        "cost": partial(cost_charts, run),
        "systems": partial(system_charts, run),
        "time": partial(time_charts, timings),
    }
    return tuple(chart for name, make in makers.items() for chart in _made(name, make))


def _made(name: str, make: Callable[[], list[Chart]]) -> list[Chart]:
    try:
        return make()
    except Exception as error:  # whatever is odd in rows, a run does not end for it
        _LOG.warning("the chart %s is left out: it cannot be made (%s: %s)", name, type(error).__name__, error)
        return []
