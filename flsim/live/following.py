"""All runs under a folder, followed: looked at whenever somebody asks, and computed again only when files changed.

Nothing happens by itself. What is computed of a run that goes takes a part of one core's time and no more (`_REST`),
and what lies in a finished run's summary is taken from there.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flsim.charts.chart import Chart
from flsim.charts.of_run import charts_of
from flsim.config.schema import Config
from flsim.diagnosis.finding import SEVERITIES
from flsim.diagnosis.seen import Facts
from flsim.live.finding import found_under, readable
from flsim.live.looking import Look, Looker
from flsim.live.queue import read_queue
from flsim.live.standing import RUNNING
from flsim.live.view import KeptRows, Known, summary_of
from flsim.report.summary import Summary
from flsim.timing import RoundTiming

_REST = 9.0  # after a computation, so many times as long passes before the same is done again
_MOST_ROWS = 3_000_000  # of all runs together that are kept; some 500 MB


@dataclass(frozen=True)
class Entry:
    """A run in the list of all; None stands for what is not known, or not yet."""

    path: str
    """Below the folder that is followed, with `/`; `.` is the folder itself."""
    state: str
    why: str
    round: int | None
    rounds: int | None
    changed: float | None
    """When its last rows were written, in seconds since 1970."""
    ends: float | None
    """When it will have done its rounds, by its pace, likewise."""
    devices: int | None = None
    seed: int | None = None
    accuracy: float | None = None
    """Of the mean user at the last test, when it may ask."""
    alone: float | None = None
    """With asking disabled."""
    usage: float | None = None
    """Share of training responses that ask, of the mean user, in the last third of the phase that it is in."""
    tau: float | None = None
    findings: tuple[int, ...] | None = None
    """How many faults, warnings and notes."""
    left_out: tuple[str, ...] = ()
    """What could not be read."""


@dataclass(frozen=True)
class Shown:
    """A run that was opened."""

    entry: Entry
    look: Look
    summary: Summary | None
    """None before round 0 has rows."""
    charts: tuple[Chart, ...]
    timings: tuple[RoundTiming, ...]
    notes: tuple[str, ...]
    """What could not be read."""


@dataclass(frozen=True)
class _Computed:
    """What was made of a run's rows."""

    version: object
    summary: Summary | None
    charts: tuple[Chart, ...] | None
    """None if nobody has opened the run."""
    notes: tuple[str, ...]
    took: float
    """Seconds of a core."""
    at: float
    """When it was done."""


