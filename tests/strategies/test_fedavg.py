"""FedAvg: laws, one number by hand, and Flower's own FedAvg on the same replies."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg as FlowerFedAvg
from flwr.serverapp.strategy import Strategy
from hypothesis import given
from hypothesis import strategies as st

import flsim.flower.messages as wire
from flsim.flower.arrays import to_adapter, to_arrays
from flsim.flower.grid import LocalGrid
from flsim.flower.messages import DeviceUpdate
from flsim.flower.store import DeviceStore
from flsim.models.adapter import Adapter
from strategies.base import Update
from strategies.fedavg import FedAvg

SHAPES = {"a": (2, 3), "b": (4, 2)}


def draw(seed: int) -> Adapter:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def update(device: int, delta: Adapter, count: int, reward: float) -> Update:
    """Of a device that started from zero, so that its adapter is its delta."""
    return Update(device, count, count, reward, {name: np.zeros_like(t) for name, t in delta.items()}, delta)


def updates(counts: Sequence[int]) -> list[Update]:
    return [update(device, draw(device + 1), count, 0.5) for device, count in enumerate(counts)]


def distance(one: Adapter, other: Adapter) -> float:
    assert one.keys() == other.keys()
    return max(float(np.abs(one[name].astype(np.float64) - other[name]).max()) for name in one)


COUNTS = st.lists(st.integers(1, 50), min_size=1, max_size=6)


@given(counts=COUNTS, seed=st.integers(0, 9))
def test_the_order_of_the_devices_changes_nothing_but_the_last_bit(counts: list[int], seed: int) -> None:
    given_ = updates(counts)
    shuffled = [given_[place] for place in np.random.default_rng(seed).permutation(len(given_))]
    assert distance(FedAvg().aggregate(draw(0), given_), FedAvg().aggregate(draw(0), shuffled)) <= 3e-7


@given(counts=COUNTS, factor=st.integers(2, 1000))
def test_only_the_ratio_of_the_weights_counts(counts: list[int], factor: int) -> None:
    scaled = updates([count * factor for count in counts])
    assert distance(FedAvg().aggregate(draw(0), updates(counts)), FedAvg().aggregate(draw(0), scaled)) <= 3e-7


@given(counts=COUNTS)
def test_equal_devices_give_their_own_adapter(counts: list[int]) -> None:
    same = [update(device, draw(9), count, 0.0) for device, count in enumerate(counts)]
    expected = {name: tensor + draw(9)[name] for name, tensor in draw(0).items()}
    assert distance(FedAvg().aggregate(draw(0), same), expected) <= 5e-7


def test_a_device_without_examples_has_no_say() -> None:
    """However large its delta."""
    silent = update(7, {name: np.full(shape, 1e30, dtype=np.float32) for name, shape in SHAPES.items()}, 0, 0.0)
    assert (
        distance(FedAvg().aggregate(draw(0), [*updates([3, 4]), silent]), FedAvg().aggregate(draw(0), updates([3, 4])))
        == 0
    )


def test_no_examples_at_all_leave_the_adapter_as_it_is() -> None:
    start = draw(0)
    result = FedAvg().aggregate(start, updates([0, 0]))
    assert {name: tensor.tobytes() for name, tensor in result.items()} == {n: t.tobytes() for n, t in draw(0).items()}


def test_the_arguments_are_not_changed_and_the_result_is_float32() -> None:
    start, received = draw(0), updates([1, 2])
    result = FedAvg().aggregate(start, received)
    assert distance(start, draw(0)) == 0
    assert distance(received[1].delta, draw(2)) == 0
    assert {name: (t.dtype, t.shape) for name, t in result.items()} == {
        n: (np.dtype("float32"), s) for n, s in SHAPES.items()
    }


def test_one_number_by_hand() -> None:
    """Start 10; delta 1 of 3 examples and delta 5 of 1: the mean is (3 * 1 + 1 * 5) / 4 = 2, half of it 1.

    So the next adapter is 10 + 2 = 12, and 10 + 0.5 * 2 = 11 with a server learning rate of one half.
    """
    start = {"w": np.array([10.0], dtype=np.float32)}
    received = [
        update(device, {"w": np.array([delta], dtype=np.float32)}, count, 0.0)
        for device, (delta, count) in enumerate([(1.0, 3), (5.0, 1)])
    ]
    assert FedAvg().aggregate(start, received)["w"].tolist() == [12.0]
    assert FedAvg(server_lr=0.5).aggregate(start, received)["w"].tolist() == [11.0]


def rewards(strategy: Strategy, grid: LocalGrid, counts: Sequence[int]) -> tuple[Adapter | None, float | None]:
    """One round through Flower's hooks; device i answers with the adapter `draw(i + 1)` and reward i."""
    sent = list(strategy.configure_train(1, to_arrays(draw(0)), ConfigRecord(), grid))
    replies = [
        wire.train_reply(DeviceUpdate(0, draw(device + 1), count, float(device)), message)
        for device, (count, message) in enumerate(zip(counts, sent, strict=True))
    ]
    arrays, metrics = strategy.aggregate_train(1, replies)
    reward = None if metrics is None else metrics["reward"]
    assert reward is None or isinstance(reward, float)
    return None if arrays is None else to_adapter(arrays), reward


@pytest.fixture
def grid(tmp_path: Path) -> LocalGrid:
    return LocalGrid(ClientApp(), DeviceStore(tmp_path), devices=3, pack=1)


def test_a_single_device_gives_its_adapter(grid: LocalGrid) -> None:
    grid.open_to([1])
    adapter, reward = rewards(FedAvg(), grid, [5])
    assert adapter is not None
    assert distance(adapter, draw(1)) <= 2e-7  # start + (its - start), one rounding away
    assert reward == 0.0


def test_equals_flowers_own_on_the_same_replies(grid: LocalGrid) -> None:
    """Flower averages adapters in float32, ours adds the mean delta in float64; reward is (0*5 + 1*2 + 2*1) / 8."""
    ours, our_reward = rewards(FedAvg(), grid, [5, 2, 1])
    theirs, their_reward = rewards(FlowerFedAvg(), grid, [5, 2, 1])
    assert ours is not None
    assert theirs is not None
    assert distance(ours, theirs) <= 5e-7
    assert distance(ours, draw(0)) > 0.1
    assert our_reward == pytest.approx(their_reward) == pytest.approx(0.5)


def test_no_usable_reply_gives_no_adapter(grid: LocalGrid) -> None:
    strategy = FedAvg()
    rewards(strategy, grid, [5, 2, 1])
    assert strategy.shares
    sent = list(strategy.configure_train(2, to_arrays(draw(0)), ConfigRecord(), grid))
    failed = [wire.error_reply("raised", "x", message) for message in sent]
    assert strategy.aggregate_train(1, failed) == (None, None)
    assert strategy.aggregate_train(1, []) == (None, None)
    assert not strategy.shares  # those of the round before would be written as this round's
