"""Charts of what the asking rule claims: how often a claim comes true, and how often it is made, by tenths of it."""

import pandas as pd

from flsim.charts.chart import Chart, Line, numbers
from flsim.charts.colours import COLOURS, INK
from flsim.metrics.calibration import expected_calibration_error, of_all
from flsim.metrics.run_rows import RunRows
from flsim.text import percent

_CLAIMED = "claimed chance of being wrong alone"


def claims_charts(run: RunRows) -> list[Chart]:
    """The reliability curve at the last test, and how many prompts each tenth holds; none of a rule without claims."""
    sums = of_all(run.claims)
    prompts = float(sums["prompts"].sum())
    if not prompts:
        return []
    error = expected_calibration_error(((sums["claimed"] - sums["wrong"]) / prompts).to_numpy(dtype=float))
    return [_curve(sums[sums["prompts"] > 0], error), _held(sums["prompts"] / prompts)]


def _curve(held: pd.DataFrame, error: float) -> Chart:
    """A dot per tenth that holds any, as large as it holds many."""
    claimed, wrong = (numbers(held[name] / held["prompts"]) for name in ("claimed", "wrong"))
    sizes = tuple((held["prompts"] / held["prompts"].sum()).tolist())
    x = tuple(float(share or 0.0) for share in claimed)
    rule = Line("wrong alone", x, wrong, COLOURS["global"], f"ECE {percent(error)}", sizes=sizes)
    true = Line("claims come true", (0.0, 1.0), (0.0, 1.0), INK, dashed=True)
    return Chart(
        *("reliability", "reliability", "How often a claim comes true", _CLAIMED, "prompts that are wrong alone"),
        (rule, true), percent=True, percent_x=True, from_zero=True, top=1.0,
    )  # fmt: skip


def _held(shares: pd.Series) -> Chart:
    """The share of all prompts in each tenth."""
    tenths = tuple(f"{int(tenth)} to {int(tenth) + 10} %" for tenth in map(str, shares.index))
    line = Line("prompts", tuple(map(float, range(len(tenths)))), numbers(shares), COLOURS["global"])
    return Chart(
        *("claims_made", "reliability", "How often it is made", _CLAIMED, "share of prompts", (line,)),
        percent=True, categories=tenths, bars=True, from_zero=True,
    )  # fmt: skip
