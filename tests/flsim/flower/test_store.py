"""The device store: the newest state before a round, what is kept, and what a damaged file says."""

from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict

from flsim.files import DamagedFileError
from flsim.flower.store import DeviceStore

DEVICE = "device-003"


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


def test_load_gives_the_newest_state_of_an_earlier_round(tmp_path: Path) -> None:
    store = DeviceStore(tmp_path)
    store.save(DEVICE, 2, state(0.25))
    store.save(DEVICE, 5, state(0.5))
    found = {round_: value_of(store.load(DEVICE, before_round=round_)) for round_ in (1, 2, 3, 5, 6, 99)}
    assert found == {1: None, 2: None, 3: 0.25, 5: 0.25, 6: 0.5, 99: 0.5}


def test_devices_do_not_see_each_other(tmp_path: Path) -> None:
    store = DeviceStore(tmp_path)
    store.save("device-001", 1, state(0.25))
    assert value_of(store.load("device-010", before_round=9)) is None


def test_a_round_that_is_saved_again_replaces_its_own_state(tmp_path: Path) -> None:
    store = DeviceStore(tmp_path)
    for value in (0.25, 0.75):
        store.save(DEVICE, 1, state(value))
    assert value_of(store.load(DEVICE, before_round=2)) == 0.75


def test_two_earlier_states_are_kept_as_two_checkpoints_are(tmp_path: Path) -> None:
    """While round 4 runs, the checkpoints are those of 2 and 3; without the one of 3, round 3 needs the state of 2."""
    store = DeviceStore(tmp_path)
    for round_ in (1, 2, 3, 4):
        store.save(DEVICE, round_, state(round_ / 8))
    assert files(tmp_path) == [f"{DEVICE}/round-{round_:05d}.state" for round_ in (2, 3, 4)]
    assert value_of(store.load(DEVICE, before_round=3)) == 2 / 8


def test_rounds_after_the_one_that_is_run_again_are_forgotten(tmp_path: Path) -> None:
    store = DeviceStore(tmp_path)
    for round_ in (1, 2, 3):
        store.save(DEVICE, round_, state(round_ / 8))
    store.save(DEVICE, 2, state(0.75))
    assert value_of(store.load(DEVICE, before_round=9)) == 0.75


def test_a_part_of_a_killed_write_is_no_state_and_none_is_left_by_a_finished_one(tmp_path: Path) -> None:
    store = DeviceStore(tmp_path)
    store.save(DEVICE, 1, state(0.25))
    assert files(tmp_path) == [f"{DEVICE}/round-00001.state"]
    (tmp_path / DEVICE / ".round-00002.state.123.part").write_bytes(b"half")
    assert value_of(store.load(DEVICE, before_round=9)) == 0.25


@pytest.mark.parametrize("how", ["flipped", "truncated", "emptied"])
def test_a_damaged_file_is_named_with_the_mend(tmp_path: Path, how: str) -> None:
    store = DeviceStore(tmp_path)
    store.save(DEVICE, 1, state(0.25))
    path = tmp_path / DEVICE / "round-00001.state"
    data = bytearray(path.read_bytes())
    if how == "flipped":
        data[len(data) // 2] ^= 1
    path.write_bytes({"flipped": bytes(data), "truncated": bytes(data[:-1]), "emptied": b""}[how])
    with pytest.raises(DamagedFileError, match="delete it") as caught:
        store.load(DEVICE, before_round=2)
    assert str(path) in str(caught.value)


def test_a_device_that_keeps_nothing_leaves_no_file(tmp_path: Path) -> None:
    store = DeviceStore(tmp_path)
    store.save(DEVICE, 1, RecordDict())
    assert files(tmp_path) == []
    store.save(DEVICE, 2, state(0.25))
    store.save(DEVICE, 3, RecordDict())  # it has forgotten, and that must be known
    assert value_of(store.load(DEVICE, before_round=3)) == 0.25
    assert value_of(store.load(DEVICE, before_round=4)) is None


def test_a_token_is_found_where_the_folder_is_shared(tmp_path: Path) -> None:
    path = DeviceStore(tmp_path / "run").leave_token("abc")
    assert DeviceStore(tmp_path / "run").finds_token("abc")
    assert not DeviceStore(tmp_path / "run").finds_token("abd")
    assert not DeviceStore(tmp_path / "elsewhere").finds_token("abc")
    path.unlink()
    assert not DeviceStore(tmp_path / "run").finds_token("abc")
