"""The record of `flsim benchmark gpu`: a JSON file that is whole after every measurement, whatever comes next.

{"asked": {"devices": [32], ...}, "conditions": "...", "until": 1764.5, "running": null, "measured": {
    "step, ours, qwen2.5-0.5b, K = 32": {"of": {...}, "status": "measured", "took_s": 9.1, "figures": {...}},
    "step, TRL, qwen2.5-0.5b, K = 1": {"of": {...}, "status": "failed", "took_s": 0.0, "why": "..."}}}
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from flsim.files import write_atomically

MEASURED, FAILED, SKIPPED = "measured", "failed", "skipped"


@dataclass
class Record:
    """What was asked for, and what has come of it so far."""

    path: Path
    asked: dict[str, Any]
    """The options of the call."""
    until: float
    """When its minutes are over, in seconds since 1970."""
    conditions: str = ""
    """The machine, the card and the libraries."""
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By the names of the measurements, as they ended."""
    running: dict[str, Any] | None = None
    """The measurement that is under way: its `name`, what it is `of`, `since` when, and `until` when it may take."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """What `write` wrote."""
        found = json.loads(path.read_text())
        return cls(path, found["asked"], found["until"], found["conditions"], found["measured"], found["running"])

    def write(self) -> None:
        """All of it."""
        head = {"asked": self.asked, "conditions": self.conditions, "until": self.until, "running": self.running}
        text = json.dumps(head | {"measured": self.entries}, indent=1)
        write_atomically(self.path, text.encode(), what="the record", durable=False)

    def begin(self, name: str, of: dict[str, Any], now: float, limit: float) -> None:
        """A measurement begins, which may take `limit` seconds."""
        self.running = {"name": name, "of": of, "since": now, "until": min(self.until, now + limit)}
        self.write()

    def end(self, name: str, of: dict[str, Any], status: str, took: float, **more: Any) -> None:
        """It has ended, one way or another.

        Args:
            name: of the measurement.
            of: what was measured.
            status: `MEASURED`, `FAILED` or `SKIPPED`.
            took: seconds.
            more: `figures`, if there are any; else `why`, a sentence.
        """
        self.entries[name] = {"of": of, "status": status, "took_s": round(took, 3), **more}
        self.running = None
        self.write()

    def lose(self, why: str, now: float) -> None:
        """The process is gone that measured."""
        if self.running is not None:
            self.end(self.running["name"], self.running["of"], FAILED, now - self.running["since"], why=why)
