"""Two commands in one run's folder: the second is refused with a sentence, and the first one's run is left in peace."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import psutil
import pytest

from flsim.metrics.rows import read_rows, without_timing
from tests.tiny import tiny_file

ROOT = Path(__file__).resolve().parents[3]

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    """Whatever a test has started and left, stopped or not, is killed."""
    yield
    for child in psutil.Process().children(recursive=True):
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "flsim", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 400
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_ctrl_z_then_a_resume_elsewhere_then_fg(tiny_checkpoint: Path, tmp_path: Path, engine: str) -> None:
    """The resume, another run and a report are refused while the first is stopped; what it makes then is whole."""
    file = str(tiny_file(tmp_path, tiny_checkpoint, "rounds=12", f"engine.kind={engine}"))
    peace = start(tmp_path, "run", file, "run_dir=peace", "engine.kind=local")
    first = start(tmp_path, "run", file, "run_dir=run")
    folder = tmp_path / "run"
    wait_for(folder / "checkpoints" / "round-00001.npz", first)
    first.send_signal(signal.SIGSTOP)
    while psutil.Process(first.pid).status() != psutil.STATUS_STOPPED:
        time.sleep(0.01)
    for arguments in (["resume", "run"], ["resume", "run", "--until", "1"], ["run", file, "run_dir=run"]):
        second = start(tmp_path, *arguments)
        _, err = second.communicate(timeout=400)
        assert second.returncode == 2
        assert err.startswith("error: the run folder run ")
        assert (f"in use by process {first.pid} on " in err) == (arguments[0] == "resume")
        assert "Traceback" not in err
    first.send_signal(signal.SIGCONT)
    for process in (first, peace):
        _, err = process.communicate(timeout=400)
        assert process.returncode == 0, err
    rows = [without_timing(read_rows(run)) for run in (folder, tmp_path / "peace")]
    pd.testing.assert_frame_equal(rows[0], rows[1], check_exact=True)


@pytest.mark.parametrize("who", ["driver", "driver and its children stay"])
def test_a_kill_lets_the_folder_go_even_while_rays_processes_live(
    tiny_checkpoint: Path, tmp_path: Path, who: str
) -> None:
    file = str(tiny_file(tmp_path, tiny_checkpoint, "rounds=12", "engine.kind=ray"))
    first = start(tmp_path, "run", file, "run_dir=run")
    wait_for(tmp_path / "run" / "checkpoints" / "round-00001.npz", first)
    family = psutil.Process(first.pid).children(recursive=True)
    assert family
    for child in family if who != "driver" else ():
        child.suspend()  # so that they cannot end with their driver
    first.kill()
    first.wait(timeout=30)  # not to the end of its standard error, which its children still have
    second = start(tmp_path, "resume", "run", "engine.kind=local")
    _, err = second.communicate(timeout=400)
    for child in family:
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
    assert second.returncode == 0, err
