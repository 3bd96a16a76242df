"""The line on many runs: its words, its estimate by hand, and when it is written."""

import io
from pathlib import Path

import pytest

from experiments.study.progress import Progress, duration, rounds_done, status
from flsim.config.schema import Config


def commit(config: Config, round_: int) -> None:
    (config.folder / "rows").mkdir(parents=True, exist_ok=True)
    (config.folder / "rows" / f"round-{round_:05d}.parquet").touch()


@pytest.fixture
def runs(tmp_path: Path) -> list[Config]:
    return [Config(rounds=10, run_dir=str(tmp_path / name)) for name in ("one", "two", "three")]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("experiments.study.progress.time.monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (59.6, "1 min"), (3569, "59 min"), (3571, "1 h 00 min"), (11_100, "3 h 05 min")],
)
def test_times_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_words() -> None:
    assert status(done=3, failed=0, total=8, left_s=300, running=["a 7/21"]) == "3 of 8 runs, 5 min left: a 7/21"
    assert status(done=3, failed=1, total=8, left_s=None, running=["a", "b"]) == "3 of 8 runs, 1 failed: a, b"
    assert status(done=8, failed=0, total=8, left_s=0, running=[]) == "8 of 8 runs"


def test_time_left_by_hand(runs: list[Config], clock: list[float]) -> None:
    """Round 4 of `one` was there before. In 60 s come its 5 and 6, and 1 of `two`: 20 s a round.

    Left are 4, 9 and 10 rounds: 460 s, or 8 min; without `three`, which failed, 260 s, or 4 min.
    """
    commit(runs[0], 4)
    stream = io.StringIO()
    progress = Progress(5, runs, stream)
    progress.show(runs[:2], done=2, failed=[])
    for run, round_ in ((runs[0], 5), (runs[0], 6), (runs[1], 0), (runs[1], 1)):
        commit(run, round_)
    clock[0] += 59
    progress.show(runs[:2], done=2, failed=[])  # nothing has ended, and no minute is over
    clock[0] += 1
    progress.show(runs[:2], done=2, failed=[])
    progress.show(runs[:2], done=2, failed=[runs[2].folder])
    progress.close()
    assert stream.getvalue().splitlines() == [
        "2 of 5 runs: one 4/10, two 0/10",
        "2 of 5 runs, 8 min left: one 6/10, two 1/10",
        "2 of 5 runs, 1 failed, 4 min left: one 6/10, two 1/10",
    ]


def test_a_terminal_is_written_in_place(runs: list[Config], monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "20")
    progress = Progress(3, runs, stream)
    progress.show(runs, done=0, failed=[])
    progress.show(runs, done=0, failed=[])
    progress.close()
    assert stream.getvalue() == 2 * "\r0 of 3 runs: one 0/\x1b[K" + "\n"


def test_a_run_without_rows_has_done_no_round(tmp_path: Path) -> None:
    assert rounds_done(tmp_path / "nowhere") == 0