class Following:
    """The runs under a folder. Several threads may ask at once."""

    def __init__(
        self,
        root: Path,
        facts: Callable[[Config], Facts],
        *,
        clock: Callable[[], float] = time.monotonic,
        worked: Callable[[], float] = time.thread_time,
    ) -> None:
        """Begin; nothing is read yet.

        Args:
            root: of all runs, or a run's own.
            facts: what a config says for a diagnosis; it is to load no long libraries, and nobody's own code.
            clock: seconds that pass.
            worked: seconds that a core worked for whoever asks.
        """
        self.root = root
        self._facts = facts
        self._clock, self._worked = clock, worked
        self._lock = threading.RLock()
        self.has_looked = False
        """Whether there was a list already: the first one need not wait for what is to be computed."""
        self._looker = Looker(root)
        self._rows: dict[Path, KeptRows] = {}  # the one that was asked for last stands last
        self._computed: dict[Path, _Computed] = {}
        self._walked: tuple[float, float, tuple[Path, ...], tuple[Path, ...]] | None = None

    def entries(self, budget_s: float | None = None) -> list[Entry]:
        """Every run, by path.

        Args:
            budget_s: seconds after which no more summaries are computed from rows, which the next call goes on with;
                None computes all.
        """
        with self._lock:
            begun, self.has_looked = self._clock(), True
            runs, queues = self._places()
            found = {}
            for run in runs:
                look = self._looker.look(run)
                late = budget_s is not None and self._clock() - begun >= budget_s
                found[run] = self._entry(look, self._summary(look, may_compute=not late))
            for file in queues:
                found |= {run: entry for run, entry in self._waiting(file) if run not in found}
            for run in self._computed.keys() - found.keys():
                del self._computed[run]
                self._rows.pop(run, None)
            return [found[run] for run in sorted(found)]

    def show(self, path: str) -> Shown | None:
        """One run, by its path as entries have it; None if there is none of that name now."""
        with self._lock:
            runs, _ = self._places()
            run = next((run for run in runs if self._path(run) == path), None)
            if run is None:
                return None
            look = self._looker.look(run)
            done = self._compute(look, charts=True)
            summary = look.summary if self._is_current(look) else done.summary
            entry, notes = self._entry(look, summary), list[str]()
            timings = tuple(self._looker.timings(run, notes))
            return Shown(entry, look, summary, done.charts or (), timings, (*entry.left_out, *notes))

    def report(self, path: str) -> Path | None:
        """The finished page of a run; None if there is none, or it leads out of the folder."""
        with self._lock:
            runs, _ = self._places()
        run = next((run for run in runs if self._path(run) == path), None)
        page = None if run is None else run / "report.html"
        return page if page is not None and readable(page, self.root) else None

    def _places(self) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
        """Folders of runs and files of queues; a walk that takes long is not taken at every look."""
        now = self._clock()
        if self._walked is None or now >= self._walked[0] + _REST * self._walked[1]:
            found = found_under(self.root)
            end = self._clock()
            self._walked = (end, end - now, found.runs, found.queues)
        return self._walked[2], self._walked[3]

    def _path(self, run: Path) -> str:
        name = run.relative_to(self.root).as_posix()
        return name.encode(errors="surrogateescape").decode(errors="backslashreplace")  # a name may be no UTF-8

    @staticmethod
    def _is_current(look: Look) -> bool:
        """Whether the summary that lies there is of all rounds."""
        return look.summary is not None and look.summary.rounds == look.newest

    def _summary(self, look: Look, *, may_compute: bool) -> Summary | None:
        if self._is_current(look):
            return look.summary
        done = self._computed.get(look.folder)
        if may_compute and (done is None or done.version != look.version):
            done = self._compute(look)
        return None if done is None else done.summary

    def _compute(self, look: Look, *, charts: bool = False) -> _Computed:
        """From the rows; at once if that was never done or nobody works on the run, else after a rest."""
        done, begun = self._computed.get(look.folder), self._clock()
        if done is not None and (done.charts is not None or not charts):
            rests = look.standing.state == RUNNING and begun < done.at + _REST * done.took
            if done.version == look.version or rests:
                return done
        before = self._worked()
        is_new = done is None or done.version != look.version
        summary = look.summary if self._is_current(look) else None if is_new or done is None else done.summary
        made = self._made(look, summary, charts=charts)
        done = _Computed(look.version, *made, self._worked() - before, self._clock())
        self._computed[look.folder] = done
        self._forget_rows()
        return done

    def _made(
        self, look: Look, summary: Summary | None, *, charts: bool
    ) -> tuple[Summary | None, tuple[Chart, ...] | None, tuple[str, ...]]:
        """A summary, unless it is known, charts if they are wanted, and notes."""
        kept = self._rows.pop(look.folder, None) or KeptRows(look.folder, self.root)
        self._rows[look.folder] = kept
        rows = kept.read()
        if rows is None:
            return None, () if charts else None, kept.notes
        try:
            known = self._known(look)
            run = known.as_run(rows)
            found = summary_of(run, known) if summary is None else summary
            drawn = charts_of(run, self._looker.timings(look.folder, [])) if charts else None
        except Exception as error:  # of rows that another release wrote, or of somebody's own plug-in
            said = f"its rows cannot be summarised ({type(error).__name__}: {error})"
            return None, () if charts else None, (*kept.notes, said)
        return found, drawn, kept.notes

    def _known(self, look: Look) -> Known:
        """Without a config that can be read nothing is known of phases and budget."""
        config = look.config
        if config is None:
            return Known(look.folder.name, Facts(), None)
        return Known(look.folder.name, self._facts(config), config.fleet.devices)

    def _forget_rows(self) -> None:
        """Of the runs that were asked for longest ago, until what is kept has room; the last one stays."""
        while len(self._rows) > 1 and sum(kept.size for kept in self._rows.values()) > _MOST_ROWS:
            oldest = next(iter(self._rows))
            del self._rows[oldest]

    def _entry(self, look: Look, summary: Summary | None) -> Entry:
        config, done = look.config, self._computed.get(look.folder)
        end = {} if summary is None else summary.at_end.get("global", {})
        used = [] if summary is None else [part.last_third or part.whole for part in summary.usage]
        latest = next((part for part in reversed(used) if part is not None), None)
        counts = None
        if summary is not None:
            counts = tuple(sum(one.severity == kind for one in summary.findings) for kind in reversed(SEVERITIES))
        return Entry(
            path=self._path(look.folder),
            state=look.standing.state,
            why=look.standing.why,
            round=look.newest,
            rounds=look.rounds,
            changed=look.changed,
            ends=look.ends,
            devices=None if config is None else config.fleet.devices,
            seed=None if config is None else config.seed,
            accuracy=end["accuracy"].user_mean if "accuracy" in end else None,
            alone=end["alone_accuracy"].user_mean if "alone_accuracy" in end else None,
            usage=None if latest is None else latest.user_mean,
            tau=None if config is None or latest is None else config.budget.tau,
            findings=counts,
            left_out=(*look.notes, *(() if done is None else done.notes)),
        )

    def _waiting(self, file: Path) -> list[tuple[Path, Entry]]:
        """Runs that a study is still to begin."""
        if not readable(file, self.root):
            return []
        try:
            standing, rounds = read_queue(file)
        except (OSError, ValueError):
            return []
        return [
            (run, Entry(self._path(run), standing.state, standing.why, None, count, None, None))
            for run, count in rounds.items()
        ]
