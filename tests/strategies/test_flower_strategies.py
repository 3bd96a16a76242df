"""Flower's own strategies run unchanged: same rows twice, sampling by the run's seed, moments across a resume."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from flwr.app import ArrayRecord, Context, Message, MetricRecord
from flwr.serverapp.strategy import FedAdam, FedAvg, FedProx, Strategy

import strategies.fedavg
from clients.app import DeviceApp
from clients.da_grpo import client_app
from flsim.checkpoints import latest_checkpoint
from flsim.config import Config
from flsim.config_files import load_config
from flsim.messages import device_of, round_of
from flsim.metrics.rows import without_timing
from flsim.models.adapter import Adapter
from flsim.simulation import run
from flsim.tasks.stream import device_name
from flsim.world import first_adapter

Settings = Callable[..., Config]


@pytest.fixture
def settings(tiny_checkpoint: Path, tmp_path: Path) -> Settings:
    """A config of four devices and two rounds, as small as it gets; its folder is `tmp_path / name`."""

    def make(name: str, *more: str) -> Config:
        tiny = [
            f"run_dir={tmp_path / name}",
            f"model.path={tiny_checkpoint}",
            "model.rank=2",
            "rounds=2",
            "stream.phases=[[arithmetic]]",
            "fleet.devices=4",
            "cloud.kind=oracle",
            "evaluation.every_rounds=2",
            "evaluation.prompts_per_task=4",
            "engine.kind=local",
            "engine.pack=2",
            *(f"client.{key}" for key in ("steps=1", "prompts=3", "group_size=4", "max_new_tokens=4", "lr=0.01")),
        ]
        return load_config(None, [*tiny, *more])

    return make


def rows_of(config: Config, strategy: Strategy) -> pd.DataFrame:
    return without_timing(run(config, strategy=strategy, progress=False).rows)


def adapter_of(folder: Path) -> Adapter:
    checkpoint = latest_checkpoint(folder)
    assert checkpoint is not None
    return checkpoint.adapter


def cohorts(rows: pd.DataFrame) -> list[list[str]]:
    """Who was sent the adapter, by round."""
    sent = rows[rows["name"] == "downlink_bytes"]
    return [sorted(sent[sent["round"] == round_]["device"]) for round_ in (1, 2)]


@pytest.mark.parametrize("kind", [FedAvg, FedAdam])
def test_it_runs_and_gives_identical_rows_twice(settings: Settings, tmp_path: Path, kind: type[Strategy]) -> None:
    rows = rows_of(settings("one"), kind())
    pd.testing.assert_frame_equal(rows, rows_of(settings("two"), kind()), check_exact=True)
    assert set(rows["round"]) == {0, 1, 2}
    assert cohorts(rows) == [[f"device-{d:03d}" for d in range(4)]] * 2
    assert not (rows["name"] == "set_aside").any()
    start = first_adapter(settings("three"))
    assert any(not np.array_equal(start[name], tensor) for name, tensor in adapter_of(tmp_path / "one").items())


class Recording(FedAvg):
    """Notes which devices' replies it is given, in which order."""

    def __init__(self) -> None:
        super().__init__(fraction_train=0.5)
        self.given: list[list[int]] = []

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        replies = list(replies)
        self.given.append([device_of(reply) for reply in replies])
        return super().aggregate_train(server_round, replies)


def test_half_a_fleet_is_the_same_half_in_two_runs_and_another_in_each_round(settings: Settings) -> None:
    """It samples in random order; the replies are sorted all the same, so that its sums do not depend on that."""
    recording = Recording()
    one = cohorts(rows_of(settings("one", "fleet.devices=8"), recording))
    two = cohorts(rows_of(settings("two", "fleet.devices=8"), FedAvg(fraction_train=0.5)))
    assert [len(members) for members in one] == [4, 4]
    assert one == two
    assert one[0] != one[1]
    assert [[device_name(device) for device in devices] for devices in recording.given] == one


def test_a_stock_strategy_samples_within_the_cohort(settings: Settings) -> None:
    """A cohort of 3 out of 4; FedProx, another stock strategy, sends to all it sees, that is to 3."""
    rows = rows_of(settings("one", "fleet.cohort=3"), FedProx(proximal_mu=0.1))
    assert [len(members) for members in cohorts(rows)] == [3, 3]
    evaluated = rows[(rows["split"] == "test") & (rows["model"] == "global") & (rows["round"] == 2)]
    assert set(evaluated["device"]) == {f"device-{d:03d}" for d in range(4)}  # the whole fleet all the same


def test_flowers_fedavg_and_ours_agree(settings: Settings, tmp_path: Path) -> None:
    """After one round: the same replies, averaged in float32 there and in float64 here."""
    for name, strategy in (("theirs", FedAvg()), ("ours", strategies.fedavg.FedAvg())):
        rows_of(settings(name, "rounds=1"), strategy)
    ours = adapter_of(tmp_path / "ours")
    for name, tensor in adapter_of(tmp_path / "theirs").items():
        np.testing.assert_allclose(ours[name], tensor, rtol=0, atol=2e-7)


class Interrupted(DeviceApp):
    """DA-GRPO until round 2, in which somebody presses Ctrl-C."""

    def answer(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        if round_of(messages[0]) == 2:
            raise KeyboardInterrupt
        return super().answer(messages, contexts)


def test_fedadam_keeps_its_moments_across_a_resume(settings: Settings, tmp_path: Path) -> None:
    whole = rows_of(settings("whole"), FedAdam())
    config = settings("stopped")
    algorithm = client_app(config, **{k: v for k, v in config.client.items() if k != "path"}).algorithm
    with pytest.raises(KeyboardInterrupt):
        run(config, strategy=FedAdam(), client=Interrupted(config, algorithm), progress=False)
    resumed = run(config, strategy=FedAdam(), resume=config.folder, progress=False)
    pd.testing.assert_frame_equal(without_timing(resumed.rows), whole, check_exact=True)
    expected = adapter_of(tmp_path / "whole")
    assert {n: t.tobytes() for n, t in adapter_of(tmp_path / "stopped").items()} == {
        n: t.tobytes() for n, t in expected.items()
    }
