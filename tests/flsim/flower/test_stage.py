"""A stage of one's own, as docs/distillation.md writes it: with any strategy, what it changes, what is kept of it."""

import re
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flsim
from flsim.config.schema import Config
from flsim.loop.checkpoints import latest_checkpoint
from tests.tiny import TinyRun

pytestmark = pytest.mark.usefixtures("no_report")

TINY = ("evaluation.every_rounds=9", "evaluation.prompts_per_task=1", "client.prompts=2", "client.group_size=2")
DOC = Path(__file__).parents[3] / "docs" / "distillation.md"


@pytest.fixture
def config(tiny_run: TinyRun) -> Config:
    return tiny_run("run", "strategy.path=flwr.serverapp.strategy:FedAvg")


def shrink() -> Any:
    """The class of the page's last example."""
    code = re.findall(r"```python\n(.*?)```", DOC.read_text(), re.DOTALL)[-1]
    names: dict[str, Any] = {}
    exec(code, names)
    return names["Shrink"]


def test_the_example_of_the_page_shrinks_what_the_strategy_leaves(config: Config) -> None:
    run = flsim.run(config, stage=shrink()(by=1.0), progress=False)
    kept = latest_checkpoint(run.folder)
    assert kept is not None
    assert kept.stage == {"by": 1.0}
    assert all(np.count_nonzero(tensor) == 0 for tensor in kept.adapter.values())
    assert run.rows[run.rows["name"] == "shrunk_by"]["round"].tolist() == [1, 2]


def test_cached_properties_are_not_kept(config: Config) -> None:

    class Heavy(shrink()):  # type: ignore[misc]
        rounds = 0

        @cached_property
        def model(self) -> object:
            return lambda: None

        def after_round(self, *parts: Any) -> Any:
            assert self.model
            self.rounds += 1
            return super().after_round(*parts)

    stage = Heavy()
    run = flsim.run(config, stage=stage, progress=False)
    kept = latest_checkpoint(run.folder)
    assert kept is not None
    assert kept.stage == {"by": 0.01, "rounds": 2}
    assert "model" in vars(stage)
