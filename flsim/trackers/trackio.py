"""Trackio: Hugging Face's local tracker, a database in the user's folder, or a Space that shows it."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flsim.trackers.named import need
from flsim.trackers.tracker import TrackedRun, Tracker


@dataclass
class Trackio(Tracker):
    """A run of Trackio, in the project of its study.

    Raises:
        ConfigError: if `trackio` is not installed.
    """

    project: str | None = None
    """None is the folder of the study, or the name of the config."""
    space: str | None = None
    """A Hugging Face Space that takes it, such as `me/runs`; None writes to the local database (TRACKIO_DIR)."""
    machine: bool = False
    """Whether Trackio also notes every 10 s how busy the machine is."""
    wait_s: float = 10.0
    """Seconds that the end of a run waits for it."""
    _run: Any = field(default=None, init=False, repr=False)
    _texts: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse a machine without it."""
        need("track=trackio", "trackio", "trackio")

    def start(self, run: TrackedRun) -> int | None:
        """Open the run, or go on with it; the id in its name keeps runs apart that are called alike."""
        trackio = importlib.import_module("trackio")
        self._run = trackio.init(
            project=run.group if self.project is None else self.project,
            name=f"{run.name}-{run.id[:6]}",
            group=run.group,
            space_id=self.space,
            config=dict(run.config),
            resume="allow",
            embed=False,
            auto_log_cpu=self.machine,
            auto_log_gpu=self.machine,
        )
        return int(self._run._next_step) - 1  # the one place where a run says which steps it holds

    def measures(self, round_: int, values: Mapping[str, float]) -> None:
        """One line, texts of the round included: a line is there whole or not at all."""
        self._run.log({**values, **self._texts}, step=round_)
        self._texts.clear()

    def text(self, round_: int, name: str, text: str) -> None:
        """Held until the measures of the round come."""
        self._texts[name] = importlib.import_module("trackio").Markdown(text)

    def artefact(self, path: Path, name: str) -> None:
        """An artefact of the run."""
        self._run.log_artifact(str(path), name=f"{name}-{self._run.name}", type="model" if name == "adapter" else name)

    def finish(self, status: str) -> None:
        """Write out what is still held."""
        self._run.finish()

    def place(self) -> str:
        """How to look at it."""
        return f"trackio show --project {self._run.project}"
