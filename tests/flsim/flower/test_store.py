"""The device store: the newest state before a round, which files there are, and what a damaged one says."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from flsim.files import DamagedFileError
from flsim.flower.states import FAN, States
from flsim.flower.store import DeviceStore, Saved

DEVICE = 3


def state(value: float) -> RecordDict:
    return RecordDict(
        {
            "optimizer": ArrayRecord({"first": Array(np.full((1, 5), value, dtype=np.float32))}),
            "memory": MetricRecord({"dual": value, "calls": 7}),
        }
    )


def value_of(record: RecordDict) -> float | None:
    """The value that `state` was made with; None for an empty state."""
    if not record:
        return None
    value = record.metric_records["memory"]["dual"]
    assert isinstance(value, float)
    assert record.array_records["optimizer"]["first"].numpy().tolist() == [[value] * 5]
    assert record.metric_records["memory"]["calls"] == 7
    return value


def files(folder: Path) -> list[str]:
    """Every file under a folder, hidden ones too, without what its name says of its bytes."""
    return sorted(path.name[:11] for path in folder.rglob("*") if path.is_file())


@dataclass
class Fleet:
    """The store and what the driver knows of it, as a grid and its commits use them."""

    store: DeviceStore
    states: States

    def save(self, round_: int, values: dict[int, RecordDict], *, replies: bool = True) -> None:
        """What the devices of a pack keep of a round; without replies the driver never hears of it."""
        left = self.store.save(round_, values)
        if replies:
            self.states.note(left)

    def value(self, before: int, device: int = DEVICE) -> float | None:
        return value_of(self.store.load(device, self.states.before(device, before)))


def fleet(folder: Path) -> Fleet:
    return Fleet(DeviceStore(folder), States())


def test_load_gives_the_newest_state_of_an_earlier_round(tmp_path: Path) -> None:
    one = fleet(tmp_path)
    one.save(2, {DEVICE: state(0.25), 10: state(1.0)})
    one.save(5, {DEVICE: state(0.5)})
    found = {round_: one.value(round_) for round_ in (1, 2, 3, 5, 6, 99)}
    assert found == {1: None, 2: None, 3: 0.25, 5: 0.25, 6: 0.5, 99: 0.5}
    assert one.value(9, 10) == 1.0
    assert one.value(9, 1) is None


def test_a_round_that_is_saved_again_replaces_its_own_state(tmp_path: Path) -> None:
    one = fleet(tmp_path)
    for value in (0.25, 0.75):
        one.save(1, {DEVICE: state(value)})
    assert one.value(2) == 0.75
    one.states.tidy(one.store, 1)
    assert len(files(tmp_path)) == 1


def test_two_earlier_states_are_kept_as_two_checkpoints_are(tmp_path: Path) -> None:
    """While round 4 runs, the checkpoints are those of 2 and 3; without the one of 3, round 3 needs the state of 2."""
    one = fleet(tmp_path)
    for round_ in (1, 2, 3, 4):
        one.save(round_, {DEVICE: state(round_ / 8), 4: state(0.5)})
        assert len(files(tmp_path)) == min(round_, 3)
        one.states.tidy(one.store, round_)
    assert files(tmp_path) == ["round-00003", "round-00004"]


def test_a_state_that_came_with_no_reply_is_never_used(tmp_path: Path) -> None:
    """The device was given up in round 4, after it had written its state: it goes on from that of round 3."""
    one = fleet(tmp_path)
    one.save(3, {DEVICE: state(0.25)})
    one.save(4, {DEVICE: state(0.5)}, replies=False)
    assert (one.value(5), one.states.newest()[DEVICE].round) == (0.25, 3)


def placed(one: Fleet, named: dict[int, Saved]) -> dict[int, Saved]:
    """The states that a checkpoint names, where they lie by now."""
    lying = {(d, s.round, s.digest): s for held in one.store.files().values() for d, s in held}
    return {device: lying[device, saved.round, saved.digest] for device, saved in named.items()}


PACKS = st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=6, unique=True), min_size=1, max_size=3)
ROUNDS = st.lists(st.tuples(PACKS, st.sampled_from(["commit", "kill", "back"])), min_size=20, max_size=40)


@settings(max_examples=10)
@given(ROUNDS)
def test_what_the_two_newest_checkpoints_name_is_there_in_few_files_whatever_happens(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[tuple[list[list[int]], str]]
) -> None:
    """Rounds are committed, or killed and run again, or the newest checkpoint is given up, too."""
    one = fleet(tmp_path_factory.mktemp("store"))
    kept: list[tuple[int, dict[int, Saved]]] = [(0, {})]  # the checkpoints: round, and what it names
    for packs, outcome in rounds:
        round_ = kept[-1][0] + 1
        for pack in packs:  # a device may be in two of them, and then counts as sent again
            one.save(round_, {device: state(round_ / 64 + device) for device in pack})
        if outcome == "commit":
            kept = [*kept, (round_, one.states.newest())][-2:]
            one.states.tidy(one.store, round_)
        else:
            kept = kept[:1] if outcome == "back" else kept
            one.states = States(placed(one, kept[-1][1]), one.store.files())
        for _, checkpoint in kept:
            for device, saved in placed(one, checkpoint).items():
                assert value_of(one.store.load(device, saved)) == saved.round / 64 + device
    one.states.tidy(one.store, kept[-1][0] + 3)
    assert len(one.store.files()) < 2 * FAN  # of at most 31 states


def test_of_a_large_fleet_few_files_are_left_and_all_of_its_states(tmp_path: Path) -> None:
    """Two packs of four a round, of devices that never come again: 800 states, and at most 7 files of a size."""
    one = fleet(tmp_path)
    for round_ in range(1, 101):
        for pack in range(2):
            first = 8 * round_ + 4 * pack
            one.save(round_, {device: state(float(device)) for device in range(first, first + 4)})
        one.states.tidy(one.store, round_)
    assert len(files(tmp_path)) <= 3 * (FAN - 1) + 4
    assert all(one.value(101, device) == device for device in range(8, 808))
    assert States(one.states.newest(), one.store.files()).newest() == one.states.newest()


def test_a_part_of_a_killed_write_is_no_state_and_none_is_left_by_a_finished_one(tmp_path: Path) -> None:
    one = fleet(tmp_path)
    one.save(1, {DEVICE: state(0.25)})
    (only,) = one.store.files().items()
    (tmp_path / ".round-00002-0123456789ab.states.123.part").write_bytes(b"half")
    assert one.store.files() == dict([only])


@pytest.mark.parametrize("how", ["flipped", "truncated", "emptied", "deleted"])
def test_a_state_that_is_not_as_it_was_left_is_named(tmp_path: Path, how: str) -> None:
    one = fleet(tmp_path)
    one.save(1, {DEVICE: state(0.25)})
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    if how == "flipped":
        data[-20] ^= 1
    if how == "deleted":
        path.unlink()
    else:
        path.write_bytes({"flipped": bytes(data), "truncated": bytes(data[:-1]), "emptied": b""}[how])
    with pytest.raises(DamagedFileError, match=f"flsim resume {tmp_path.parent} says how to go on") as caught:
        one.value(2)
    assert str(path) in str(caught.value)
    assert "device-003" in str(caught.value)


def test_a_device_that_keeps_nothing_is_no_other_than_one_that_has_forgotten(tmp_path: Path) -> None:
    one = fleet(tmp_path)
    one.save(1, {})
    assert files(tmp_path) == []
    one.save(2, {DEVICE: state(0.25)})
    one.save(3, {DEVICE: RecordDict()})  # it has forgotten, and that must be known
    assert one.value(3) == 0.25
    assert one.value(4) is None


def test_a_token_is_found_where_the_folder_is_shared(tmp_path: Path) -> None:
    path = DeviceStore(tmp_path / "run").leave_token("abc")
    assert DeviceStore(tmp_path / "run").finds_token("abc")
    assert not DeviceStore(tmp_path / "run").finds_token("abd")
    assert not DeviceStore(tmp_path / "elsewhere").finds_token("abc")
    path.unlink()
    assert not DeviceStore(tmp_path / "run").finds_token("abc")
