"""A look at a run: what its folder says of it, from a handful of small files, none of which is read twice."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from flsim.config.load import load_config
from flsim.config.schema import Config
from flsim.files import DamagedFileError
from flsim.live.finding import CONFIG, names_in, newest_round, readable, round_of, signature
from flsim.live.standing import Signs, Standing, ends_at, last_error, standing_of, troubles_of
from flsim.loop.lock import EXPIRY_S, OWNER, owner_of
from flsim.report.summary import Summary, read_summary
from flsim.timing import RoundTiming, read_timing

T = TypeVar("T")

_TAIL = 64 * 2**10  # bytes of a log that are looked at
_PACE = 5  # the newest rounds whose timing is read for the time left


class ByVersion(Generic[T]):
    """What files hold, read anew only when a file has been replaced."""

    def __init__(self, read: Callable[[Path], T]) -> None:
        """Read by a function, which may raise; what it raises is raised again as long as the file is the same."""
        self._read = read
        self._kept: dict[Path, tuple[object, T | Exception]] = {}

    def of(self, path: Path) -> T | None:
        """What a file holds; None if it is not there."""
        version = signature(path)
        if version is None:
            self._kept.pop(path, None)
            return None
        kept = self._kept.get(path)
        if kept is None or kept[0] != version:
            kept = (version, self._anew(path))
            self._kept[path] = kept
        if isinstance(kept[1], Exception):
            raise kept[1]
        return kept[1]

    def _anew(self, path: Path) -> T | Exception:
        try:
            return self._read(path)
        except (OSError, ValueError, RecursionError, DamagedFileError) as error:  # a ConfigError is a ValueError
            return error

    def forget(self, keep: set[Path]) -> None:
        """Drop files that are not among these."""
        for path in self._kept.keys() - keep:
            del self._kept[path]


@dataclass(frozen=True)
class Look:
    """How a run stands at a moment."""

    folder: Path
    standing: Standing
    rounds: int | None
    """That it is to have; None if its config cannot be read."""
    newest: int | None
    """The last that has rows; None before round 0 has."""
    changed: float | None
    """When they were written, in seconds since 1970."""
    ends: float | None
    """When it will have done its rounds, likewise; None unless it is running, or before there is a pace."""
    config: Config | None
    summary: Summary | None
    """Of its report; None if it has none, or one of another release."""
    notes: tuple[str, ...] = ()
    """What could not be read."""
    troubles: tuple[str, ...] = ()
    """The last warnings of its log, the newest first."""
    version: object = field(default=None, compare=False)
    """Differs if any rows, its config or its report do."""


class Looker:
    """Looks at runs again and again."""

    def __init__(self, root: Path) -> None:
        """At those below `root`, which no link leads out of."""
        self._root = root
        self._configs = ByVersion(load_config)
        self._summaries = ByVersion(lambda path: read_summary(path.parent))
        self._timings = ByVersion(read_timing)
        self._logs = ByVersion(_tail)

    def look(self, run: Path) -> Look:
        """At one run; whatever is missing, damaged or of another release is a note and no error."""
        notes: list[str] = []
        config = self._read(self._configs, run / CONFIG, notes)
        newest, version = newest_round(run)
        summary = self._read(self._summaries, run / "summary.json", notes)
        log = self._read(self._logs, run / "run.log", notes) or ""
        owner, lives, paused = _owner(run)
        rounds = None if config is None else config.rounds
        is_reported = summary is not None and (run / "report.html").is_file()
        signs = Signs(
            rounds, newest, owner, lives, paused, last_error(log), summary.rounds if is_reported and summary else None
        )
        changed = None if version is None else version[1] / 1e9
        ends = self._ends(run, rounds, newest, changed) if lives and not paused else None
        return Look(
            run,
            standing_of(signs),
            rounds,
            newest,
            changed,
            ends,
            config,
            summary,
            tuple(notes),
            tuple(troubles_of(log)),
            (newest, version, signature(run / CONFIG), signature(run / "summary.json")),
        )

    def timings(self, run: Path, notes: list[str], last: int | None = None) -> list[RoundTiming]:
        """Of the run's rounds, or of its `last` newest; those that cannot be read are left out, and noted."""
        names = sorted(name for name in names_in(run / "timing") if round_of(name) is not None)
        found = (self._read(self._timings, run / "timing" / name, notes) for name in names[-(last or len(names)) :])
        return [timing for timing in found if timing is not None]

    def _read(self, kept: ByVersion[T], path: Path, notes: list[str]) -> T | None:
        if path.exists() and not readable(path, self._root):
            notes.append(f"{path.name} is no file of this folder, and is not opened")
            return None
        try:
            return kept.of(path)
        except (OSError, ValueError, RecursionError, DamagedFileError) as error:
            notes.append(f"{path.name} cannot be read: {' '.join(str(error).split())}")
            return None

    def _ends(self, run: Path, rounds: int | None, newest: int | None, changed: float | None) -> float | None:
        if rounds is None or newest is None or changed is None or newest >= rounds:
            return None
        pace = [timing.wall_s for timing in self.timings(run, [], _PACE) if timing.round]
        return ends_at(pace, rounds - newest, changed)


def _owner(run: Path) -> tuple[str | None, bool, bool]:
    """Who has a run's folder, whether that one is at work, and whether it is stopped."""
    with suppress(OSError):
        owner = owner_of(run)
        if owner is None:
            return None, False, False
        if owner.is_near:
            return str(owner), owner.runs, owner.is_stopped
        beat = signature(run / OWNER)  # elsewhere: by how old its lease is
        return str(owner), beat is not None and time.time() - beat[1] / 1e9 < EXPIRY_S, False
    return None, False, False


def _tail(path: Path) -> str:
    """The end of a text, from the first whole line on."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL))
        text = file.read().decode(errors="replace")
    return text if size <= _TAIL else text.partition("\n")[2]
