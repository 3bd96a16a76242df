"""Whole runs of devices that ask by a benefit head and learn what they buy: on any engine, stopped, saved, measured."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from peft import PeftModel
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM

import flsim
from clients.device.head import WEIGHT
from experiments.real.checkpoint import write_checkpoint
from flsim.config.load import load_config
from flsim.config.schema import Config, ConfigError
from flsim.loop.checkpoints import latest_checkpoint
from flsim.metrics.rows import without_timing
from flsim.models.adapter import HEAD, Adapter, extras_of
from tests.kept import states_of
from tests.tiny import TinyRun, without_report

pytestmark = pytest.mark.usefixtures("no_report", "one_thread")

HEADED = ("client.path=clients.da_grpo:DaGrpo", "client.policy=head", "client.group_size=4", "client.lr=0.01")
BOUGHT = ("client.imitate=1", "client.replay=6", "client.replay_share=0.5")
CALIBRATED = "client.asking={path: 'clients.asking.policy:OwnCalibrated', calibration: 4}"
TINY = (
    "rounds=3",
    "fleet.devices=3",
    "evaluation.prompts_per_task=4",
    "evaluation.every_rounds=1",
    "engine.pack=2",
    "strategy.path=strategies.fedavg:FedAvg",
    "client.steps=2",
    "budget.tau=0.4",
    *HEADED,
    *BOUGHT,
)


def go(config: Config, **more: object) -> flsim.Run:
    return flsim.run(config, progress=False, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def finished(tiny_runs: TinyRun) -> flsim.Run:
    with without_report():
        return go(tiny_runs("whole", CALIBRATED))


def server_adapter(folder: Path) -> Adapter:
    checkpoint = latest_checkpoint(folder)
    assert checkpoint is not None
    return checkpoint.adapter


def assert_equal_runs(one: flsim.Run, other: flsim.Run) -> None:
    pd.testing.assert_frame_equal(without_timing(one.rows), without_timing(other.rows), check_exact=True)
    assert states_of(one.folder) == states_of(other.folder)
    mine, theirs = server_adapter(one.folder), server_adapter(other.folder)
    assert {name: tensor.tobytes() for name, tensor in mine.items()} == {n: t.tobytes() for n, t in theirs.items()}


def total(rows: pd.DataFrame, name: str) -> float:
    return float(rows[rows["name"] == name]["total"].sum())


def test_the_head_moves_is_federated_and_saved(finished: flsim.Run, tiny_checkpoint: Path) -> None:
    """The mean of what devices learned, with the adapter of the folder, which peft opens as ever."""
    server = server_adapter(finished.folder)
    head = extras_of(server)[WEIGHT]
    assert head.shape == (2, 8 + 32)
    assert np.abs(head).min() > 0  # both rows and all features
    assert np.array_equal(load_file(finished.folder / "adapter" / HEAD)[WEIGHT], head)
    assert not (finished.rows["name"] == "set_aside").any()
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_checkpoint), str(finished.folder / "adapter"))


def test_what_a_head_claims_is_measured(finished: flsim.Run) -> None:
    """The claims of being wrong alone lie in every tenth that they fall into, and say what the rows of a run say."""
    rows = finished.rows
    tests = rows[(rows["split"] == "test") & (rows["model"] == "global") & (rows["round"] == 3)]
    claimed = tests[tests["name"].str.startswith("claimed_")]
    assert claimed["weight"].sum() == 3 * 4
    assert 0 < claimed["total"].sum() < claimed["weight"].sum()
    assert total(tests, "cloud_grants") > 0
    first = rows[(rows["round"] == 0) & rows["name"].str.startswith("claimed_") & (rows["weight"] > 0)]
    assert set(first["total"] / first["weight"]) == {0.5}  # as the first head has it
    train = rows[rows["split"] == "train"]
    assert total(train, "cloud_calls") > 0


def test_a_stopped_run_goes_on_as_if_it_had_not_been(finished: flsim.Run, tiny_runs: TinyRun) -> None:
    """Also the answers that devices keep, from which they learn again."""
    config = tiny_runs("parts", CALIBRATED)
    go(config, until=1)
    for until in (2, None):
        parts = go(config, resume=config.folder, until=until)
    assert_equal_runs(finished, parts)


@pytest.mark.parametrize("pack", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_the_size_of_a_pack_changes_no_count(finished: flsim.Run, tiny_runs: TinyRun, pack: int) -> None:
    """Last bits of log-probabilities may differ, and nothing that is counted."""
    other = go(tiny_runs(f"pack-{pack}", CALIBRATED, f"engine.pack={pack}"))
    whole = {"accuracy", "alone_accuracy", "cloud_requests", "cloud_grants", "cloud_calls", "reward", "alone_reward"}
    ours, theirs = (without_timing(run.rows) for run in (finished, other))
    counted = ours["name"].isin(whole)
    pd.testing.assert_frame_equal(ours[counted], theirs[counted], check_exact=True)
    np.testing.assert_allclose(ours[~counted]["total"], theirs[~counted]["total"], rtol=1e-2, atol=1e-3)
    for name, tensor in server_adapter(finished.folder).items():
        assert np.abs(server_adapter(other.folder)[name] - tensor).max() < 5e-3


@pytest.mark.slow
def test_ray_gives_the_bits_of_this_process(one_ray: None, finished: flsim.Run, tiny_runs: TinyRun) -> None:
    there = go(tiny_runs("ray", CALIBRATED, "engine.kind=ray", "engine.workers=2"))
    assert_equal_runs(finished, there)


@pytest.mark.parametrize(
    "more",
    [
        pytest.param(("client.asking={path: 'clients.asking.policy:Own'}",), id="own"),
        pytest.param(
            (CALIBRATED, "client.credit=kept", "client.head_gradient=0.1", "client.alone_share=0.5"), id="kept"
        ),
        pytest.param(
            (CALIBRATED, "client.head_features=numbers", "budget.fleet.division=price", "budget.fleet.calls_total=40"),
            marks=pytest.mark.slow,
            id="a price of the fleet",
        ),
    ],
)
def test_other_forms_run(tiny_run: TinyRun, more: tuple[str, ...]) -> None:
    """Twice the same, and it asks and learns."""
    short = ("rounds=2", "evaluation.every_rounds=2", *more)
    runs = [go(tiny_run(name, *short)) for name in ("one", "again")]
    assert_equal_runs(*runs)
    assert total(runs[0].rows, "cloud_calls") > 0
    assert not (runs[0].rows["name"] == "set_aside").any()


@pytest.mark.parametrize("family", ["qwen2", pytest.param("gemma2", marks=pytest.mark.slow)])
def test_a_checkpoint_that_is_not_built_in(family: str, tmp_path: Path) -> None:
    """Responses too short for any request in words: a head needs none."""
    folder = write_checkpoint(tmp_path / family, family, spread=0.05)
    given = [f"model.path={folder}", "model.rank=2", "model.offer=", "model.max_new_tokens=5", *HEADED, *BOUGHT]
    given += ["rounds=2", "fleet.devices=2", "stream.phases=[[arithmetic]]", "evaluation.every_rounds=2"]
    given += ["evaluation.prompts_per_task=3", "cloud.kind=oracle", "cloud.oracle_error=0", "engine.kind=local"]
    given += ["client.steps=1", "client.prompts=3", "budget.tau=0.5", f"run_dir={tmp_path / 'run'}"]
    run = go(load_config(None, given))
    head = extras_of(server_adapter(run.folder))[WEIGHT]
    assert np.abs(head).min() > 0
    assert total(run.rows, "cloud_calls") > 0
    assert not (run.rows["name"] == "set_aside").any()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("client.policy=heads", "policy='heads' must be one of: head, token"),
        ("client.head_rate=0", "head_rate=0 and head_temperature"),
        ("client.imitate=-1", "imitate=-1 must be finite"),
        ("client.dual_bias=2", "dual_bias=2 has no effect with policy=head"),
        ("client.head_rates=3", r"there is no setting head_rates \(did you mean head_rate\?\)"),
    ],
)
def test_bad_settings_are_refused_before_the_run(tiny_run: TinyRun, setting: str, message: str) -> None:
    config = tiny_run("refused", setting)
    with pytest.raises(ConfigError, match=message) as refused:
        go(config)
    assert "\n" not in str(refused.value)
    assert not config.folder.exists()
