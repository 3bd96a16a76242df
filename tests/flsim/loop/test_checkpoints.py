"""The server's checkpoints: what comes back, what is kept, and what a damaged file says."""

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, MessageType
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAdam, Strategy

import flsim.flower.messages as wire
from flsim.budget.fleet import FleetState, Habit
from flsim.cloud.protocol import Cloud
from flsim.config.load import load_config
from flsim.config.schema import Config
from flsim.files import DamagedFileError
from flsim.flower.arrays import to_adapter, to_arrays
from flsim.flower.contract import restore
from flsim.flower.grid import LocalGrid
from flsim.flower.messages import DeviceUpdate
from flsim.flower.store import DeviceStore
from flsim.loop.checkpoints import latest_checkpoint, save_checkpoint
from flsim.metrics.rows import Row
from flsim.models.adapter import Adapter
from flsim.models.base import first_adapter
from strategies.flex_lora import FlexLora
from strategies.mean import MeanStrategy, Tensors
from strategies.parts.weighters import RewardGain


def adapter(value: float = 0.1) -> Adapter:
    return {"a": np.full((2, 3), value, dtype=np.float32), "b": np.array([-0.0, 1 / 3], dtype=np.float32)}


def one_round(strategy: Strategy, grid: LocalGrid, round_: int, start: Adapter, *targets: float) -> ArrayRecord:
    """A round in which device i answers with an adapter full of its target."""
    sent = strategy.configure_train(round_, to_arrays(start), ConfigRecord(), grid)
    by_device = sorted(sent, key=lambda message: message.metadata.dst_node_id)
    replies = [
        wire.train_reply(DeviceUpdate(device, adapter(target), 1, 0.0), message)
        for device, (message, target) in enumerate(zip(by_device, targets, strict=True))
    ]
    assert all(message.metadata.message_type == MessageType.TRAIN for message in sent)
    arrays, _ = strategy.aggregate_train(round_, replies)
    assert arrays is not None
    return arrays


@pytest.fixture
def grid(tmp_path: Path) -> LocalGrid:
    return LocalGrid(ClientApp(), DeviceStore(tmp_path / "devices"), devices=2, pack=1)


def test_nothing_was_saved_yet(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None


def test_adapter_and_round_come_back_bit_for_bit(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 12, adapter(), FedAdam())
    back = latest_checkpoint(tmp_path)
    assert back is not None
    assert back.round == 12
    assert list(back.adapter) == ["a", "b"]
    for name, tensor in adapter().items():
        assert back.adapter[name].dtype == np.float32
        assert back.adapter[name].tobytes() == tensor.tobytes()


def test_the_fleets_budget_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    """None without one, as for the checkpoint before."""
    fleet = FleetState(7, 90, Fraction(0.1) / 3, {2: Habit(Fraction(7, 3), 0.1)}, dual=0.1 + 0.2, price=0.7)
    for round_, kept in ((1, None), (2, fleet)):
        save_checkpoint(tmp_path, round_, adapter(), FedAdam(), fleet=kept)
        back = latest_checkpoint(tmp_path)
        assert back is not None
        assert back.fleet == kept


def test_fedadam_goes_on_where_it_was(tmp_path: Path, grid: LocalGrid) -> None:
    """Its moments m_t and v_t live in the strategy; with them the next round is the same, without them it is not."""
    kept = FedAdam()
    first = to_adapter(one_round(kept, grid, 1, adapter(), 0.2, 0.4))
    save_checkpoint(tmp_path, 1, first, kept)
    back = latest_checkpoint(tmp_path)
    assert back is not None
    assert kept.m_t is not None
    assert back.strategy["m_t"]["a"].tolist() == kept.m_t["a"].tolist()
    assert back.strategy["v_t"].keys() == adapter().keys()
    restored, forgetful = FedAdam(), FedAdam()
    restore(restored, back.strategy)
    after = [
        to_adapter(one_round(strategy, grid, 2, first, 0.9, 0.7))["a"].tobytes()
        for strategy in (kept, restored, forgetful)
    ]
    assert after[0] == after[1]
    assert after[0] != after[2]


def test_two_are_kept_and_the_newest_is_read(tmp_path: Path) -> None:
    for round_ in (0, 1, 9, 10, 11):
        save_checkpoint(tmp_path, round_, adapter(round_), FedAdam())
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["round-00010.npz", "round-00011.npz"]
    back = latest_checkpoint(tmp_path)
    assert back is not None
    assert (back.round, back.adapter["a"][0, 0]) == (11, 11.0)


def test_a_part_of_a_killed_write_is_no_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, adapter(), FedAdam())
    (tmp_path / "checkpoints" / ".round-00002.npz.77.part").write_bytes(b"half")
    back = latest_checkpoint(tmp_path)
    assert back is not None
    assert back.round == 1


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "truncated":
        data = data[: len(data) // 2]
    elif how == "emptied":
        data = bytearray()
    else:  # a byte of the named member's content
        place = data.find(how.encode()) + len(how) + 140
        data[place] ^= 0x10
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("how", ["adapter/a.npy", "strategy.npy", "truncated", "emptied"])
def test_a_damaged_checkpoint_is_refused_with_its_path_and_the_mend(tmp_path: Path, how: str) -> None:
    for round_ in (3, 4):
        save_checkpoint(tmp_path, round_, adapter(), FedAdam())
    path = tmp_path / "checkpoints" / "round-00004.npz"
    damage(path, how)
    with pytest.raises(DamagedFileError, match="delete it to go on from the round before it") as caught:
        latest_checkpoint(tmp_path)
    assert str(path) in str(caught.value)
    path.unlink()
    back = latest_checkpoint(tmp_path)
    assert back is not None
    assert back.round == 3


def test_no_flipped_byte_goes_unnoticed(tmp_path: Path) -> None:
    """Flip each of a sample of bytes: the file is refused, or reads as before (zip has bytes without meaning)."""
    save_checkpoint(tmp_path, 4, adapter(), FedAdam())
    path = tmp_path / "checkpoints" / "round-00004.npz"
    whole = path.read_bytes()
    refused = 0
    for place in range(0, len(whole), 37):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x08]) + whole[place + 1 :])
        try:
            back = latest_checkpoint(tmp_path)
        except DamagedFileError:
            refused += 1
            continue
        assert back is not None
        assert back.round == 4
        assert {name: tensor.tobytes() for name, tensor in back.adapter.items()} == {
            name: tensor.tobytes() for name, tensor in adapter().items()
        }, place
    assert refused > len(whole) / 37 / 2


