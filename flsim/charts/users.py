"""Charts in which a point is a user: all users at the end, sorted, and the worst-off ones by name."""

import numpy as np
import pandas as pd

from flsim.charts.chart import Chart, Line, numbers
from flsim.charts.colours import COLOURS
from flsim.metrics.run_rows import RunRows
from flsim.text import percent

WORST_USERS = 5
"""How many are named."""
_SHOWN = (
    ("global", "accuracy", "may ask"),
    ("random", "accuracy", "asks at random"),
    ("frozen", "alone_accuracy", "frozen, alone"),
)
"""Model, measure and what it is called."""
_RIGHT = "test prompts right"


def users_charts(run: RunRows) -> list[Chart]:
    """Every user's accuracy at the end, each model by itself from the worst-off user to the best; and the worst-off."""
    found = {model: run.value_at_end(name, model) for model, name, _ in _SHOWN}
    lines = tuple(_sorted(found[model], text, COLOURS[model]) for model, _, text in _SHOWN if len(found[model]))
    if not lines:
        return []
    below = "users, from the worst-off to the best of each model"
    every = Chart("users", "users", "All users at the end", below, _RIGHT, lines, percent=True, percent_x=True)
    return [every, *_worst(found)]


def _sorted(values: pd.Series, text: str, colour: str) -> Line:
    """Users by their value; x is the share of users that are worse off, a user standing in the middle of its own."""
    values = values.sort_values(kind="stable")
    heights = values.to_numpy(dtype=float)  # (U,)
    shares = (np.arange(heights.size) + 0.5) / heights.size  # (U,)
    label = f"{text}, mean {percent(float(heights.mean()), digits=0)}"
    users = tuple(map(str, values.index))
    return Line(text, tuple(shares.tolist()), numbers(heights), colour, label, users=users)


def _worst(found: dict[str, pd.Series]) -> list[Chart]:
    """The users with the lowest accuracy of the global adapter, worst first, and what the references give them."""
    worst = found["global"].sort_values(kind="stable").head(WORST_USERS)
    if worst.empty:
        return []
    devices = tuple(map(str, worst.index))
    places = tuple(float(place) for place in range(len(devices)))
    lines = tuple(
        Line(text, places, numbers(found[model].reindex(worst.index)), COLOURS[model], users=devices)
        for model, _, text in _SHOWN
        if found[model].reindex(worst.index).notna().any()
    )
    title = "Worst-off users at the end"
    return [
        Chart(
            *("worst_users", "users", title, "", _RIGHT, lines),
            percent=True, categories=devices, bars=True, sideways=True, from_zero=True,
        )
    ]  # fmt: skip
