"""All trackers of a run: each in a thread of its own, told of commits, and ended with the run."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath, PurePosixPath
from types import TracebackType
from typing import Any, Self

from flsim.storage.behind import bucket_behind
from flsim.trackers.named import Named
from flsim.trackers.sender import Ending, Sender
from flsim.trackers.told import Told
from flsim.trackers.tracker import FAILED, FINISHED, STOPPED, TrackedRun

_ROOT = "runs"  # where runs lie that are of no study
_ARTEFACTS = (("report.html", "report"), ("summary.json", "summary"), ("adapter", "adapter"))


class Tracking:
    """What a run says to its trackers; without any it is silent and costs nothing."""

    def __init__(
        self, trackers: Sequence[Named], run: TrackedRun, told: Told, log: logging.Logger, *, shows: bool
    ) -> None:
        """Begin; nothing is waited for.

        Args:
            trackers: what `track` names.
            run: what there is to know of the run.
            told: what is said of each of its rounds.
            log: of the run.
            shows: whether what goes wrong is said on the screen, too.
        """
        self._folder = run.folder
        self._senders = [Sender(one, run, told, log, shows=shows) for one in trackers]
        self._status = STOPPED

    def committed(self, round_: int) -> None:
        """A round is committed; returns at once."""
        for sender in self._senders:
            sender.committed(round_)

    def finished(self) -> None:
        """The run has made all its rounds and written its report."""
        self._status = FINISHED

    def __enter__(self) -> Self:
        """For `with`, which ends it."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End all trackers at once, and wait some seconds for them at the most."""
        status = FAILED if kind is not None and issubclass(kind, Exception) else self._status
        left = [(self._folder / name, called) for name, called in _ARTEFACTS] if kind is None else []
        until = [sender.ends(Ending(status, left), patient=kind is None) for sender in self._senders]
        for sender, moment in zip(self._senders, until, strict=True):
            sender.leave(moment)


def tracked_run(folder: Path, name: str, config: Mapping[str, Any]) -> TrackedRun:
    """What trackers are told of a run.

    Args:
        folder: its own; of a copy of what lies in an object store, the address there says what it belongs to.
        name: in its config; the group of a run that is of no study.
        config: every key with its value.
    """
    bucket = bucket_behind(folder)
    place: PurePath = folder.resolve() if bucket is None else PurePosixPath(bucket.address.path)
    above = place.parent.name
    return TrackedRun(place.name, name if above in ("", _ROOT) else above, folder, config, id="", first=0)
