"""What a measure is: its name, title, unit, meaning and formula, declared once and shown wherever names are taken."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from flsim.metrics.formulas import MeanUser, Read
from flsim.metrics.run_rows import RunRows
from flsim.text import amount, data_size, duration, energy, percent, points

UNITS: dict[str, Callable[[float], str]] = {
    "share": percent,
    "points": points,
    "count": amount,
    "rounds": lambda value: f"{value:.1f}",
    "index": lambda value: f"{value:.3f}",
    "money": lambda value: f"{value:#.3g}",
    "bytes": data_size,
    "tokens": lambda value: f"{value:.1f}",
    "seconds": duration,
    "joules": energy,
}
"""How numbers are written, by unit: `share` in percent, `points` of percent with a sign, the others as they are."""
TABLES = {
    "end": "at the end",
    "learning": "may ask the cloud",
    "learning alone": "alone",
    "transfer": "may ask the cloud",
    "transfer alone": "alone",
    "switches": "after switches",
    "training": "cloud, while training",
    "test": "cloud, at test",
    "life": "cloud, training and test together",
    "wish": "the wish as a forecast",
    "traffic": "stage and transfer",
    "users": "accuracy over users",
    "fairness": "how equal, and for whom",
    "work": "work of devices, in counts",
    "systems": "in virtual time",
    "energy": "where joules go",
    "participation": "who took part",
    "questions": "a test question",
    "help": "how devices are helped",
    "files": "only in the CSV files",
}
"""Measures that one table of a comparison's page shows, and what stands in the table's corner."""

Formula = Callable[[RunRows], pd.Series | float] | MeanUser
"""From the rows of a run, a value per device or one number; or a ratio of the mean user over all seeds."""


@dataclass(frozen=True)
class Measure:
    """One measure: what it is called, what it means, and how it is taken.

    Raises:
        ValueError: for a unit or a table that there is not.
    """

    name: str
    """As it is given, and as columns of frames and files are called."""
    title: str
    """Of its column in tables."""
    unit: str
    """Of `UNITS`."""
    meaning: str
    """In a sentence or two."""
    of: Formula
    """Its formula; a mean over users and seeds has an interval, a number of the whole run is a mean over seeds."""
    table: str = "files"
    """Of `TABLES`."""
    followed: bool = False
    """Whether it is followed over rounds; its formula is then one that reads rows."""
    higher_is_better: bool = True
    """Whether the worst-off users are those with the lowest values."""

    def __post_init__(self) -> None:
        """Refuse what no table could show."""
        for what, value, allowed in (("unit", self.unit, UNITS), ("table", self.table, TABLES)):
            if value not in allowed:
                raise ValueError(f"measure {self.name!r}: {what}={value!r} is none of: {', '.join(allowed)}")
        if self.followed and not isinstance(self.of, Read):
            raise ValueError(f"measure {self.name!r} cannot be followed over rounds: its formula reads no single rows")

    def rows(self, run: RunRows) -> pd.DataFrame:
        """The rows that it is read from, of all rounds.

        Raises:
            ValueError: if its formula reads no rows of one kind, so that there is nothing to follow.
        """
        if not isinstance(self.of, Read):
            raise ValueError(f"measure {self.name!r} is made of other measures; there are no rows of it alone")
        return self.of.rows(run)

    def written(self, value: float | None) -> str:
        """A number of it as tables show it; a dash for what was not measured."""
        return "-" if value is None or np.isnan(value) else UNITS[self.unit](value)
