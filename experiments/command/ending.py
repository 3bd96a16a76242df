"""How a command ends: by itself, by a signal, or by what it cannot go on with; and what is left to go on from."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from experiments.command.diagnose import failed

if TYPE_CHECKING:
    from flsim.loop.run import Run

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Ctrl-C, `kill`, and a terminal that is closed: all three end a command in the same way, with status 128 + number."""

_PATIENCE_S = 10.0  # how long the end may take before another signal cuts it short


class Stopped(KeyboardInterrupt):
    """A signal asked the command to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number
        """What a shell calls a program that ended by this signal."""


class _Hearing:
    """The handler: the first signal is raised, and whatever follows must not disturb the end."""

    def __init__(self) -> None:
        self._first: float | None = None

    @property
    def heard(self) -> bool:
        """Whether there was one."""
        return self._first is not None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Raise `Stopped` once; later signals are heard again only if the end takes too long."""
        if self._first is None:
            self._first = time.monotonic()
            raise Stopped(number)
        if time.monotonic() - self._first < _PATIENCE_S:
            _say("\nstopping; another signal in a few seconds ends at once")
            return
        _end_at_once(128 + number)


@contextmanager
def hearing_signals(*, for_good: bool) -> Iterator[None]:
    """Within, a signal of `SIGNALS` is raised as `Stopped`; one that is ignored, as under nohup, stays ignored.

    Args:
        for_good: whether the process ends with this, so that after one signal no more must disturb its last steps.
    """
    hearing = _Hearing()
    before: dict[int, Any] = {}
    try:
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, hearing)
    except ValueError:  # not the main thread, which alone hears signals
        pass
    try:
        yield
    finally:
        # ignored, and not heard: the interpreter takes its handlers away before it ends, and one more would kill it
        over = for_good and hearing.heard
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if over else handler)


def told(work: Callable[[], "Run"], folder: Path, *, goes_on: bool = False, fail_on: str | None = None) -> int:
    """Run, and say how it ended: where the report is, or what is kept and how to go on.

    Args:
        work: the run.
        folder: where it writes.
        goes_on: whether the folder holds the run already; else what is found there before the start is another's.
        fail_on: the severity from which on a finding is no success; None lets all pass.

    Returns:
        The exit status: 0; 1 for a finding that is not to pass; 2 if something stands in the run's way; 128 + the
        number of the signal that stopped it.
    """
    from flsim.files import UnwritableError  # not above: `flsim run --help` need not wait for Flower
    from flsim.flower.guard import RayDiedError
    from flsim.flower.returned import StrategyError
    from flsim.report.table import end_table

    another = not goes_on and (folder / "config.yaml").exists()
    try:
        finished = work()
    except (StrategyError, UnwritableError, RayDiedError) as error:
        _say(f"\nerror: {error}\n{_left(folder, another)}")
        return 2
    except KeyboardInterrupt as stop:
        _say(f"\nstopped; {_left(folder, another)}")
        return status_of(stop)
    print(end_table(finished.summary))
    print(f"\nreport: {finished.report}")
    return failed(finished.summary.findings, fail_on)


def status_of(stop: KeyboardInterrupt) -> int:
    """The exit status of a command that a signal ended."""
    return stop.status if isinstance(stop, Stopped) else 130


def _left(folder: Path, another: bool) -> str:
    """What is kept of a run that did not end."""
    from flsim.files import left_in

    return f"nothing was written to {folder}" if another else left_in(folder)


def _say(text: str) -> None:
    """To standard error, if anybody is left to read it."""
    with suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def _end_at_once(status: int) -> None:
    """Kill whatever this process has started, and leave without another word."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            child.kill()
    os._exit(status)
