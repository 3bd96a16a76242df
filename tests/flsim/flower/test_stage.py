"""A stage of one's own, as docs/distillation.md writes it: with any strategy, what it changes, what is kept of it."""

import re
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flsim
from flsim.config.load import load_config
from flsim.config.schema import Config
from flsim.loop.checkpoints import latest_checkpoint

DOC = Path(__file__).parents[3] / "docs" / "distillation.md"


@pytest.fixture
def config(tiny_checkpoint: Path, tmp_path: Path) -> Config:
    tiny = ["rounds=2", "fleet.devices=2", "stream.phases=[[arithmetic]]", "evaluation.every_rounds=9", "model.rank=2"]
    client = [f"client.{key}" for key in ("steps=1", "prompts=2", "group_size=2", "max_new_tokens=3")]
    more = ["cloud.kind=oracle", "engine.kind=local", "evaluation.prompts_per_task=1", f"model.path={tiny_checkpoint}"]
    strategy = "strategy.path=flwr.serverapp.strategy:FedAvg"
    return load_config(None, [*tiny, *client, *more, strategy, f"run_dir={tmp_path / 'run'}"])


def shrink() -> Any:
    """The class of the page's last example."""
    code = re.findall(r"```python\n(.*?)```", DOC.read_text(), re.DOTALL)[-1]
    names: dict[str, Any] = {}
    exec(code, names)
    return names["Shrink"]


def test_the_example_of_the_page_shrinks_what_the_strategy_leaves(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flsim.report.finish.finish_run", lambda folder, **more: {})
    run = flsim.run(config, server=shrink()(by=1.0), progress=False)
    kept = latest_checkpoint(run.folder)
    assert kept is not None
    assert kept.server == {"by": 1.0}
    assert all(np.count_nonzero(tensor) == 0 for tensor in kept.adapter.values())
    assert run.rows[run.rows["name"] == "shrunk_by"]["round"].tolist() == [1, 2]


def test_cached_properties_are_not_kept(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flsim.report.finish.finish_run", lambda folder, **more: {})

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
    run = flsim.run(config, server=stage, progress=False)
    kept = latest_checkpoint(run.folder)
    assert kept is not None
    assert kept.server == {"by": 0.01, "rounds": 2}
    assert "model" in vars(stage)
