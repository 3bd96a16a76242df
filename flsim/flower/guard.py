"""The processes that Ray stands on: a run whose raylet or GCS dies ends with a word, and none of them outlives it.

Without this, Ray ends the driver itself some fifteen seconds after its raylet is gone, silently, and a run whose GCS is
gone hangs or leaves agents behind.
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psutil
import ray

_KEEPERS = ("raylet", "gcs_server")
_LOOK_S = 1.0  # how often a wait looks whether they live
_GONE_S = 5.0  # how long a process may take to die


class RayDiedError(RuntimeError):
    """A process that Ray stands on died; the message names it and where its last words are."""


@dataclass(frozen=True)
class Guard:
    """The raylet and the GCS that a driver depends on, as far as they run on its machine."""

    keepers: tuple[psutil.Process, ...]
    family: tuple[psutil.Process, ...]
    """All processes of a Ray that was started here; none of one that was joined."""

    def check(self) -> None:
        """Look whether they live.

        Raises:
            RayDiedError: if one does not.
        """
        for keeper in self.keepers:
            if not _lives(keeper):
                name = "raylet" if keeper == self.keepers[0] else "GCS server"
                raise RayDiedError(
                    f"Ray's {name} (process {keeper.pid}) died, and with it the run's workers; what it said last "
                    f"stands in {_logs()}; if the machine had run out of memory, lower engine.workers"
                )

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Within, whatever fails because one of them died is told as that.

        Raises:
            RayDiedError: in place of the errors of Ray that follow from it.
        """
        try:
            yield
        except Exception:
            self.check()
            raise

    def wait(self, refs: Sequence[Any], timeout: float | None = None) -> Any | None:
        """The first of these results that is there; None if the timeout in seconds passes without any.

        Raises:
            RayDiedError: if there will be none any more.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = _LOOK_S if deadline is None else max(0.0, deadline - time.monotonic())
            done, _ = ray.wait(list(refs), num_returns=1, timeout=min(_LOOK_S, left))
            if done or (deadline is not None and left <= _LOOK_S):
                return done[0] if done else None
            self.check()

    def get(self, ref: Any, timeout: float = math.inf) -> Any:
        """A result, waited for.

        Raises:
            RayDiedError: if it will never come.
            ray.exceptions.GetTimeoutError: if the timeout in seconds passes without it.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                return ray.get(ref, timeout=_LOOK_S)
            except ray.exceptions.GetTimeoutError:
                self.check()
                if time.monotonic() > deadline:
                    raise

    @property
    def holds(self) -> bool:
        """Whether all of them live, so that Ray can still be asked for something."""
        return all(_lives(keeper) for keeper in self.keepers)

    def sweep(self) -> None:
        """Kill what is left of a Ray that was started here: agents outlive a raylet that was killed."""
        left = [process for process in self.family if _lives(process)]
        _, stubborn = psutil.wait_procs(left, timeout=0.0 if not self.holds else _GONE_S)
        for process in stubborn:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(stubborn, timeout=_GONE_S)


def guard(*, started: bool) -> Guard:
    """Find the processes of the Ray that this process is connected to.

    Args:
        started: whether this process has started it.
    """
    children = psutil.Process().children(recursive=True)
    found = {process.name(): process for process in children if _lives(process)}
    keepers = [found[name] for name in _KEEPERS if name in found]
    if not keepers:  # of a cluster; which raylet is ours is clear if there is but one
        raylets = [process for process in psutil.process_iter(["name"]) if process.info["name"] == _KEEPERS[0]]
        keepers = raylets if len(raylets) == 1 else []
    return Guard(tuple(keepers), _rays(keepers, children) if started else ())


def _rays(keepers: Sequence[psutil.Process], children: Sequence[psutil.Process]) -> tuple[psutil.Process, ...]:
    """What belongs to Ray among the children of this process: whatever came with or after its GCS."""
    since = min((keeper.create_time() for keeper in keepers), default=0.0)
    return tuple(process for process in children if process.create_time() >= since)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _logs() -> str:
    """Where Ray writes its logs."""
    node = getattr(ray._private.worker.global_worker, "node", None)
    return "the logs of Ray" if node is None else str(node.get_logs_dir_path())
