"""Where the time of a round goes: a clock that books every second to one part, and the file a round leaves behind.

Parts that run inside one another are booked exclusively: while `cloud` runs inside `rollout`, only `cloud` grows. There
is one clock per process, since a worker does one thing at a time. Times never enter the rows, which are bit-identical
between equal runs; they lie in `RUN/timing/round-00012.json`, in worker-seconds:

    {"round": 12, "workers": 2, "wall_s": 3.1, "parts": {"rollout": 2.4, "train": 2.9, ..., "idle": 0.2}}

The parts add up to `workers * wall_s`.
"""

import json
import logging
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flsim.files import write_atomically

PARTS = (
    "rollout",
    "cloud",
    "reward",
    "train",
    "evaluate",
    "store",
    "transport",
    "aggregate",
    "commit",
    "idle",
    "other",
)
"""Sampling, the cloud's answers, verdicts, forward and backward and optimizer, tests on the devices, device states,
messages, the strategy, rows and checkpoint, workers that wait, and what no other part claims."""

_LOG = logging.getLogger("flsim.run.timing")  # in the run's log

_booked: dict[str, float] = {}
_open: list[str] = []
_since = 0.0


@contextmanager
def spend(part: str) -> Iterator[None]:
    """Book the time of the block to `part`; an enclosing part stops meanwhile."""
    _turn()
    _open.append(part)
    try:
        yield
    finally:
        _turn()
        _open.pop()


def booked() -> dict[str, float]:
    """Seconds per part since the last call; to be called outside any part."""
    taken = dict(_booked)
    _booked.clear()
    return taken


def _turn() -> None:
    """Book what has passed to the innermost open part."""
    global _since
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()  # kernels are launched asynchronously; without this the next part would pay for them
    now = time.perf_counter()
    if _open:
        _booked[_open[-1]] = _booked.get(_open[-1], 0.0) + now - _since
    _since = now


@dataclass(frozen=True)
class RoundTiming:
    """The time of one round."""

    round: int
    workers: int
    wall_s: float
    """Seconds on the clock on the wall."""
    parts: dict[str, float]
    """Worker-seconds per part."""


def write_timing(run_dir: Path, timing: RoundTiming) -> None:
    """Keep the timing of a round in the run's folder."""
    path = run_dir / "timing" / f"round-{timing.round:05d}.json"
    write_atomically(path, json.dumps(asdict(timing)).encode(), what=f"the timing of round {timing.round}")


def read_timings(run_dir: Path) -> list[RoundTiming]:
    """The timings of a run, by round; empty if it has none.

    A file that is damaged is left out with a warning: nothing depends on it but a picture.
    """
    timings = []
    for path in sorted((run_dir / "timing").glob("round-*.json")):
        try:
            timings.append(read_timing(path))
        except ValueError as error:
            _LOG.warning("%s cannot be read as a round's timing (%s); it is left out", path, error)
    return timings


def read_timing(path: Path) -> RoundTiming:
    """The timing of one round.

    Raises:
        ValueError: if the file cannot be read as one.
    """
    try:
        return _timing(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(str(error)) from error


def _timing(found: Any) -> RoundTiming:
    """What a file holds, if every number is one."""
    timing = RoundTiming(**found)
    numbers = (timing.round, timing.workers, timing.wall_s, *timing.parts.values())
    if not all(math.isfinite(number) for number in numbers) or not set(timing.parts) <= set(PARTS):
        raise ValueError("its numbers or parts are none")
    return timing
