import math
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from flsim.metrics.rows import Row, write_rows
from tests.same_rows import differences


def run_of(folder: Path, *rows: Row, tensor: float = 1.0) -> Path:
    """A folder with the rows of round 1 and an adapter of one number."""
    write_rows(folder / "rows" / "round-00001.parquet", rows)
    (folder / "adapter").mkdir()
    save_file({"a": np.array([tensor])}, folder / "adapter" / "adapter_model.safetensors")
    return folder


def row(total: float, *, device: str = "device-000", name: str = "accuracy") -> Row:
    return Row(1, device, "lists", "test", "global", name, total, 2.0)


def test_equal_runs_do_not_differ_whatever_their_seconds(tmp_path: Path) -> None:
    one = run_of(tmp_path / "one", row(1.0), row(3.0, name="seconds"))
    other = run_of(tmp_path / "other", row(1.0), row(4.0, name="seconds"))
    assert differences(one, other) == []


def test_a_last_bit_is_noticed(tmp_path: Path) -> None:
    one = run_of(tmp_path / "one", row(1.0))
    rows, adapter = run_of(tmp_path / "rows", row(math.nextafter(1.0, 2.0))), tmp_path / "adapter"
    assert len(differences(one, rows)) == 1
    assert differences(one, run_of(adapter, row(1.0), tensor=math.nextafter(1.0, 2.0))) == ["adapter: a"]


def test_a_head_is_part_of_the_adapter(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / name, row(1.0)) for name in ("one", "other")]
    for run, number in zip(runs, (1.0, 2.0), strict=True):
        save_file({"head.bias": np.array([number])}, run / "adapter" / "head.safetensors")
    assert differences(*runs) == ["adapter: head.bias"]


def test_a_row_of_one_side_alone_is_named(tmp_path: Path) -> None:
    one = run_of(tmp_path / "one", row(1.0), row(1.0, device="device-001"))
    other = run_of(tmp_path / "other", row(1.0))
    assert differences(one, other) == ["only before: (1, 'device-001', 'lists', 'test', 'global', 'accuracy')"]
