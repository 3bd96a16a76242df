"""What a diagnosis looks at: the rows of a run with a few facts of its config, and statistics that ask for enough."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from flsim.diagnosis.finding import Query
from flsim.diagnosis.limits import limit
from flsim.metrics.intervals import Interval, over_users_and_seeds
from flsim.metrics.rows import WHOLE, in_rounds, of_users
from flsim.metrics.run_rows import RunRows, last_third
from flsim.tasks.stream import Phase

_BOOTSTRAP = 1000  # users beyond which the interval is the normal one: it is the same then, and a matrix smaller
_NORMAL = 1.96


@dataclass(frozen=True)
class Facts:
    """What the rows of a run do not say of themselves; what is not known makes the findings silent that need it."""

    phases: Sequence[Phase] = ()
    """Of its stream."""
    tau: float | None = None
    """Its budget; None if nobody asks."""
    devices: int | None = None
    """Size of the fleet; None if it is not known."""
    learns_to_ask: bool = False
    """Whether asking is part of what its devices learn."""
    highest_price: float | None = None
    """The largest lambda that there may be, of a device or the fleet; None if no price is learned."""
    carries_rest: bool = False
    """Whether devices are sent what averaging factors loses of the mean product."""
    waits_for_all: bool = True
    """Whether a round ends with the last of its devices."""
    max_staleness: int | None = None
    """Versions beyond which a reply is dropped; None: never."""


@dataclass(frozen=True)
class Seen:
    """A run to be diagnosed."""

    every: pd.DataFrame
    """All rows."""
    facts: Facts
    read: RunRows | None = None
    """These rows as measures have read them already, if they have."""

    @cached_property
    def rows(self) -> pd.DataFrame:
        """Without those of devices that do not learn honestly."""
        return of_users(self.every)

    @cached_property
    def run(self) -> RunRows:
        """As measures read it."""
        read, facts = self.read, self.facts
        if read is not None and self.rows is read.rows and (read.budget, read.phases) == (facts.tau, facts.phases):
            return read
        return RunRows.under(self.rows, facts.phases, facts.tau)

    @property
    def last(self) -> int:
        """The last round that has rows."""
        return self.run.last

    @cached_property
    def begun(self) -> list[Phase]:
        """The phases that have begun."""
        return [phase for phase in self.facts.phases if phase.first_round <= self.last]

    @property
    def late(self) -> tuple[int, int]:
        """First and last round of the last third."""
        return last_third(Phase("", (), 1, max(1, self.last))), self.last

    def fleet(self, name: str) -> pd.Series:
        """By round, a number of the whole fleet."""
        found = self.run.whole
        found = found[(found["name"] == name) & (found["weight"] > 0)].set_index("round")
        return (found["total"] / found["weight"]).rename(name)

    def of_devices(self, name: str) -> pd.Series:
        """By device and round, a value of training."""
        sums = self.run.trained(name).groupby(["device", "round"])[["total", "weight"]].sum()
        sums = sums[sums["weight"] > 0]
        return (sums["total"] / sums["weight"]).rename(name)

    def by_round(self, name: str | tuple[str, ...]) -> pd.DataFrame:
        """By round, total and weight of training over all devices."""
        return self.run.trained(name).groupby("round")[["total", "weight"]].sum()

    def trained(self, *names: str, first: int = 1, last: int | None = None) -> Query:
        """Rows of training of devices; `last=None` is the run's."""
        return Query(names, "train", "own", first, self.last if last is None else last)

    def whole(self, *names: str, first: int = 1, last: int | None = None) -> Query:
        """Rows of the whole fleet."""
        return Query(names, WHOLE, WHOLE, first, self.last if last is None else last)

    def tests(self, model: str, *names: str, first: int = 0, last: int | None = None) -> Query:
        """Rows of the tests of a model."""
        return Query(names, self.run.split, model, first, self.last if last is None else last)

    @property
    def is_tested_enough(self) -> bool:
        """Whether the last test has prompts enough to say something of the mean user."""
        items = self.run.tested_items
        return float((items if len(items) else self.run.weights("alone_accuracy")).sum()) >= limit("prompts")


def interval(values: pd.Series) -> Interval | None:
    """The mean over users with its 95 % interval; None where there are too few of them.

    Args:
        values: by device; nan is left out.
    """
    known = values.dropna().to_numpy(dtype=float)  # (U,)
    if len(known) < limit("users"):
        return None
    if len(known) <= _BOOTSTRAP:
        return over_users_and_seeds([known])
    mean, error = float(known.mean()), float(known.std(ddof=1) / np.sqrt(len(known)))
    return Interval(mean, mean - _NORMAL * error, mean + _NORMAL * error)


def between(values: pd.Series, first: int, last: int) -> pd.Series:
    """Of values by round, or by device and round, those of some rounds."""
    rounds = values.index.get_level_values("round")
    return values[(rounds >= first) & (rounds <= last)]


def streaks(flags: pd.Series) -> pd.DataFrame:
    """The latest streak of every device that is long enough.

    By hand: of the rounds 1, 2, 4, 5, 6 in which a device took part, with the flags 0, 1, 1, 1, 0, it is 2 to 5: three
    rounds in a row of those that it took part in, and over before the last.

    Args:
        flags: whether a state holds, by `device` and `round`.

    Returns:
        By device: `first` and `last` round, and whether it `lasts` to the device's last; without devices that had none
        of `limit("rounds")` rounds.
    """
    frame = flags.rename("flag").reset_index().sort_values(["device", "round"], kind="stable")
    frame["streak"] = (~frame["flag"].astype(bool)).cumsum()
    ends = frame.groupby("device")["round"].max()
    grouped = frame[frame["flag"].astype(bool)].groupby(["device", "streak"])["round"]
    found = grouped.agg(first="min", last="max", length="size").reset_index()
    found = found[found["length"] >= limit("rounds")].drop_duplicates("device", keep="last").set_index("device")
    return found.assign(lasts=found["last"] == ends.reindex(found.index))[["first", "last", "lasts"]]


def in_phase(rows: pd.DataFrame, phase: Phase) -> pd.DataFrame:
    """Rows of the last third of a phase."""
    return in_rounds(rows, last_third(phase), phase.last_round)


def points(value: float) -> str:
    """`0.081` as `8.1 points`."""
    return f"{100 * value:.1f} points"


def spread(found: Interval) -> str:
    """Its interval, in points."""
    return f"95 % interval {100 * found.low:.1f} to {100 * found.high:.1f}"
