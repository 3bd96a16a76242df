"""Partitioners by path: what they see, what they may not do; those of flwr-datasets stand in tests/ecosystem."""

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsim.config.schema import ConfigError
from flsim.loop.checks import check
from flsim.problems.problem import SPLITS
from flsim.tasks.item import Item
from flsim.tasks.item_table import table_of
from flsim.tasks.partitioner import _spread, by_partitioner
from flsim.tasks.splits import split_items
from flsim.tasks.stream import stream_of
from tests.flsim.tasks.own_sets import config_of, write_sums, write_votes

OWN = '''
class Stretches:
    """Every part is a stretch of the rows."""

    def __init__(self, num_partitions, seed, drop=0):
        self.num_partitions, self.seed, self.drop = num_partitions, seed, drop

    def load_partition(self, part):
        rows = len(self.dataset["item"]) - self.drop
        return self.dataset.select(range(part * rows // self.num_partitions, (part + 1) * rows // self.num_partitions))


class Twice(Stretches):
    def load_partition(self, part):
        return self.dataset.select([0])


class TwiceInOne(Stretches):
    def load_partition(self, part):
        return self.dataset.select([part, part])


class Seven(Stretches):
    def __init__(self):
        super().__init__(7, 0)


class Broken(Stretches):
    def load_partition(self, part):
        return self.dataset["colour"]


class Nothing:
    pass


class VerticalPartitioner(Stretches):
    pass
'''


class Rows(dict[str, list[object]]):
    """As much of `datasets.Dataset` as the partitioners here use."""

    @classmethod
    def from_dict(cls, columns: dict[str, list[object]]) -> "Rows":
        return cls(columns)

    def select(self, places: list[int]) -> "Rows":
        return Rows({name: [values[place] for place in places] for name, values in self.items()})


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The path of a file of partitioners, up to the class, where `datasets` is the class above."""
    module = ModuleType("datasets")
    vars(module)["Dataset"] = Rows
    monkeypatch.setitem(sys.modules, "datasets", module)
    (tmp_path / "mine.py").write_text(OWN)
    return f"{tmp_path / 'mine.py'}:"


def items_of(parts: list[tuple[str, str]]) -> list[Item]:
    return [Item(f"q{n}", "a", label=label, split=split) for n, (label, split) in enumerate(parts)]


PARTS = st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from(SPLITS)), min_size=1, max_size=60)


@given(PARTS, st.integers(0, 3))
def test_splits_are_spread_evenly_within_a_label(parts: list[tuple[str, str]], seed: int) -> None:
    """Of the first rows of a label, each split has its share, up to one item; the order of files does not matter."""
    items = items_of(parts)
    splits = split_items(items)
    order = _spread(table_of(items), splits, "label", seed)
    assert sorted(order.tolist()) == list(range(len(items)))
    for label in "xyz":
        mine = [splits[place] for place in order.tolist() if items[place].label == label]
        for split in range(len(SPLITS)):
            share = mine.count(split) / max(len(mine), 1)
            first = np.cumsum([own == split for own in mine])
            assert (np.abs(first - share * np.arange(1, len(mine) + 1)) <= len(SPLITS)).all()
    back = items[::-1]
    again = _spread(table_of(back), splits[::-1], "label", seed)
    assert [back[place].question for place in again] == [items[place].question for place in order]


def test_an_order_by_hand() -> None:
    """Two to train and one to test: at 1/4, 1/2 and 3/4."""
    items = items_of([("x", "test"), ("x", "train"), ("x", "train")])
    order = _spread(table_of(items), split_items(items), "label", 0)
    assert [items[place].split for place in order] == ["train", "test", "train"]


def test_a_partitioner_of_ones_own_deals(own: str) -> None:
    """12 items of two labels and three splits, in three stretches of four: each holds 2 to train, 1 and 1."""
    items = items_of([("x", split) for split in ["train"] * 6 + ["validation"] * 3 + ["test"] * 3])
    found = by_partitioner(items, split_items(items), path=own + "Stretches", settings={}, devices=3)
    assert found.names == ("device-000", "device-001", "device-002")
    assert [[len(found.own(device, split)) for split in SPLITS] for device in range(3)] == [[2, 1, 1]] * 3
    less = by_partitioner(items, split_items(items), path=own + "Stretches", settings={"drop": 3}, devices=3)
    assert (less.device == -1).sum() == 3


def test_a_config_names_it(own: str, tmp_path: Path) -> None:
    """And the draw follows `stream.seed`; the same config gives the same deal."""
    write_votes(write_sums(tmp_path))

    def held(*more: str) -> list[str]:
        (task,) = stream_of(config_of(tmp_path, f"data.sums.partition={own}Stretches", *more, phases="[[sums]]")).data
        return [item.question for item in task.source.all(0, "train")]

    assert held() == held()
    assert held() != held("stream.seed=1")
    assert held("data.sums.partition_settings.drop=200") != held()


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("Twice", {}, "gives an item to two devices, or twice to one"),
        ("TwiceInOne", {}, "gives an item to two devices, or twice to one"),
        ("Seven", {}, r"makes 7 parts of these items, and there are 3 devices; set fleet\.devices=7"),
        ("Broken", {}, r"cannot deal these 9 items .* \(KeyError: 'colour'\); it sees the columns item, split, label"),
        ("Nothing", {}, "is no partitioner, as it lacks load_partition"),
        ("VerticalPartitioner", {}, "deals the columns of a row to several devices"),
        ("Stretches", {"dorp": 1}, "cannot take the settings of partition_settings: .*did you mean drop"),
        ("Unknown", {}, "has no 'Unknown'; it defines: Stretches"),
    ],
)
def test_what_a_partitioner_may_not_do(own: str, name: str, settings: dict[str, int], message: str) -> None:
    items = items_of([("x", "train")] * 9)
    with pytest.raises(ConfigError, match=message):
        by_partitioner(items, split_items(items), path=own + name, settings=settings, devices=3)


def test_wrong_settings_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_votes(write_sums(tmp_path))
    with pytest.raises(ConfigError, match=r"partition_settings=.*has no effect with partition=dirichlet"):
        check(config_of(tmp_path, "data.sums.partition_settings.alpha=1"))
    with pytest.raises(ConfigError, match=r"alpha=2\.0 has no effect with partition=flwr_.*belongs to dirichlet"):
        check(config_of(tmp_path, "data.sums.partition=flwr_datasets.partitioner:IidPartitioner", "data.sums.alpha=2"))
    with pytest.raises(ConfigError, match=r"'iid' is not known; choose .*or give a path, such as flwr_datasets"):
        check(config_of(tmp_path, "data.sums.partition=iid"))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        ConfigError, match=r"data\.sums: partition='flwr_.*needs the package datasets .*\[partitioners\]"
    ):
        stream_of(config_of(tmp_path, "data.sums.partition=flwr_datasets.partitioner:IidPartitioner"))
