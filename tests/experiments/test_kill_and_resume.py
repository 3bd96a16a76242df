"""The demo in short form, killed at random moments: its rows are those of a run left in peace, on every engine."""

import random
import time
from pathlib import Path

import pandas as pd
import pytest

from experiments.torture.processes import Command
from flsim.metrics.rows import read_rows, without_timing
from flsim.models.folder import CLOUD_DIR

ROUNDS = 4
SHORT = [
    f"rounds={ROUNDS}",
    "fleet.devices=8",
    "engine.pack=4",
    "client.steps=2",
    *([] if (CLOUD_DIR / "config.json").exists() else ["cloud.kind=oracle"]),
]

pytestmark = pytest.mark.slow


def demo(folder: Path, *more: str) -> Command:
    return Command(["run", "demo", *SHORT, f"run_dir={folder}", *more])


def resume(folder: Path) -> Command:
    return Command(["resume", str(folder)])


def finish(command: Command) -> None:
    ending = command.finish()
    assert ending.status == 0, ending.said


def wait_for_rounds(folder: Path, command: Command, starts: int) -> None:
    """Until the log says that the rounds have begun, for the `starts`-th time."""
    deadline = time.monotonic() + 120
    log = folder / "run.log"
    while not log.exists() or log.read_text().count(" devices on ") < starts:
        assert command.runs, "the run ended before its rounds began"
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def in_peace(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, float]:
    """Rows of a run left in peace, with two workers, and the seconds that its rounds took."""
    folder = tmp_path_factory.mktemp("demo") / "peace"
    command = demo(folder)
    wait_for_rounds(folder, command, 1)
    began = time.monotonic()
    while not (folder / "checkpoints" / f"round-{ROUNDS:05d}.npz").exists():
        assert command.runs
        time.sleep(0.05)
    seconds = time.monotonic() - began
    finish(command)
    rows = without_timing(read_rows(folder))
    assert set(rows["round"]) == set(range(ROUNDS + 1))
    assert not (rows["name"] == "set_aside").any()
    return rows, seconds


def assert_same(folder: Path, rows: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(without_timing(read_rows(folder)), rows, check_exact=True)


@pytest.mark.parametrize("engine", [("engine.workers=1",), ("engine.kind=local",)], ids=["one worker", "local"])
def test_rows_do_not_depend_on_the_engine(
    in_peace: tuple[pd.DataFrame, float], tmp_path: Path, engine: tuple[str, ...]
) -> None:
    finish(demo(tmp_path / "run", *engine))
    assert_same(tmp_path / "run", in_peace[0])


def test_five_kills_at_random_moments_change_nothing(in_peace: tuple[pd.DataFrame, float], tmp_path: Path) -> None:
    """Each kill comes up to 40 % of an undisturbed run's time after its rounds began, so some commit nothing new."""
    rows, seconds = in_peace
    folder = tmp_path / "run"
    moments = random.Random(0)
    command = demo(folder)
    killed = 0
    for starts in range(1, 6):
        wait_for_rounds(folder, command, starts)
        time.sleep(moments.uniform(0.0, 0.4 * seconds))
        killed += command.runs and not (folder / "adapter").exists()
        command.kill()
        if (folder / "checkpoints" / f"round-{ROUNDS:05d}.npz").exists():
            break  # nothing is left to kill
        command = resume(folder)
    finish(command if command.runs else resume(folder))
    assert killed >= 3
    assert_same(folder, rows)
    assert (folder / "report.html").exists()
