"""Partitioners of flwr-datasets by path, on real items: their laws, the same deal in every process, and a run."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import flsim
from flsim.config.load import to_yaml
from flsim.config.schema import ConfigError
from flsim.problems.problem import SPLITS
from flsim.tasks.partition import Assignment
from flsim.tasks.partitioner import by_partitioner
from flsim.tasks.splits import split_items
from flsim.tasks.stream import stream_of
from tests.flsim.tasks.own_sets import config_of, write_sums, write_votes
from tests.flsim.tasks.test_partition import some
from tests.tiny import RUN

pytestmark = pytest.mark.ecosystem
pytest.importorskip("flwr_datasets", reason="partitioners are those of flwr-datasets, an extra")

PARTITION = (
    "data.sums.partition=flwr_datasets.partitioner:DirichletPartitioner",
    "data.sums.partition_settings={partition_by: label, alpha: 0.3, min_partition_size: 20}",
)
ITEMS = some([120, 90, 60, 30], users=5)
SPLITS_OF = split_items(ITEMS)


def dealt(name: str, devices: int = 5, seed: int = 0, **settings: Any) -> Assignment:
    path = f"flwr_datasets.partitioner:{name}"
    return by_partitioner(ITEMS, SPLITS_OF, path=path, settings=settings, devices=devices, seed=seed)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("IidPartitioner", {}),
        ("DirichletPartitioner", {"partition_by": "label", "alpha": 5.0, "min_partition_size": 1}),
        ("PathologicalPartitioner", {"partition_by": "label", "num_classes_per_partition": 2}),
        ("ShardPartitioner", {"partition_by": "label", "num_shards_per_partition": 2}),
        ("LinearPartitioner", {}),
        ("SquarePartitioner", {}),
        ("ExponentialPartitioner", {}),
        ("SizePartitioner", {"partition_sizes": [10, 20, 30, 40, 50]}),
        ("ContinuousPartitioner", {"partition_by": "level", "strictness": 0.5}),
        ("NaturalIdPartitioner", {"partition_by": "user"}),
        ("GroupedNaturalIdPartitioner", {"partition_by": "user", "group_size": 1}),
        (
            "InnerDirichletPartitioner",
            {"partition_by": "class", "alpha": 5.0, "partition_sizes": [60, 60, 60, 60, 60]},
        ),
    ],
)
def test_every_partitioner_of_rows_deals_each_item_once(name: str, settings: dict[str, Any]) -> None:
    found = dealt(name, **settings)
    again = dealt(name, **settings)
    assert found.devices == 5
    assert (found.device == again.device).all()
    assert set(found.device.tolist()) <= {-1, *range(5)}
    assert all(len(np.flatnonzero(found.device == device)) for device in range(1, 5))


def test_numbers_by_hand() -> None:
    """A user each: 60 items. Two shards of one label each. Sizes as they were named."""
    users = dealt("NaturalIdPartitioner", partition_by="user")
    for device in range(5):
        mine = np.flatnonzero(users.device == device)
        assert len(mine) == 60
        assert len({ITEMS[index].user for index in mine}) == 1
    few = dealt("PathologicalPartitioner", partition_by="label", num_classes_per_partition=2)
    labels = [{ITEMS[index].label for index in np.flatnonzero(few.device == device)} for device in range(5)]
    assert all(len(own) <= 2 for own in labels)
    sized = dealt("SizePartitioner", partition_sizes=[10, 20, 30, 40, 50])
    assert Counter(sized.device.tolist()) == {0: 10, 1: 20, 2: 30, 3: 40, 4: 50, -1: 150}


def test_devices_are_tested_on_what_they_learn() -> None:
    """Shares of labels in training and tests of a device differ by less than those of two devices do."""
    found = dealt("DirichletPartitioner", partition_by="label", alpha=0.5, min_partition_size=1, devices=4)

    def shares(device: int, split: str) -> np.ndarray[Any, Any]:
        counts = Counter(ITEMS[index].label for index in found.own(device, split))
        whole = np.array([counts[f"l{label}"] for label in range(4)], dtype=float)
        return np.asarray(whole / max(whole.sum(), 1))

    def far(one: tuple[int, str], other: tuple[int, str]) -> float:
        return float(np.abs(shares(*one) - shares(*other)).sum() / 2)

    within = np.mean([far((device, "train"), (device, "test")) for device in range(4)])
    between = np.mean([far((a, "train"), (b, "train")) for a in range(4) for b in range(4) if a != b])
    assert within < between / 2


def test_the_seed_is_of_the_stream() -> None:
    one, two = (
        dealt("DirichletPartitioner", seed=seed, partition_by="label", alpha=1.0, min_partition_size=0)
        for seed in (0, 1)
    )
    assert (one.device != two.device).any()


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("DirichletPartitioner", {"alpha": 1.0}, "cannot take the settings .*'partition_by'; it takes: num_partitions"),
        (
            "DirichletPartitioner",
            {"partition_by": "mood", "alpha": 1.0},
            "cannot deal .*it sees the columns item, split",
        ),
        (
            "DirichletPartitioner",
            {"partition_by": "label", "alpha": 0.01, "min_partition_size": 60},
            r"The max number of attempts \(10\) was reached",
        ),
        ("NaturalIdPartitioner", {"partition_by": "label"}, "makes 4 parts of these items, and there are 5 devices"),
        ("VerticalEvenPartitioner", {}, "deals the columns of a row"),
        ("DirichletPartitoner", {}, "did you mean DirichletPartitioner"),
    ],
)
def test_refusals(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dealt(name, **settings)


def test_every_process_deals_alike(tmp_path: Path) -> None:
    """As workers do: another process, whose hashes of texts are others, finds the same items with every device."""
    config = config_of(write_votes(write_sums(tmp_path)), *PARTITION, phases="[[sums]]")
    (task,) = stream_of(config).data
    (tmp_path / "whole.yaml").write_text(to_yaml(config))
    code = (
        "import sys; from flsim.config.load import load_config; from flsim.tasks.stream import stream_of; "
        "print(stream_of(load_config(sys.argv[1])).data[0].source.fingerprint)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "whole.yaml")]
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    said = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    assert said.strip() == task.source.fingerprint


def test_a_run_deals_by_it_and_draws_the_partition(tiny_checkpoint: Path, tmp_path: Path, one_thread: None) -> None:
    own = config_of(write_votes(write_sums(tmp_path)), phases="[[sums]]")
    (tmp_path / "sums.yaml").write_text(to_yaml(own))
    more = [*RUN, "stream.phases=[[sums]]", "client.path=clients.sft:Sft", *PARTITION, f"model.path={tiny_checkpoint}"]
    flsim.run(flsim.load_config(tmp_path / "sums.yaml", [*more, f"run_dir={tmp_path / 'run'}"]), progress=False)
    folder = tmp_path / "run" / "partitions" / "sums"
    said = json.loads((folder / "figures.json").read_text())
    assert said["over"] == "label"
    assert said["rule"] == "dealt by DirichletPartitioner, alpha 0.3, min_partition_size 20, partition_by label"
    assert (folder / "partition.png").stat().st_size > 10_000
    table = pd.read_parquet(folder / "partition.parquet")
    assert table["items"].sum() == said["items"] == 390
    assert set(table["label"]) == {"even", "odd"}
    assert set(table["split"]) == set(SPLITS)
