"""Weights & Biases: a run with history, config, summary and artefacts; offline runs lie in the run's folder."""

import importlib
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flsim.config.schema import ConfigError
from flsim.trackers.named import need
from flsim.trackers.tracker import FINISHED, TrackedRun, Tracker
from flsim.trackers.wandb_file import last_round

MODES = ("online", "offline", "disabled")


@dataclass
class Wandb(Tracker):
    """A run of Weights & Biases, in the group of its study.

    Raises:
        ConfigError: if `wandb` is not installed, there is no such mode, or online there is no key.
    """

    project: str = "flsim"
    """Of W&B."""
    entity: str | None = None
    """The user or team; None is the key's own."""
    group: str | None = None
    """None is the folder of the study, or the name of the config."""
    mode: str | None = None
    """`online`, `offline` (send it later with `wandb sync`) or `disabled`; None goes by WANDB_MODE, else `online`."""
    wait_s: float = 30.0
    """Seconds that the end of a run waits for uploads; what is not sent by then stays in the run's folder."""
    _run: Any = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse what could only fail later."""
        need("track=wandb", "wandb", "wandb")
        if os.environ.get("WANDB_MODE") == "":
            raise ConfigError(
                f"track=wandb: WANDB_MODE is set and empty, which W&B does not take; unset it, or set it to one of: "
                f"{', '.join(MODES)}"
            )
        mode = self.mode or os.environ.get("WANDB_MODE") or "online"
        if mode not in MODES:
            raise ConfigError(f"track=wandb: mode={mode!r} is not known; choose one of: {', '.join(MODES)}")
        if mode == "online" and not importlib.import_module("wandb").login(prompt=False):
            raise ConfigError(
                "track=wandb has no key: call wandb login, or set WANDB_API_KEY, or write to a folder by "
                "{path: wandb, mode: offline}"
            )

    def start(self, run: TrackedRun) -> int | None:
        """Open the run of this id, or go on with it; server or files say which rounds they hold."""
        wandb = importlib.import_module("wandb")
        if self._run is not None:  # it failed, and W&B opens no run twice
            with suppress(Exception):
                self._run.finish(exit_code=1)
        place = run.folder / "trackers"  # wandb makes a folder of its own in it
        place.mkdir(parents=True, exist_ok=True)
        offline = (self.mode or os.environ.get("WANDB_MODE")) == "offline"
        held = last_round(place, run.id) if offline else None
        self._run = wandb.init(
            project=self.project,
            entity=self.entity,
            group=run.group if self.group is None else self.group,
            name=run.name,
            id=run.id,
            resume=None if offline else "allow",  # offline each process has a file; the server joins those of one id
            mode=self.mode,
            dir=str(place),
            config=dict(run.config),
            allow_val_change=True,
            settings=wandb.Settings(silent=True, console="off", reinit="create_new", finish_timeout=self.wait_s),
        )
        self._run.define_metric("*", step_metric="round")
        return int(self._run.step) - 1 if self._run.resumed else held

    def measures(self, round_: int, values: Mapping[str, float]) -> None:
        """One line of the history, whose step is the round."""
        self._run.log({**values, "round": round_}, step=round_, commit=True)

    def text(self, round_: int, name: str, text: str) -> None:
        """In the run's summary, where the newest stays."""
        self._run.summary[name] = text

    def artefact(self, path: Path, name: str) -> None:
        """A version of the artefact `NAME-ID`; an equal one makes no new version."""
        wandb = importlib.import_module("wandb")
        made = wandb.Artifact(f"{name}-{self._run.id}", type="model" if name == "adapter" else name)
        (made.add_dir if path.is_dir() else made.add_file)(str(path))
        self._run.log_artifact(made)

    def finish(self, status: str) -> None:
        """Upload what is left."""
        self._run.summary["status"] = status
        self._run.finish(exit_code=0 if status == FINISHED else 1)
        self._run = None

    def place(self) -> str:
        """The address of the run, or how to send it."""
        if self._run.offline:
            return f"wandb sync --append {Path(self._run.dir).parent}"
        return self._run.url or ""
