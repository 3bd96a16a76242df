"""One tracker in a thread of its own: it is always some rounds behind the run, and never in its way.

Nothing is queued for it but the number of the newest committed round: what is to be sent lies in the run's files. So a
tracker that hangs holds no memory, and one that works again gets all that it missed.
"""

import json
import logging
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Condition, Thread
from time import monotonic

from tqdm import tqdm

from flsim.files import write_atomically
from flsim.storage.behind import put
from flsim.trackers.named import Named
from flsim.trackers.told import Told
from flsim.trackers.tracker import TrackedRun

FOLDER = "trackers"
"""In a run's folder: a file for each tracker, with its id and the last round that it got."""
_WAIT_STOPPED_S = 3.0  # of a run that was stopped from outside, or failed
_LONGEST = 300  # letters of a reason


@dataclass(frozen=True)
class Ending:
    """How a run ended, and what it leaves."""

    status: str
    artefacts: Sequence[tuple[Path, str]]
    """Files and folders with their names; those that are not there are left out."""


class Sender:
    """Tells one tracker of a run."""

    def __init__(self, named: Named, run: TrackedRun, told: Told, log: logging.Logger, *, shows: bool) -> None:
        """Begin.

        Args:
            named: the tracker.
            run: what there is to know of the run; its id and first round are looked up here.
            told: what is said of each round.
            log: of the run.
            shows: whether the screen is told, too.
        """
        self._named, self._tracker, self._told = named, named.tracker, told
        self._log, self._shows = log, shows
        self._file = run.folder / FOLDER / f"{named.name}.json"
        id_, self._sent = _kept(self._file)
        self._run = replace(run, id=id_)
        self._committed = self._tried = -1
        self._ending: Ending | None = None
        self._is_open = self._has_failed = self._is_done = self._is_left = False
        self._news = Condition()
        self._thread = Thread(target=self._work, name=f"flsim-{named.name}", daemon=True)
        self._thread.start()

    def committed(self, round_: int) -> None:
        """There is a new round; returns at once."""
        with self._news:
            self._committed = round_
            self._news.notify()

    def ends(self, ending: Ending, *, patient: bool) -> float:
        """There will be no more rounds; returns at once.

        Args:
            ending: how the run ended.
            patient: whether the tracker has all its time; else whoever stopped the run waits for its end.

        Returns:
            The moment until which it is to be waited for.
        """
        with self._news:
            self._ending = ending
            self._news.notify()
        wait = self._tracker.wait_s
        return monotonic() + (wait if patient else min(wait, _WAIT_STOPPED_S))

    def leave(self, until: float) -> None:
        """Wait for the tracker until that moment, and leave it behind if it has not done by then."""
        self._thread.join(max(0.0, until - monotonic()))
        with self._news:
            self._is_left = True
        if not self._is_done:
            why = "failed" if self._has_failed and not self._thread.is_alive() else "was not done in time"
            has = "no round" if self._sent < 0 else f"the rounds up to {self._sent} of {self._committed}"
            mend = f"flsim resume {self._run.folder} sends what is missing"
            self._say(f"tracker {self._named.name} {why}; it has {has}; {mend}", left=True)

    def _work(self) -> None:
        """The thread: whenever there is something new, all that the tracker has not got."""
        while True:
            with self._news:
                self._news.wait_for(lambda: self._ending is not None or self._committed > self._tried)
                self._tried, ending = self._committed, self._ending
            if ending is not None and self._tried < 0:  # nothing was committed, so there is nothing to tell
                self._is_done = True
                return
            try:
                self._catch_up()
                if ending is not None:
                    self._end(ending)
            except BaseException as error:  # of a package or a user's class: whatever it is, the run goes on
                self._fell(error)
            if ending is not None:
                return

    def _catch_up(self) -> None:
        if not self._is_open:
            run = replace(self._run, first=self._sent + 1)
            self._keep()  # before: whoever is killed now finds the tracker's run again, on another machine, too
            put(self._file)
            holds = self._tracker.start(run)
            if holds is not None:
                self._sent = max(-1, min(int(holds), self._committed))
            self._is_open = True
            if place := self._tracker.place():
                self._log.info("tracker %s: %s", self._named.name, place)
        while self._sent < self._committed:
            self._send(self._sent + 1)
        if self._has_failed:
            self._has_failed = False
            self._log.info("tracker %s works again; it has the rounds up to %d", self._named.name, self._sent)

    def _send(self, round_: int) -> None:
        of = self._told.of(round_)
        for name, text in of.texts.items():
            self._tracker.text(round_, name, text)
        self._tracker.measures(round_, dict(of.measures))
        self._sent = round_
        self._keep()

    def _end(self, ending: Ending) -> None:
        for path, name in ending.artefacts:
            if path.exists():
                self._tracker.artefact(path, name)
        self._tracker.finish(ending.status)
        self._is_done = True

    def _fell(self, error: BaseException) -> None:
        """Say it once, and start the tracker anew at the next round."""
        self._is_open = False
        if not self._has_failed:
            self._has_failed = True
            reason = " ".join(str(error).split())[:_LONGEST]
            said = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
            goes_on = "; the run goes on, and it is tried again after every round" if self._ending is None else ""
            self._say(f"tracker {self._named.name} failed after round {max(self._committed, 0)} ({said}){goes_on}")

    def _say(self, text: str, *, left: bool = False) -> None:
        """A line in the log and on the screen, while the run is there to have it."""
        if self._is_left and not left:
            return
        self._log.warning(text)
        if self._shows:
            tqdm.write(text)

    def _keep(self) -> None:
        with self._news:
            if self._is_left:  # the folder may be another process's by now
                return
            kept = {"id": self._run.id, "sent": self._sent}
            write_atomically(self._file, json.dumps(kept).encode(), what="what a tracker has", durable=False)


def _kept(file: Path) -> tuple[str, int]:
    """A tracker's id and the last round that it got; a new id where nothing is kept of it, or what is kept is damaged.

    An id is no choice of the run, and chance in the one place where it is wanted: no two runs may have the same.
    """
    with suppress(OSError, ValueError, KeyError, TypeError):
        kept: Mapping[str, object] = json.loads(file.read_text())
        id_, sent = kept["id"], kept["sent"]
        if isinstance(id_, str) and id_.isalnum() and isinstance(sent, int):
            return id_, sent
    return uuid.uuid4().hex[:16], -1
