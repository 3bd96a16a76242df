"""A tracker for tests: it writes what it is told as lines of JSON into the run's folder; it can fail and hang."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flsim.trackers.tracker import TrackedRun, Tracker


@dataclass
class Recorder(Tracker):
    """Says nothing of what it holds, unless `knows`."""

    knows: bool = False
    holds: int | None = None
    """What it says that it holds, where it `knows`; None is what it was told."""
    fails_in: str = ""
    """A method that raises once, such as `measures`; `start always` raises each time."""
    hangs_in: str = ""
    """A method that never returns."""
    wait_s: float = 30.0
    _file: Path = field(default=Path(), init=False)
    _has_failed: bool = field(default=False, init=False)

    def start(self, run: TrackedRun) -> int | None:
        self._file = run.folder / "told.jsonl"
        self._tell("start", name=run.name, group=run.group, id=run.id, first=run.first, tau=run.config["budget.tau"])
        rounds = [one["round"] for one in told_in(run.folder) if one["what"] == "measures"]
        held = rounds[-1] if rounds else -1
        return (held if self.holds is None else self.holds) if self.knows else None

    def measures(self, round_: int, values: Mapping[str, float]) -> None:
        self._tell("measures", round=round_, values=dict(values))

    def text(self, round_: int, name: str, text: str) -> None:
        self._tell("text", round=round_, name=name, text=text)

    def artefact(self, path: Path, name: str) -> None:
        self._tell("artefact", path=str(path), name=name)

    def finish(self, status: str) -> None:
        self._tell("finish", status=status)

    def place(self) -> str:
        return str(self._file)

    def _tell(self, what: str, **more: Any) -> None:
        if self.hangs_in == what:
            time.sleep(1000)
        if self.fails_in == f"{what} always" or (self.fails_in == what and not self._has_failed):
            self._has_failed = True
            raise SystemExit("the server\nis away")
        with self._file.open("a") as file:
            file.write(json.dumps({"what": what, **more}) + "\n")


def told_in(folder: Path) -> list[dict[str, Any]]:
    """All that recorders of a run were told, in order."""
    file = folder / "told.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def rounds_in(folder: Path) -> list[int]:
    """The rounds whose measures came."""
    return [one["round"] for one in told_in(folder) if one["what"] == "measures"]
