"""The processes that Ray stands on: a run whose raylet or GCS dies ends with a word, and none of them outlives it.

Without this, Ray ends the driver itself some seconds after its raylet is gone, silently, and a run whose GCS is gone
hangs or leaves agents behind.
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import ray

from flsim.flower.sentinel import Sentinel, end_all, lives

_KEEPERS = {"raylet": "raylet", "gcs_server": "GCS server"}
_LOOK_S = 1.0  # how often a wait looks whether they live
_GONE_S = 5.0  # how long Ray's processes may take to go by themselves


class RayDiedError(RuntimeError):
    """A process that Ray stands on died; the message names it and where its last words are."""


class Guard:
    """Knows the raylet and the GCS that this process depends on, as far as they run on its machine.

    Of a Ray that was started here it knows all processes, and a `Sentinel` beside it stays until they are gone.
    """

    def __init__(self) -> None:
        self._keepers: dict[str, psutil.Process] = {}
        self._family: list[psutil.Process] = []
        self._sentinel: Sentinel | None = None

    def begin(self, run_dir: Path, *, started: bool) -> None:
        """Get to know them.

        Args:
            run_dir: folder of the run.
            started: whether this process has started Ray; else it has joined one, and leaves its processes alone.
        """
        self._sentinel = Sentinel(run_dir) if started else None
        self.look()

    def look(self) -> None:
        """Get to know what has been started since."""
        children = [process for process in psutil.Process().children(recursive=True) if lives(process)]
        found = {process.name(): process for process in children}
        self._keepers = {name: found[name] for name in _KEEPERS if name in found}
        if self._sentinel is not None:
            since = min((keeper.create_time() for keeper in self._keepers.values()), default=0.0)
            own = self._sentinel.pid
            self._family = [one for one in children if one.create_time() >= since and one.pid != own]
            self._sentinel.know({_KEEPERS[name]: one for name, one in self._keepers.items()}, self._family)
        elif not self._keepers:  # of a cluster; which raylet is ours is clear if there is but one
            raylets = [process for process in psutil.process_iter(["name"]) if process.info["name"] == "raylet"]
            self._keepers = {"raylet": raylets[0]} if len(raylets) == 1 else {}

    def check(self) -> None:
        """Look whether they live.

        Raises:
            RayDiedError: if one does not.
        """
        for name, keeper in self._keepers.items():
            if not lives(keeper):
                raise RayDiedError(
                    f"Ray's {_KEEPERS[name]} (process {keeper.pid}) died, and with it the run's workers; what it said "
                    f"last stands in {_logs()}; if the machine had run out of memory, lower engine.workers"
                )

    @property
    def holds(self) -> bool:
        """Whether all of them live, so that Ray can still be asked for something."""
        return all(lives(keeper) for keeper in self._keepers.values())

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
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            left = max(0.0, deadline - time.monotonic())
            done, _ = ray.wait(list(refs), num_returns=1, timeout=min(_LOOK_S, left))
            if done or left <= _LOOK_S:
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

    def end(self) -> None:
        """Kill what is left of a Ray that was started here: agents outlive a raylet that was killed."""
        psutil.wait_procs(self._family, timeout=_GONE_S if self.holds else 0.0)
        end_all(self._family)
        if self._sentinel is not None:
            self._sentinel.dismiss()


def _logs() -> str:
    """Where Ray writes its logs."""
    node = getattr(ray._private.worker.global_worker, "node", None)
    return "the logs of Ray" if node is None else str(node.get_logs_dir_path())
