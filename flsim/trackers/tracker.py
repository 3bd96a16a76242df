"""What a tracker is: it is told of a run that starts, of every round in order, of what is left and how it ended."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FINISHED, STOPPED, FAILED = "finished", "stopped", "failed"
"""How a run ends: it has made all its rounds; it was stopped and can go on; something stood in its way."""


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of a run before its first round."""

    name: str
    """Of its folder, such as `demo-seed0`."""
    group: str
    """What it belongs to: the folder of its study, or the name in its config."""
    folder: Path
    """Its own; a tracker may write into a folder of its own below."""
    config: Mapping[str, Any]
    """Every key with its value, such as `budget.tau: 0.3`."""
    id: str
    """Sixteen letters and digits, the same whenever this run goes on, and no other run's: the tracker's own run is to
    be found again by it."""
    first: int
    """The first round that will come: 0 in a new run. What the tracker holds of it and of later rounds is replaced, or
    what comes again is left out; equal runs say the same again, so both lead to one result."""


class Tracker(ABC):
    """A tracker; `start` and `measures` are needed, the rest may be left out.

    All methods are called one after the other from one thread of their own, never from that of the run. What they
    raise is a line in the log, and they are tried again after the next round: a tracker that failed is started anew,
    and gets every round that it has not got.
    """

    wait_s: float = 10.0
    """Seconds that the end of a run waits for it at the most."""

    @abstractmethod
    def start(self, run: TrackedRun) -> int | None:
        """Open the tracker's run, or go on with it.

        Args:
            run: what there is to know of it.

        Returns:
            The last round that the tracker holds for certain, from which the next ones follow; None if it cannot tell,
            then rounds follow from `run.first`.
        """

    @abstractmethod
    def measures(self, round_: int, values: Mapping[str, float]) -> None:
        """Take what was measured in a round.

        Args:
            round_: 0 before training; each comes once, in order.
            values: finite numbers by name, such as `accuracy/mean`; docs/watching.md lists them.
        """

    def text(self, round_: int, name: str, text: str) -> None:  # noqa: B027  # one may do without
        """Take a text of a round, such as its `findings`, in Markdown; it comes before the measures of the round."""

    def artefact(self, path: Path, name: str) -> None:  # noqa: B027
        """Take what the run has left: `report`, `summary` and `adapter`, a file or a folder."""

    def finish(self, status: str) -> None:  # noqa: B027
        """Take how the run ended, `finished`, `stopped` or `failed`, and write out what is still held."""

    def place(self) -> str:
        """Where people can look at it, for the log; empty if there is nothing to say."""
        return ""
