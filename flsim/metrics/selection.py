"""Pick from a rows frame what a measure needs: evaluation rows, training rows, and the latest of a window."""

import pandas as pd

from flsim.metrics.rows import SERVER

REFERENCES = ("frozen", "random", "cloud")
"""Models that do not learn: evaluated once, at round 0, and valid for all rounds."""
LEARNERS = ("global", "local")
"""Models that learn: the aggregated adapter, and the device's own after its local steps."""
EVERY_TASK = "all"
"""The task of training rows that hold for all tasks together."""


def evaluation_split(rows: pd.DataFrame) -> str:
    """The split to report: `test` when it was measured, else `validation`."""
    return "test" if bool((rows["split"] == "test").any()) else "validation"


def evaluation(rows: pd.DataFrame, *, model: str, name: str) -> pd.DataFrame:
    """Evaluation rows of one model and one name, all rounds and task groups."""
    wanted = (rows["split"] == evaluation_split(rows)) & (rows["model"] == model) & (rows["name"] == name)
    return rows[wanted]


def training(rows: pd.DataFrame, *, name: str) -> pd.DataFrame:
    """Training rows of one name; where rows for all tasks together exist, those alone, so that nothing counts twice."""
    found = rows[(rows["split"] == "train") & (rows["name"] == name)]
    together = found[found["task"] == EVERY_TASK]
    return found if together.empty else together


def of_server(rows: pd.DataFrame) -> pd.DataFrame:
    """What the server measures of the whole fleet, all rounds and names."""
    return rows[rows["split"] == SERVER]


def in_rounds(rows: pd.DataFrame, first: int, last: int) -> pd.DataFrame:
    """Rows of the rounds from `first` to `last`, both included."""
    return rows[rows["round"].between(first, last)]


def latest(rows: pd.DataFrame, *, first: int = 0, last: int | None = None) -> pd.DataFrame:
    """Rows of the last round that has any.

    Args:
        rows: such as `evaluation(...)` gives.
        first: earliest round that counts.
        last: latest round that counts; None is no bound.

    Returns:
        The rows of one round; empty when no round in the window has rows.
    """
    window: pd.DataFrame = rows[rows["round"] >= first] if last is None else in_rounds(rows, first, last)
    is_latest: pd.Series[bool] = window["round"] == window["round"].max()
    return window[is_latest]
