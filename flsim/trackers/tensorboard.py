"""TensorBoard: event files in the run's folder, so that `tensorboard --logdir runs` shows all runs together."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flsim.trackers.named import need
from flsim.trackers.tracker import TrackedRun, Tracker

_SPREAD = ("accuracy", "alone_accuracy", "usage", "lambda", "reward")  # shown as a band from p10 to p90


@dataclass
class TensorBoard(Tracker):
    """Event files that TensorBoard reads, with bands over users under "custom scalars".

    Raises:
        ConfigError: if `tensorboard` is not installed.
    """

    folder: str | None = None
    """Where they go, in a folder called as the run; None takes `tensorboard/` in the run's own folder."""
    wait_s: float = 10.0
    """Seconds that the end of a run waits for it."""
    _writer: Any = field(default=None, init=False, repr=False)
    _place: str = field(default="", init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse a machine without it."""
        need("track=tensorboard", "tensorboard", "tensorboard")

    def start(self, run: TrackedRun) -> None:
        """A new event file; readers drop what older ones hold from `run.first` on."""
        from torch.utils.tensorboard.writer import SummaryWriter  # torch is there, and what it wraps takes a second

        place = run.folder / "tensorboard" if self.folder is None else Path(self.folder) / f"{run.name}-{run.id[:6]}"
        self._place = str(place)
        self._close()
        _wait_for_a_later_second(Path(self._place))
        self._writer = SummaryWriter(self._place, purge_step=run.first)
        if run.first == 0:
            table = "\n".join(["| key | value |", "|---|---|", *(f"| {k} | {v} |" for k, v in run.config.items())])
            self._writer.add_text("config", table, 0)
            bands = {name: ["Margin", [f"{name}/{part}" for part in ("mean", "p10", "p90")]] for name in _SPREAD}
            self._writer.add_custom_scalars({"over users": bands})

    def measures(self, round_: int, values: Mapping[str, float]) -> None:
        """A scalar each, in the file when it returns."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, round_)
        self._writer.flush()

    def text(self, round_: int, name: str, text: str) -> None:
        """As TensorBoard shows texts."""
        self._writer.add_text(name, text, round_)

    def artefact(self, path: Path, name: str) -> None:
        """Event files hold no files: it says where it is."""
        self._writer.add_text(f"left/{name}", f"`{path}`", 0)

    def finish(self, status: str) -> None:
        """Say how it ended, and close the file."""
        self._writer.add_text("left/status", status, 0)
        self._close()

    def place(self) -> str:
        """How to look at it."""
        return f"tensorboard --logdir {self._place}"

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = None


def _wait_for_a_later_second(place: Path) -> None:
    """Files are read in the order of their names, which begin with the second: of two in one, the older may be last."""
    seconds = [part for file in place.glob("events.out.tfevents.*") if (part := file.name.split(".")[3]).isdecimal()]
    while seconds and int(time.time()) == int(max(seconds)):
        time.sleep(0.05)
