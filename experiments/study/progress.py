"""One line on many runs: how many are done, the time left, and what is running in which round."""

import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from flsim.config.schema import Config

_QUIET_S = 60.0  # between two lines where no terminal can write a line anew


def rounds_done(folder: Path) -> int:
    """The newest round whose rows are there; 0 for a run that has not trained yet."""
    return max((int(file.stem.removeprefix("round-")) for file in folder.glob("rows/round-*.parquet")), default=0)


def duration(seconds: float) -> str:
    """A time for people: `40 s`, `12 min`, `3 h 05 min`."""
    minutes = round(seconds / 60)
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def status(*, done: int, failed: int, total: int, left_s: float | None, running: Sequence[str]) -> str:
    """The line.

    Args:
        done: runs that are finished.
        failed: runs that ended with an error.
        total: all runs.
        left_s: seconds that the others will take; None while that is not known.
        running: a word on each run at work.
    """
    parts = [f"{done} of {total} runs"]
    parts += [f"{failed} failed"] if failed else []
    parts += [f"{duration(left_s)} left"] if left_s is not None and running else []
    return ", ".join(parts) + (f": {', '.join(running)}" if running else "")


class Progress:
    """Writes the line: again and again in place on a terminal, else when a run ended and once a minute."""

    def __init__(self, total: int, missing: Sequence[Config], stream: TextIO | None = None) -> None:
        """Of so many runs, these are still to do; None writes to stderr."""
        self._total, self._missing = total, list(missing)
        self._stream = sys.stderr if stream is None else stream
        self._began, self._said = time.monotonic(), -_QUIET_S
        self._rounds = {config.folder: rounds_done(config.folder) for config in missing}
        self._before = dict(self._rounds)
        self._ended = -1

    def show(self, running: Sequence[Config], *, done: int, failed: Sequence[Path]) -> None:
        """Say how it stands.

        Args:
            running: at work now.
            done: how many of all runs are finished.
            failed: folders of those that ended with an error.
        """
        text = status(
            done=done,
            failed=len(failed),
            total=self._total,
            left_s=self._left(failed),
            running=[f"{run.folder.name} {rounds_done(run.folder)}/{run.rounds}" for run in running],
        )
        now, ended = time.monotonic(), done + len(failed)
        if self._stream.isatty():
            self._stream.write(f"\r{text[: shutil.get_terminal_size().columns - 1]}\x1b[K")
        elif ended != self._ended or now - self._said >= _QUIET_S:
            self._stream.write(f"{text}\n")
            self._said = now
        self._ended = ended
        self._stream.flush()

    def close(self) -> None:
        """Leave the line."""
        if self._stream.isatty():
            self._stream.write("\n")

    def _left(self, failed: Sequence[Path]) -> float | None:
        """Seconds, by the pace of the rounds that were done since the start; None before the first of them."""
        for run in self._missing:  # what was shared by several runs is gone when they have ended
            self._rounds[run.folder] = max(self._rounds[run.folder], rounds_done(run.folder))
        done = sum(self._rounds.values()) - sum(self._before.values())
        left = sum(run.rounds - self._rounds[run.folder] for run in self._missing if run.folder not in failed)
        return (time.monotonic() - self._began) * left / done if done else None
