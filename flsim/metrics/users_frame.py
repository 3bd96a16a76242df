"""One line per user with all that is known of them, and what the columns mean: for frames of one's own and exports."""

import pandas as pd

from flsim.metrics.measured import measure
from flsim.metrics.measures import MEASURES, Measure
from flsim.metrics.run_rows import RunRows

CLASS = "class"
"""Column of the class of a user's device."""
SPENT = ("calls", "refused", "tokens", "money", "uplink_bytes", "downlink_bytes", "seconds")
"""Measures that are sums over the whole fleet elsewhere, and here over a user's own rows."""
_FIRST = ("accuracy", "alone_accuracy", "training_usage", "cloud_grants", *SPENT)


def users_frame(run: RunRows) -> pd.DataFrame:
    """A line per user, by device: its class where there is a system, and every measure of users that was taken.

    Args:
        run: its rows.

    Returns:
        The column `device`, perhaps `class`, and columns named as in `flsim.metrics.measures.MEASURES`: accuracy,
        usage and what was spent first; nan where a user has none, and no column that nobody has.
    """
    found = measure(run)
    spent = {name: MEASURES[name].rows(run).groupby("device")["total"].sum() for name in SPENT}
    whole = found.users.assign(**{name: sums.reindex(found.users.index) for name, sums in spent.items()})
    names = [*_FIRST, *(name for name in found.users.columns if name not in _FIRST)]
    frame = whole[names].dropna(axis="columns", how="all")
    if len(found.classes):
        frame.insert(0, CLASS, found.classes.reindex(frame.index).astype(str))
    return frame.reset_index()


def dictionary_of(frame: pd.DataFrame) -> pd.DataFrame:
    """What the columns of such a frame mean.

    Args:
        frame: of `users_frame`, or any with columns that are called as measures.

    Returns:
        A line per column: `column, title, unit, meaning`.
    """
    return pd.DataFrame(
        [(name, *_told(name)) for name in frame.columns], columns=["column", "title", "unit", "meaning"]
    )


_OTHERS = {
    "device": ("device", "text", "The user's device."),
    CLASS: ("class", "text", "The class of the device, of those that the config's system has."),
}


def _told(name: str) -> tuple[str, str, str]:
    if name in _OTHERS:
        return _OTHERS[name]
    one: Measure = MEASURES[name]
    meaning = f"{one.meaning.replace(', all devices', '')} Of the user alone." if name in SPENT else one.meaning
    return one.title, one.unit, meaning
