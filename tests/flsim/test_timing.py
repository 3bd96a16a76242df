"""The clock books every second once, and a round's timing survives the disk."""

import logging
import time
from pathlib import Path

import pytest

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


DAMAGED = (
    b"",
    b"{",
    b"\xff\xfe",
    b"[" * 5000,
    b"null",
    b"[1]",
    b'{"round": 1}',
    b'{"round": 1, "workers": "2", "wall_s": 1, "parts": {}}',
    b'{"round": 1, "workers": 1, "wall_s": NaN, "parts": {}}',
    b'{"round": 1, "workers": 1, "wall_s": 1, "parts": 3}',
    b'{"round": 1, "workers": 1, "wall_s": 1, "parts": {"nap": 1}}',
)


@pytest.mark.parametrize("damaged", DAMAGED)
def test_a_damaged_timing_is_left_out_with_a_warning_that_names_it(
    tmp_path: Path, damaged: bytes, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = RoundTiming(2, 1, 1.0, {"train": 1.0})
    write_timing(tmp_path, whole)
    file = tmp_path / "timing" / "round-00001.json"
    file.write_bytes(damaged)
    monkeypatch.setattr(logging.getLogger("flsim.run"), "propagate", True)
    assert read_timings(tmp_path) == [whole]
    assert "round-00001.json cannot be read" in caplog.text
