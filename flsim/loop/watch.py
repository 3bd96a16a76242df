"""A run whose asking is stuck says so once, in its log, on the screen and as a row; the diagnosis finds it, too."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

from tqdm import tqdm

from flsim.diagnosis.limits import limit
from flsim.diagnosis.stuck import STUCK, Asked, asked_in, is_stuck, mend, told
from flsim.metrics.rows import Row, fleet_row, read_rows

_ROUNDS = int(limit("rounds"))


@runtime_checkable
class SaysIfItAsks(Protocol):
    """A client that says whether its devices learn to ask."""

    @property
    def learns_to_ask(self) -> bool:
        """Whether asking is part of what they learn."""
        ...


@dataclass
class AskingWatch:
    """How often the fleet asked in the last rounds of training."""

    tau: float
    log: logging.Logger
    shows: bool
    """Whether it says so on the screen, too."""
    done: bool
    """Whether there is nothing to say any more: it was said, or nobody learns to ask."""
    rounds: list[Asked] = field(default_factory=list)

    @classmethod
    def of(cls, client: object, tau: float, folder: Path, log: logging.Logger, *, first: int, shows: bool) -> Self:
        """The watch of a run that goes on with round `first`."""
        watch = cls(tau, log, shows, not (isinstance(client, SaysIfItAsks) and client.learns_to_ask))
        if first > 1 and not watch.done:
            rows = read_rows(folder)
            watch.done = bool((rows["name"] == STUCK).any())
            late = rows[rows["round"].between(max(1, first - _ROUNDS), first - 1)]
            for _, part in late.groupby("round"):
                watch.rounds.append(asked_in(Row(*line) for line in part.itertuples(index=False)))
        return watch

    def look(self, round_: int, rows: list[Row]) -> list[Row]:
        """The row to be added to a round's, if it is the one that shows it."""
        if self.done or not round_:
            return []
        self.rounds = [*self.rounds, asked_in(rows)][-_ROUNDS:]
        if not is_stuck(self.rounds, self.tau):
            return []
        self.done, usage = True, self.rounds[-1].usage
        explores = any(row.name == "explored" for row in rows)
        text = f"{told(usage, round_, self.tau)} {mend(usage, explores=explores)}"
        self.log.warning(text)
        if self.shows:
            tqdm.write(text)
        return [fleet_row(round_, STUCK, usage)]
