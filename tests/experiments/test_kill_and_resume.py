"""The demo in short form, killed at random moments: its rows are those of a run left in peace, on every engine."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest

from flsim.metrics.rows import read_rows, without_timing
from flsim.models.folder import CLOUD_DIR

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 4
SHORT = [
    f"rounds={ROUNDS}",
    "fleet.devices=8",
    "engine.pack=4",
    "client.steps=2",
    *([] if (CLOUD_DIR / "config.json").exists() else ["cloud.kind=oracle"]),
]

pytestmark = pytest.mark.slow


def start(*arguments: str | Path) -> subprocess.Popen[bytes]:
    """The command as the leader of a process group."""
    return subprocess.Popen(
        [sys.executable, "-m", "flsim", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def demo(folder: Path, *more: str) -> subprocess.Popen[bytes]:
    return start("run", "demo", *SHORT, f"run_dir={folder}", *more)


def finish(process: subprocess.Popen[bytes]) -> None:
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err.decode()


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to the command's group and to everything that descends from it: Ray, its raylet, the workers."""
    family = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGKILL)
    for member in family:
        try:
            member.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, timeout=20)
    process.communicate(timeout=20)


def wait_for_rounds(folder: Path, process: subprocess.Popen[bytes], starts: int) -> None:
    """Until the log says that the rounds have begun, for the `starts`-th time."""
    deadline = time.monotonic() + 120
    log = folder / "run.log"
    while not log.exists() or log.read_text().count(" devices on ") < starts:
        assert process.poll() is None, "the run ended before its rounds began"
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def in_peace(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, float]:
    """Rows of a run left in peace, with two workers, and the seconds that its rounds took."""
    folder = tmp_path_factory.mktemp("demo") / "peace"
    process = demo(folder)
    wait_for_rounds(folder, process, 1)
    began = time.monotonic()
    while not (folder / "checkpoints" / f"round-{ROUNDS:05d}.npz").exists():
        assert process.poll() is None
        time.sleep(0.05)
    seconds = time.monotonic() - began
    finish(process)
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
    process = demo(folder)
    killed = 0
    for starts in range(1, 6):
        wait_for_rounds(folder, process, starts)
        time.sleep(moments.uniform(0.0, 0.4 * seconds))
        killed += process.poll() is None and not (folder / "adapter").exists()
        kill(process)
        if (folder / "checkpoints" / f"round-{ROUNDS:05d}.npz").exists():
            break  # nothing is left to kill
        process = start("resume", folder)
    finish(start("resume", folder) if process.poll() is not None else process)
    assert killed >= 3
    assert_same(folder, rows)
    assert (folder / "report.html").exists()
