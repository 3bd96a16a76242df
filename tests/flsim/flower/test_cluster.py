"""Joining Ray: GPU shares, what is refused with which words, and a real cluster joined by its address."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from ray import cloudpickle
from ray.cluster_utils import Cluster

import flsim.flower.messages as wire
from flsim.config.schema import ConfigError, EngineConfig
from flsim.flower import cluster
from flsim.flower.arrays import to_arrays
from flsim.flower.grid import store_in
from flsim.flower.ray_grid import RayGrid
from flsim.flower.store import DeviceStore
from strategies.fedavg import FedAvg

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers need not find the tests


@pytest.mark.parametrize(
    ("workers", "gpus", "share", "whole"),
    [
        (5, 0.0, 0.0, 0),
        (4, 0.25, 0.25, 1),
        (5, 0.25, 0.25, 2),
        (3, 1 / 3, 0.3333, 1),
        (3, 0.334, 0.3333, 1),  # three times 0.334 would not fit on one GPU
        (2, 2.0, 2.0, 4),
    ],
)
def test_shares_fit_on_whole_gpus(workers: int, gpus: float, share: float, whole: int) -> None:
    """Half a GPU here and half there is no GPU for a worker: shares are counted GPU by GPU."""
    assert cluster.share_of(gpus) == share
    assert cluster.gpus_for(workers, gpus) == whole
    assert 0 < gpus < 1 or share == gpus
    assert share * round(1 / share) <= 1 if 0 < share < 1 else True


def test_more_gpus_than_the_machine_has_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    cluster.check_gpus(EngineConfig(workers=2, gpus=0.5))
    with pytest.raises(ConfigError, match=r"engine.workers=3 with engine.gpus=0.5 need 2 GPUs, this machine has 1"):
        cluster.check_gpus(EngineConfig(workers=3, gpus=0.5))
    cluster.check_gpus(EngineConfig(workers=3, gpus=0.5, address="auto"))  # a cluster is asked when it is joined


@dataclass(frozen=True)
class Blind(DeviceStore):
    """A store on a folder that workers do not share."""

    def finds_token(self, token: str) -> bool:
        return False


def app() -> ClientApp:
    """Adds its index to the adapter, and counts its rounds."""
    client = ClientApp()

    @client.train()
    def train(message: Message, context: Context) -> Message:
        device = int(context.node_config["partition-id"])
        rounds = context.state.metric_records.get("memory", MetricRecord({"rounds": 0}))["rounds"]
        assert isinstance(rounds, int)
        context.state["memory"] = MetricRecord({"rounds": rounds + 1})
        new = {name: tensor + np.float32(device) for name, tensor in wire.adapter_of(message).items()}
        metrics = MetricRecord({"num-examples": rounds + 1})
        return Message(RecordDict({"arrays": to_arrays(new), "metrics": metrics}), reply_to=message)

    return client


@pytest.fixture(scope="module")
def running() -> Iterator[Cluster]:
    """A cluster of two nodes with a CPU each, as a batch system would have started it."""
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    nodes.add_node(num_cpus=1)
    yield nodes
    ray.shutdown()
    nodes.shutdown()


@pytest.mark.slow
def test_a_running_cluster_is_joined_by_its_address_and_left_running(running: Cluster, tmp_path: Path) -> None:
    """Two workers on two nodes; FedAvg's mean of the deltas 0, 1, 2, 3 is 1.5, in each of two runs after each other."""
    for number in (1, 2):
        with RayGrid(app(), store_in(tmp_path / str(number)), 4, 1, workers=2, address=running.address) as grid:
            for round_ in (1, 2):
                strategy = FedAvg()
                start = to_arrays({"w": np.zeros((2, 3), dtype=np.float32)})
                sent = list(strategy.configure_train(round_, start, ConfigRecord(), grid))
                replies, total = grid.send_and_sum(sent, strategy.streamed_weight)
                assert [wire.measures_of(reply).num_examples for reply in replies] == [round_] * 4
                assert total.mean()["w"].tolist() == [[1.5] * 3] * 2
        assert not ray.is_initialized()
        assert list((tmp_path / str(number) / "devices").glob(".token")) == []


@pytest.mark.slow
def test_workers_that_do_not_see_the_runs_folder_are_named(running: Cluster, tmp_path: Path) -> None:
    grid = RayGrid(app(), Blind(tmp_path), 4, 1, workers=2, address=running.address)
    with pytest.raises(ConfigError, match="do not see the run's folder") as caught:
        grid.__enter__()
    assert str(tmp_path) in str(caught.value)
    assert "choose a run_dir on a file system that all nodes share" in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert not ray.is_initialized()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("workers", "gpus", "message"),
    [
        (3, 0.0, "need 3 CPUs and 0 GPUs, the Ray cluster has 2 and 0"),
        (2, 0.5, "need 2 CPUs and 1 GPUs, the Ray cluster has 2 and 0"),
    ],
)
def test_a_cluster_that_is_too_small_is_an_error_and_not_a_hang(
    running: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, gpus: float, message: str
) -> None:
    monkeypatch.setattr(cluster, "_OFFER_S", 0.2)
    grid = RayGrid(app(), DeviceStore(tmp_path), 4, 1, workers=workers, address=running.address, gpus=gpus)
    with pytest.raises(ConfigError, match=message):
        grid.__enter__()
    assert not ray.is_initialized()


@pytest.mark.slow
def test_a_cluster_whose_cpus_others_hold_is_an_error_and_not_a_hang(
    running: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RayGrid(app(), DeviceStore(tmp_path / "other"), 4, 1, workers=2, address=running.address):
        monkeypatch.setattr(cluster, "_READY_S", 2.0)
        with pytest.raises(ConfigError, match=r"2 of engine\.workers=2 did not start within 2 s; free .* are 0 CPUs"):
            RayGrid(app(), DeviceStore(tmp_path / "own"), 4, 1, workers=2, address=running.address).__enter__()


def test_an_address_without_a_cluster_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"engine\.address='127\.0\.0\.1:9'.*ray start --head"):
        RayGrid(app(), DeviceStore(tmp_path), 4, 1, workers=1, address="127.0.0.1:9").__enter__()
