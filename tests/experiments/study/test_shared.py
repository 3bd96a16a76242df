"""One training for several rules: what may share one, and that its runs are those of the same settings alone."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

import flsim
from experiments.study.plan import plan_of
from experiments.study.shared import FOLDER, Training, trainings_of
from flsim.config.schema import Config
from flsim.metrics.rows import read_rows, without_timing
from tests.tiny import TinyRun

pytestmark = pytest.mark.usefixtures("no_pictures")

SETTINGS = """
rounds: 3
model: {{path: {checkpoint}, rank: 2}}
stream: {{phases: [[arithmetic, numbers], [strings]]}}
fleet: {{devices: 3}}
budget: {{tau: 0.5}}
cloud: {{kind: oracle}}
engine: {{pack: 2}}
evaluation: {{every_rounds: 2, prompts_per_task: 3}}
client: {{steps: 1, prompts: 2, group_size: 2, max_new_tokens: 3}}
"""
RULES = "grpo,grpo+random,grpo+confidence,grpo+classifier,grpo+oracle"


@pytest.fixture
def tiny(tiny_checkpoint: Path, tmp_path: Path) -> str:
    file = tmp_path / "tiny.yaml"
    file.write_text(SETTINGS.format(checkpoint=tiny_checkpoint))
    return str(file)


def configs_of(tiny: str, root: Path, *arguments: str) -> list[Config]:
    return [run.config for run in plan_of(tiny, arguments, root)]


def assert_same_as_alone(config: Config, alone: Path) -> pd.DataFrame:
    """Every row but times, bit for bit, and what the summary says of the end."""
    flsim.run(replace(config, run_dir=str(alone / config.folder.name)), progress=False)
    rows = without_timing(read_rows(config.folder))
    expected = without_timing(read_rows(alone / config.folder.name))
    pd.testing.assert_frame_equal(rows, expected, check_exact=True)
    folders = (config.folder, alone / config.folder.name)
    own, other = (json.loads((folder / "summary.json").read_text()) for folder in folders)
    assert own["at_end"] == other["at_end"]
    return rows


def test_what_differs_in_the_rule_alone_shares_a_training(tiny: str, tmp_path: Path) -> None:
    """Four trainings for eight runs: GRPO and DA-GRPO on two seeds each; another budget is another training."""
    configs = configs_of(tiny, tmp_path, "method=grpo,grpo+random,da_grpo,da_grpo+own_calibrated", "seed=0,1")
    sizes = [[config.folder.name for config in training.configs] for training in trainings_of(configs)]
    assert sizes == [
        [f"{learner}-seed{seed}" for learner in pair]
        for seed in (0, 1)
        for pair in (("grpo", "grpo+random"), ("da_grpo", "da_grpo+own_calibrated"))
    ]
    other = configs_of(tiny, tmp_path, "method=grpo,grpo+random", "seed=0", "budget.tau=0.1,0.2")
    assert [len(training.configs) for training in trainings_of([*configs[:1], *other])] == [1, 2, 2]


def test_what_has_begun_or_looks_at_its_tests_is_trained_alone(tiny: str, tmp_path: Path) -> None:
    (tmp_path / "looks.py").write_text(
        "from strategies.flex_lora import FlexLora\n"
        "class Looks(FlexLora):\n def aggregate_evaluate(self, server_round, replies):\n  self.best = server_round\n"
    )
    looking = f"strategy.path={tmp_path}/looks.py:Looks"
    assert len(trainings_of(configs_of(tiny, tmp_path / "looking", f"method={RULES}", "seed=0", looking))) == 5
    configs = configs_of(tiny, tmp_path / "all", f"method={RULES}", "seed=0")
    configs[1].folder.mkdir(parents=True)
    assert [len(training.configs) for training in trainings_of(configs)] == [4, 1]


@pytest.mark.slow
@pytest.mark.parametrize("methods", ["da_grpo_threshold,da_grpo_threshold+own_calibrated", RULES])
def test_runs_of_one_training_are_those_of_the_same_settings_alone(methods: str, tiny: str, tmp_path: Path) -> None:
    """The tests of the fleet's model, of the devices' own after their steps, and of all references at round 0."""
    (training,) = trainings_of(configs_of(tiny, tmp_path / "all", f"method={methods}", "seed=3"))
    training.run()
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == sorted(
        [FOLDER, *(config.folder.name for config in training.configs)]
    )
    assert not list((tmp_path / "all" / FOLDER).iterdir())
    for config in training.configs:
        rows = assert_same_as_alone(config, tmp_path / "alone")
        assert set(rows["model"]) >= {"global", "own", "frozen", "random", "cloud"}
        assert set(rows.loc[rows["model"] == "own", "round"]) == {1, 2, 3}
        assert (config.folder / "report.html").is_file()


def test_rules_of_unequal_measures_come_out_of_one_training(tiny: str, tmp_path: Path) -> None:
    """A rule that gives chances has rows of its calibration, which asking at random has not."""
    (training,) = trainings_of(configs_of(tiny, tmp_path, "method=grpo+random,grpo+confidence", "seed=0"))
    flsim.run(training.config, client=training._client(), progress=False)
    training._make_folders(training.config.folder)
    counts = [len(read_rows(config.folder)) for config in training.configs]
    assert counts[0] < counts[1]


def test_a_head_beside_lora_goes_into_every_run(tiny_run: TinyRun, tmp_path: Path, no_report: None) -> None:
    path, more = "client.path=tests.strategies.head_learner:WithHead", "client.asking.path=clients.asking.simple"
    (training,) = trainings_of([tiny_run(rule, path, f"{more}:{rule}") for rule in ("Never", "AtRandom")])
    training.run()
    flsim.run(tiny_run("alone", path, f"{more}:AtRandom"), progress=False)
    heads = [load_file(tmp_path / run / "adapter" / "head.safetensors") for run in ("Never", "AtRandom", "alone")]
    for name, tensor in heads[0].items():
        assert all(np.array_equal(tensor, head[name]) for head in heads[1:])
    assert (heads[0]["head.weight"] > 0).all()


@pytest.mark.slow
def test_a_shared_training_goes_on_after_a_stop(tiny: str, tmp_path: Path) -> None:
    (training,) = trainings_of(configs_of(tiny, tmp_path / "all", "method=grpo,grpo+random", "seed=0"))
    flsim.run(training.config, client=training._client(), until=1, progress=False)
    stamp = (training.config.folder / "rows" / "round-00001.parquet").stat().st_mtime_ns
    (again,) = trainings_of(list(training.configs))
    assert again.config == training.config
    assert (again.config.folder / "rows" / "round-00001.parquet").stat().st_mtime_ns == stamp
    again.run()
    assert_same_as_alone(training.configs[1], tmp_path / "alone")


@pytest.mark.slow
@pytest.mark.parametrize("first", [True, False])
def test_a_rule_that_fails_takes_no_other_run_with_it(first: bool, tiny: str, tmp_path: Path) -> None:
    """Its own run is trained alone, and ends as it would without the others: without tests."""
    (tmp_path / "faulty.py").write_text("class Faulty:\n def decide(self, pack):\n  raise ArithmeticError('no luck')\n")
    (tmp_path / "faulty.yaml").write_text(f"client: {{asking: {{path: '{tmp_path}/faulty.py:Faulty'}}}}")
    methods = [f"grpo+{tmp_path}/faulty.yaml", "grpo+random"]
    configs = configs_of(tiny, tmp_path / "all", f"method={','.join(methods if first else methods[::-1])}", "seed=0")
    (training,) = trainings_of(configs)
    training.run()
    healthy = next(config for config in configs if "random" in config.folder.name)
    assert_same_as_alone(healthy, tmp_path / "alone")


def test_a_run_alone_is_no_shared_training(tiny: str, tmp_path: Path) -> None:
    (config,) = configs_of(tiny, tmp_path, "method=grpo", "seed=0")
    assert Training((config,)).config == config
