"""Compact rows: whatever is picked from them is what is picked from plain ones, in their order and with their types."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsim.metrics.compact import compacted, is_among, joined, places_by, plain
from flsim.metrics.rows import (
    MALICIOUS,
    Row,
    evaluation,
    of_fleet,
    of_users,
    picked,
    read_compact,
    read_rows,
    rows_frame,
    rows_table,
    training,
    user_facts,
    write_rows,
)

ROWS = [
    *(Row(1, name, "lists", "train", "own", "reward", 1, 2) for name in ("device-001", "device-000")),
    Row(1, "device-001", "all", "train", "own", "cloud_calls", 3, 1),
    Row(1, "", "all", "fleet", "fleet", "update_cosine", 0.5, 1),
    Row(2, "device-000", "lists", "test", "global", "accuracy", 15, 20),
    Row(0, "device-000", "lists", "user", "user", "test_items", 300, 20),
    Row(0, "device-000", "all", "user", "user", "traffic", 7, 1),
    Row(1, "device-002", "all", "train", "own", MALICIOUS, 1, 1),
]
PICKS: list[Callable[[pd.DataFrame], pd.DataFrame]] = [
    lambda rows: picked(rows, split="train"),
    lambda rows: picked(rows, model="own", name=("reward", "cloud_calls")),
    lambda rows: picked(rows, split="train", name="never measured"),
    lambda rows: training(rows, name="reward"),
    lambda rows: evaluation(rows, model="global", name="accuracy"),
    lambda rows: user_facts(rows, "traffic"),
    of_fleet,
    lambda rows: plain(of_users(rows)),
]


@pytest.mark.parametrize("pick", PICKS)
def test_what_is_picked_is_the_same_of_both(pick: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    rows = rows_frame(ROWS)
    pd.testing.assert_frame_equal(pick(compacted(rows)), pick(rows))
    pd.testing.assert_frame_equal(pick(compacted(rows.iloc[:0])), pick(rows.iloc[:0]))


def test_plain_undoes_compacted_and_leaves_what_is_plain() -> None:
    rows = rows_frame(ROWS)
    pd.testing.assert_frame_equal(plain(compacted(rows)), rows)
    assert plain(rows) is rows


@given(st.lists(st.sampled_from(["a", "b", "", "device-000"])))
def test_places_are_those_of_every_text_in_order(texts: list[str]) -> None:
    column = pd.Series(texts, dtype="str")
    for form in (column, column.astype("category")):
        found = {text: places.tolist() for text, places in places_by(form).items()}
        assert found == {text: [n for n, one in enumerate(texts) if one == text] for text in set(texts)}
        assert is_among(form, ["a", "not there"]).tolist() == [text == "a" for text in texts]


def test_files_with_other_texts_are_joined_in_their_order(tmp_path: Path) -> None:
    """A file lists its own texts, so that a number means another text in each."""
    for number in range(3):
        rows = [row for n, row in enumerate(ROWS) if n % 3 == number]
        write_rows(tmp_path / "rows" / f"round-{number:05d}.parquet", rows)
    write_rows(tmp_path / "rows" / "round-00003.parquet", [])
    parts = [pd.read_parquet(path) for path in sorted((tmp_path / "rows").iterdir())]
    pd.testing.assert_frame_equal(read_rows(tmp_path), pd.concat(parts, ignore_index=True))
    assert read_compact(tmp_path)["device"].cat.categories.dtype == "str"
    empty = joined([rows_table(tmp_path / "rows" / "round-00003.parquet")])
    pd.testing.assert_frame_equal(plain(empty), rows_frame([]))


def test_a_row_takes_30_bytes_where_few_words_are_said() -> None:
    rows = rows_frame(ROWS * 1000)
    small, large = (frame.memory_usage(index=False).sum() / len(rows) for frame in (compacted(rows), rows))
    assert small < 30
    assert large > 3 * small


def test_more_names_than_a_byte_counts_are_told_apart(tmp_path: Path) -> None:
    rows = [Row(1, f"device-{number:05d}", "lists", "train", "own", "reward", number, 1000) for number in range(600)]
    for part in range(2):
        write_rows(tmp_path / "rows" / f"round-{part:05d}.parquet", rows[300 * part : 300 * part + 300])
    found = read_rows(tmp_path)
    assert found["device"].tolist() == [row.device for row in rows]
    assert np.array_equal(found["total"], np.arange(600))