def test_a_strategy_of_ones_own_may_hold_anything_picklable(tmp_path: Path) -> None:
    class Counting(FedAdam):
        def __init__(self) -> None:
            super().__init__()
            self.history = {"rounds": [1, 2], "rule": lambda x: x + 1}

    save_checkpoint(tmp_path, 2, adapter(), Counting())
    back = latest_checkpoint(tmp_path)
    assert back is not None
    assert back.strategy["history"]["rounds"] == [1, 2]
    assert back.strategy["history"]["rule"](1) == 2


class Velocity(MeanStrategy):
    """What a user may write: state under a public name, a private one, in a part, and set in the middle of a run."""

    def __init__(self) -> None:
        super().__init__(weighter=RewardGain())
        self.rounds = 0
        self._velocity: Tensors = {}

    def step(self, adapter: Adapter, mean: Tensors) -> Adapter:
        self.rounds += 1
        self.lately = float(mean["a"].max())
        self._velocity = {name: tensor + 0.9 * self._velocity.get(name, 0.0) for name, tensor in mean.items()}
        return {name: (tensor + self._velocity[name]).astype(np.float32) for name, tensor in adapter.items()}


def test_what_a_user_keeps_on_a_strategy_is_its_state(tmp_path: Path, grid: LocalGrid) -> None:
    kept = Velocity()
    first = to_adapter(one_round(kept, grid, 1, adapter(), 0.2, 0.4))
    save_checkpoint(tmp_path, 1, first, kept)
    back = latest_checkpoint(tmp_path)
    assert back is not None
    assert back.strategy.keys() == {"weighter", "rounds", "lately", "_velocity"}
    assert back.strategy["weighter"].history == {0: 0.0, 1: 0.0}
    restored, forgetful = Velocity(), Velocity()
    restore(restored, back.strategy)
    after = [to_adapter(one_round(one, grid, 2, first, 0.9, 0.7))["a"].tobytes() for one in (kept, restored, forgetful)]
    assert after[0] == after[1]
    assert after[0] != after[2]
    assert (restored.rounds, restored.lately) == (kept.rounds, kept.lately)
    assert restored.rounds == 2


def test_a_round_in_progress_and_the_config_are_no_state(grid: LocalGrid) -> None:
    """A checkpoint neither holds the adapters that were sent, nor what the round's aggregation said for the rows."""
    strategy = FlexLora()
    before = strategy.state_dict()
    config = load_config(None, [])
    strategy.begin(config)
    list(strategy.configure_train(1, to_arrays(first_adapter(config.model, config.seed)), ConfigRecord(), grid))
    assert strategy.state_dict() == before
    assert before.keys() == {"average", "reducer", "optimizer", "frames"}


def test_a_stage_that_says_what_it_keeps_is_asked(tmp_path: Path) -> None:
    class Counting:
        loaded = seen = 0

        def begin(self, config: Config, cloud: Cloud) -> None:
            self.loaded = 1

        def after_round(self, round_: int, adapter: Adapter, *more: Any) -> tuple[Adapter, list[Row]]:
            return adapter, []

        def state_dict(self) -> dict[str, Any]:
            return {"seen": self.seen}

        def load_state_dict(self, kept: Mapping[str, Any]) -> None:
            self.seen = kept["seen"]

    stage = Counting()
    stage.seen, stage.loaded = 3, 7
    save_checkpoint(tmp_path, 2, adapter(), FedAdam(), stage=stage)
    back = latest_checkpoint(tmp_path)
    assert back is not None
    assert back.stage == {"seen": 3}
    restore(other := Counting(), back.stage)
    assert (other.seen, other.loaded) == (3, 0)
