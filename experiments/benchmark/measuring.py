"""What all measurements share: repeated timing, a median with its spread, and how a table is printed."""

import argparse
import contextlib
import importlib.metadata
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Spread:
    """A median and how far its repeats lie apart."""

    median: float
    low: float
    high: float

    def text(self, digits: int) -> str:
        """`8.7 (8.5..9.1)`."""
        return f"{self.median:.{digits}f} ({self.low:.{digits}f}..{self.high:.{digits}f})"


def spread(values: Sequence[float]) -> Spread:
    """The median of repeats, with the least and the largest."""
    return Spread(statistics.median(values), min(values), max(values))


CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
"""On a machine that nobody else uses both say the same of one thread; on any other only `cpu` says something."""


def seconds_of(work: Callable[[], object], clock: str = "wall") -> float:
    """Time of one call."""
    now = CLOCKS[clock]
    started = now()
    work()
    return now() - started


def clock_argument(parser: argparse.ArgumentParser, *, of: str, default: str = "wall") -> None:
    """The option `--clock`."""
    parser.add_argument(
        "--clock", choices=CLOCKS, default=default, help=f"of {of} (default {default}); cpu if others compute"
    )


def reset_peak() -> None:
    """Let `peak_bytes` begin anew, where the system can (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """Most memory that this process has held since `reset_peak`; elsewhere than on Linux since it began."""
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


def median_seconds(work: Callable[[], object], repeats: int) -> float:
    """Median wall time of `work`, after one call to warm up."""
    work()
    return statistics.median(seconds_of(work) for _ in range(repeats))


def conditions(*what: str) -> str:
    """One line on the machine and the libraries, then what else the figures depend on."""
    machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {importlib.metadata.version('torch')}"
    return ", ".join([machine, *what])
