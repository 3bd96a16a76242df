"""Rows: what is refused, files that depend on nothing but the set of rows, damage that is named."""

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flsim.files import DamagedFileError
from flsim.metrics.rows import COLUMNS, Row, read_rows, rows_frame, without_timing, write_rows

PAIRS = st.one_of(st.just((0, 0)), st.tuples(st.integers(-50, 50), st.integers(1, 50)))


def row(
    round_: int = 1, device: str = "device-000", name: str = "accuracy", total: float = 3.0, weight: float = 4.0
) -> Row:
    return Row(round_, device, "arithmetic", "test", "global", name, total, weight)


@pytest.mark.parametrize(("total", "weight"), [(1.0, 0.0), (1.0, -1.0), (float("nan"), 1.0), (1.0, float("inf"))])
def test_a_pair_without_a_value_is_refused_with_its_place(total: float, weight: float) -> None:
    with pytest.raises(ValueError, match=r"'accuracy' of device-000 in round 1 is .* count the values"):
        row(total=total, weight=weight)


def test_an_empty_pair_is_allowed() -> None:
    assert row(total=0.0, weight=0.0).weight == 0.0


@settings(deadline=None, max_examples=5)
@given(st.permutations([row(device=f"device-{n:03d}", name=name) for n in range(3) for name in ("accuracy", "reward")]))
def test_equal_sets_of_rows_give_equal_files(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> None:
    folder = tmp_path_factory.mktemp("rows")
    write_rows(folder / "a.parquet", rows)
    write_rows(folder / "b.parquet", rows[::-1])
    assert (folder / "a.parquet").read_bytes() == (folder / "b.parquet").read_bytes()


def test_what_was_written_is_read_by_round_with_its_types(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows" / "round-00010.parquet", [row(10)])
    write_rows(tmp_path / "rows" / "round-00002.parquet", [row(2, "device-001"), row(2, total=1)])
    write_rows(tmp_path / "rows" / "round-00003.parquet", [])
    read = read_rows(tmp_path)
    assert read.dtypes.astype(str).tolist() == ["int64", "str", "str", "str", "str", "str", "float64", "float64"]
    assert tuple(read.columns) == COLUMNS
    assert read[["round", "device", "total"]].to_numpy().tolist() == [
        [2, "device-000", 1.0],
        [2, "device-001", 3.0],
        [10, "device-000", 3.0],
    ]


def test_a_run_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="give the folder of a run that has begun"):
        read_rows(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "empty", "other columns"])
def test_a_damaged_file_is_named_with_its_mend(tmp_path: Path, damage: str) -> None:
    for number in (0, 1):
        write_rows(tmp_path / "rows" / f"round-{number:05d}.parquet", [row(number)])
    path = tmp_path / "rows" / "round-00001.parquet"
    if damage == "other columns":
        pd.DataFrame({"round": [1]}).to_parquet(path)
    else:
        path.write_bytes(path.read_bytes()[:200] if damage == "cut" else b"")
    with pytest.raises(DamagedFileError, match=r"round-00001\.parquet cannot be read .* flsim resume of its run"):
        read_rows(tmp_path)


def test_timing_is_dropped_and_nothing_else() -> None:
    frame = rows_frame([row(), row(name="seconds"), row(name="cloud_tokens")])
    assert without_timing(frame)["name"].tolist() == ["accuracy", "cloud_tokens"]


def test_rows_of_the_release_before_are_read_under_their_names_of_today(tmp_path: Path) -> None:
    """(split, model, name) as it was, then as it is; a name means something else in training than in tests."""
    names = {
        ("test", "local", "local_accuracy"): ("test", "own", "alone_accuracy"),
        ("test", "random", "cloud_usage"): ("test", "random", "cloud_grants"),
        ("validation", "global", "cloud_usage"): ("validation", "global", "cloud_grants"),
        ("train", "local", "cloud_usage"): ("train", "own", "cloud_requests"),
        ("train", "local", "local_reward"): ("train", "own", "alone_reward"),
        ("train", "local", "allowance_money"): ("train", "own", "allotment_money"),
        ("server", "server", "spent_calls"): ("fleet", "fleet", "spent_calls"),
        ("stage", "aggregated", "local_accuracy"): ("stage", "aggregated", "alone_accuracy"),
        ("test", "global", "cloud_requests"): ("test", "global", "cloud_requests"),
    }
    old = [Row(1, "device-000", "lists", *key, float(n), 9.0) for n, key in enumerate(names)]
    write_rows(tmp_path / "rows" / "round-00001.parquet", old)
    found = read_rows(tmp_path).sort_values("total")
    assert list(zip(found["split"], found["model"], found["name"], strict=True)) == list(names.values())
    assert found["total"].tolist() == [float(n) for n in range(len(names))]
