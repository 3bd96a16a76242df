"""The clock books every second once, and a round's timing survives the disk."""

import time
from pathlib import Path

import pytest

from flsim.files import DamagedFileError
from flsim.timing import RoundTiming, booked, read_timings, spend, write_timing


def test_an_inner_part_stops_the_outer_one() -> None:
    booked()
    started = time.perf_counter()
    with spend("rollout"):
        time.sleep(0.02)
        with spend("cloud"):
            time.sleep(0.05)
        time.sleep(0.01)
    passed = time.perf_counter() - started
    parts = booked()
    assert parts["cloud"] >= 0.05
    assert parts["rollout"] >= 0.03
    assert sum(parts.values()) == pytest.approx(passed, abs=1e-3)
    assert booked() == {}


def test_a_part_that_raises_is_booked_and_closed() -> None:
    booked()
    with pytest.raises(ValueError, match="x"), spend("train"):
        raise ValueError("x")
    with spend("store"):
        pass
    assert set(booked()) == {"train", "store"}


def test_timings_are_read_back_by_round(tmp_path: Path) -> None:
    assert read_timings(tmp_path) == []
    timings = [RoundTiming(n, 2, 1.5, {"rollout": 2.0, "idle": 1.0}) for n in (2, 11)]
    for timing in reversed(timings):
        write_timing(tmp_path, timing)
    assert read_timings(tmp_path) == timings


def test_a_damaged_timing_is_named(tmp_path: Path) -> None:
    write_timing(tmp_path, RoundTiming(1, 1, 1.0, {}))
    (tmp_path / "timing" / "round-00001.json").write_text("{")
    with pytest.raises(DamagedFileError, match=r"round-00001\.json"):
        read_timings(tmp_path)
