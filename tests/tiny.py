"""Configs as small as they get, on the random checkpoint of `conftest.py`; its `tiny_run` gives each a folder.

What all runs of a file have in common stands in its own `TINY`, over the settings here; a test adds what it is about.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import pytest

from flsim.config.load import load_config, to_yaml
from flsim.config.schema import Config

WORLD = ("model.rank=2", "rounds=3", "fleet.devices=3", "cloud.kind=oracle", "cloud.oracle_error=0")
RUN = (
    "model.rank=2",
    "model.max_new_tokens=4",
    "rounds=2",
    "fleet.devices=2",
    "stream.phases=[[arithmetic]]",
    "cloud.kind=oracle",
    "evaluation.every_rounds=2",
    "evaluation.prompts_per_task=2",
    "engine.kind=local",
    "client.steps=1",
    "client.prompts=3",
    "client.max_new_tokens=4",
)

TOKEN: dict[str, Any] = {"policy": "token", "dual_lr": 0.1, "imitate": 0.0, "replay": 0}
"""Settings of DA-GRPO that let a help request of the policy ask, as in its paper, for tests that are about that."""
TOKEN_RUN = tuple(f"client.{name}={value}" for name, value in TOKEN.items())
"""The same of a run."""


class TinyRun(Protocol):
    """`tiny_run(name, *more)`: the config of a small run with `more` laid over it, in a folder called `name`."""

    def __call__(self, name: str, *more: str) -> Config:
        """Its config."""
        ...


def tiny_world(checkpoint: Path, *more: str) -> Config:
    """The config of three devices whose cloud knows all, for tests of what a device does."""
    return load_config(None, [f"model.path={checkpoint}", *WORLD, *more])


def tiny_runs_in(root: Path, checkpoint: Path, shared: tuple[str, ...]) -> TinyRun:
    """Configs of runs under `root`, with `shared` over the settings here."""

    def make(name: str, *more: str) -> Config:
        return load_config(None, [f"run_dir={root / name}", f"model.path={checkpoint}", *RUN, *shared, *more])

    return make


def tiny_file(folder: Path, checkpoint: Path, *more: str) -> Path:
    """`folder/tiny.yaml`: the settings of such a run as a file, for commands."""
    file = folder / "tiny.yaml"
    file.write_text(to_yaml(load_config(None, ["name=tiny", f"model.path={checkpoint}", *RUN, *more])))
    return file


@contextmanager
def without_report() -> Iterator[None]:
    """Runs end without their report, which takes longer than so small a run: nothing is read from their rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flsim.report.finish.finish_run", lambda folder, **more: SimpleNamespace(findings=()))
        yield


@contextmanager
def without_pictures() -> Iterator[None]:
    """Runs end with summary and page, but without the files of `plots/`, which take most of a report's time.

    Those of comparisons are there, and empty.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flsim.report.finish.write_figures", lambda *args, **more: None)
        patch.setattr("flsim.comparison.write.save_if_drawn", lambda draw, path: path.write_bytes(b"") == 0)
        yield
