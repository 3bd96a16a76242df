"""The command as a process that is started to be killed, with all that descends from it."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
LONGEST_S = 300.0
"""After which a command counts as one that hangs."""
_LEAVE_S = 20.0  # for what a dead driver leaves behind to notice


@dataclass(frozen=True)
class Ending:
    """How a command ended."""

    status: int | None
    """Its exit status, negative for a signal that killed it; None for one that hung."""
    said: str
    """All of its stderr."""
    left: int = 0
    """Processes that it left behind."""

    @property
    def last(self) -> str:
        """Its last line: the sentence that it ended with."""
        lines = [line for line in self.said.replace("\r", "\n").splitlines() if line.strip()]
        return lines[-1] if lines else ""

    @property
    def is_one_sentence(self) -> bool:
        """Whether it told its mistake once, as a sentence and without Python's traceback."""
        return "Traceback" not in self.said and self.said.count("error: ") == 1


class Command:
    """`flsim ...`, as the leader of a group of processes."""

    def __init__(self, arguments: Sequence[str], environment: dict[str, str] | None = None) -> None:
        """Start it; its stderr goes to a file, which no amount of words can fill."""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115, it lives as long as the command
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flsim", *arguments],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            start_new_session=True,
        )

    @property
    def runs(self) -> bool:
        """Whether it has not ended yet."""
        return self.process.poll() is None

    def family(self, *having: str) -> list[psutil.Process]:
        """All that descends from it; with words, those whose command line has one of them."""
        try:
            members = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        return [member for member in members if not having or any(word in _line(member) for word in having)]

    def wait_until(self, true: Callable[[], bool], within_s: float = LONGEST_S) -> bool:
        """Wait for something to become true; False if the command ended or the time was over before."""
        deadline = time.monotonic() + within_s
        while self.runs and time.monotonic() < deadline:
            if true():
                return True
            time.sleep(0.02)
        return true()  # it may have become true as the command ended

    def wait(self, seconds: float) -> None:
        """Let it run for so long, or until it ends."""
        deadline = time.monotonic() + seconds
        self.wait_until(lambda: time.monotonic() > deadline)

    def finish(self, within_s: float = LONGEST_S) -> Ending:
        """Wait for its end, and for that of all that descends from it."""
        family = self.family()
        deadline = time.monotonic() + within_s
        while self.runs and time.monotonic() < deadline:
            family = self.family() or family
            time.sleep(0.1)
        if self.runs:
            self.kill()
            return Ending(None, self._said())
        left = _gone(family)
        return Ending(self.process.returncode, self._said(), left)  # read last: a sentinel may speak for a dead driver

    def kill(self, *, alone: bool = False) -> int:
        """SIGKILL: to all of them at once, or to the command alone; returns how many outlived it that must not."""
        family = self.family()
        if alone:
            self.process.kill()
        else:
            with suppress(ProcessLookupError):  # it may have ended by itself
                os.killpg(self.process.pid, signal.SIGKILL)
            _kill(family)
        self.process.wait()
        return _gone(family)

    def _said(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _kill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def _gone(family: Sequence[psutil.Process]) -> int:
    """Wait for these to end by themselves; what does not is killed, and counted."""
    _, alive = psutil.wait_procs(family, timeout=_LEAVE_S)
    alive = [process for process in alive if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    _kill(alive)
    return len(alive)
