"""The device store: the newest state before a round, what is kept, and what a damaged file says."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from flsim.files import DamagedFileError
from flsim.flower.store import DeviceStore, Saved, States

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
    """Every file under a folder, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def one_device(folder: Path) -> "OneDevice":
    return OneDevice(DeviceStore(folder), States())


@dataclass
class OneDevice:
    """The store and what the driver knows of it, as a grid uses them, for one device."""

    store: DeviceStore
    states: States

    def save(self, round_: int, value: RecordDict, *, replies: bool = True) -> None:
        """What it keeps of a round; without a reply the driver never hears of it."""
        left = self.store.save(DEVICE, round_, value, self.states.before(DEVICE, round_))
        if left is not None and replies:
            self.states.note({DEVICE: left})

    def value(self, before: int) -> float | None:
        return value_of(self.store.load(DEVICE, self.states.before(DEVICE, before)))


def test_load_gives_the_newest_state_of_an_earlier_round(tmp_path: Path) -> None:
    one = one_device(tmp_path)
    one.save(2, state(0.25))
    one.save(5, state(0.5))
    found = {round_: one.value(round_) for round_ in (1, 2, 3, 5, 6, 99)}
    assert found == {1: None, 2: None, 3: 0.25, 5: 0.25, 6: 0.5, 99: 0.5}


def test_devices_do_not_see_each_other(tmp_path: Path) -> None:
    states = States()
    states.note({1: Saved(1, b"x")})
    assert states.before(10, 9) is None
    assert states.newest() == {1: Saved(1, b"x")}


def test_a_round_that_is_saved_again_replaces_its_own_state(tmp_path: Path) -> None:
    one = one_device(tmp_path)
    for value in (0.25, 0.75):
        one.save(1, state(value))
    assert one.value(2) == 0.75


def test_two_earlier_states_are_kept_as_two_checkpoints_are(tmp_path: Path) -> None:
    """While round 4 runs, the checkpoints are those of 2 and 3; without the one of 3, round 3 needs the state of 2."""
    one = one_device(tmp_path)
    for round_ in (1, 2, 3, 4):
        one.save(round_, state(round_ / 8))
    assert files(tmp_path) == [f"device-003/round-{round_:05d}.state" for round_ in (2, 3, 4)]


def test_a_state_that_came_with_no_reply_is_never_used(tmp_path: Path) -> None:
    """The device was given up in round 4, after it had written its state: it goes on from that of round 3."""
    one = one_device(tmp_path)
    one.save(3, state(0.25))
    one.save(4, state(0.5), replies=False)
    assert (one.value(5), one.states.newest()[DEVICE].round) == (0.25, 3)
    one.save(5, state(0.75))
    assert files(tmp_path) == [f"device-003/round-{round_:05d}.state" for round_ in (3, 5)]


@given(replies=st.lists(st.sampled_from(["reply", "no reply", "not sampled"]), min_size=1, max_size=12))
def test_what_the_two_newest_checkpoints_name_is_there_whatever_was_given_up(
    tmp_path_factory: pytest.TempPathFactory, replies: list[str]
) -> None:
    one = one_device(tmp_path_factory.mktemp("store"))
    named: list[dict[int, Saved]] = [{}]  # by the checkpoint of every round
    for round_, outcome in enumerate(replies, start=1):
        if outcome != "not sampled":
            one.save(round_, state(round_ / 16), replies=outcome == "reply")
        named.append(one.states.newest())
        for checkpoint in named[-3:]:  # while a round runs, those of the two before it are kept
            for saved in checkpoint.values():
                assert value_of(one.store.load(DEVICE, saved)) == saved.round / 16
    assert len(files(one.store.folder)) <= 4  # one of them of a round that was given up


def test_a_checkpoint_before_is_gone_back_to_without_what_came_later(tmp_path: Path) -> None:
    one = one_device(tmp_path)
    one.save(1, state(0.25))
    before = one.states.newest()
    one.save(2, state(0.5))
    one.store.save(7, 2, state(0.5), None)  # another device, that had left nothing before
    one.store.drop_others(before)
    assert files(tmp_path) == ["device-003/round-00001.state"]
    assert value_of(one.store.load(DEVICE, States(before).before(DEVICE, 2))) == 0.25


def test_a_part_of_a_killed_write_is_no_state_and_none_is_left_by_a_finished_one(tmp_path: Path) -> None:
    one = one_device(tmp_path)
    one.save(1, state(0.25))
    assert files(tmp_path) == ["device-003/round-00001.state"]
    (tmp_path / "device-003" / ".round-00002.state.123.part").write_bytes(b"half")
    assert one.store.found(last=9) == one.states.newest()


@pytest.mark.parametrize("how", ["flipped", "truncated", "emptied", "deleted", "another"])
def test_a_state_that_is_not_as_it_was_left_is_named(tmp_path: Path, how: str) -> None:
    one = one_device(tmp_path)
    one.save(1, state(0.25))
    path = tmp_path / "device-003" / "round-00001.state"
    data = bytearray(path.read_bytes())
    if how == "flipped":
        data[len(data) // 2] ^= 1
    if how == "deleted":
        path.unlink()
    elif how == "another":
        one.store.save(DEVICE, 1, state(0.5), None)
    else:
        path.write_bytes({"flipped": bytes(data), "truncated": bytes(data[:-1]), "emptied": b""}[how])
    with pytest.raises(DamagedFileError, match=f"flsim resume {tmp_path.parent} says how to go on") as caught:
        one.value(2)
    assert str(path) in str(caught.value)


def test_a_device_that_keeps_nothing_leaves_no_file(tmp_path: Path) -> None:
    one = one_device(tmp_path)
    one.save(1, RecordDict())
    assert files(tmp_path) == []
    one.save(2, state(0.25))
    one.save(3, RecordDict())  # it has forgotten, and that must be known
    assert one.value(3) == 0.25
    assert one.value(4) is None


def test_the_states_of_the_release_before_are_found_up_to_its_checkpoint(tmp_path: Path) -> None:
    store = DeviceStore(tmp_path)
    saved = {round_: store.save(3, round_, state(round_ / 8), None) for round_ in (1,)}
    saved[2] = store.save(3, 2, state(2 / 8), saved[1])
    assert store.found(last=1) == {3: saved[1]}
    assert store.found(last=2) == store.found(last=9) == {3: saved[2]}


def test_a_token_is_found_where_the_folder_is_shared(tmp_path: Path) -> None:
    path = DeviceStore(tmp_path / "run").leave_token("abc")
    assert DeviceStore(tmp_path / "run").finds_token("abc")
    assert not DeviceStore(tmp_path / "run").finds_token("abd")
    assert not DeviceStore(tmp_path / "elsewhere").finds_token("abc")
    path.unlink()
    assert not DeviceStore(tmp_path / "run").finds_token("abc")
