"""The process beside a driver: it says a word for a driver that could not, and ends what is left of its Ray."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from flsim.flower.guard import Guard, RayDiedError
from flsim.flower.sentinel import lives, watch

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def sleepers() -> Iterator[list[psutil.Popen]]:
    """Three processes that stand for Ray's."""
    started = [psutil.Popen(SLEEP) for _ in range(3)]
    yield started
    for process in started:
        with suppress(psutil.NoSuchProcess):
            process.kill()
        process.wait()


def lines(raylet: psutil.Popen, family: list[psutil.Popen]) -> list[str]:
    keepers = {"raylet": (raylet.pid, raylet.create_time())}
    return [json.dumps([keepers, [(process.pid, process.create_time()) for process in family]])]


def test_a_driver_that_ends_by_itself_needs_no_word(sleepers: list[psutil.Popen]) -> None:
    assert watch([*lines(sleepers[0], sleepers), "END"]) is None
    assert all(lives(process) for process in sleepers)


def test_a_driver_that_is_gone_gets_its_word_and_its_family_ends(sleepers: list[psutil.Popen]) -> None:
    """A process of the same number that is another's, as it started at another time, is left alone."""
    said = json.loads(lines(sleepers[0], sleepers[:2])[0])
    said[1].append((sleepers[2].pid, sleepers[2].create_time() - 1))
    assert (watch([json.dumps(said)]) or "").startswith("the run's process died: it was ended by kill -9")
    assert [lives(process) for process in sleepers] == [False, False, True]


def test_a_dead_raylet_is_to_blame(sleepers: list[psutil.Popen]) -> None:
    said = lines(sleepers[0], sleepers)
    sleepers[0].kill()
    sleepers[0].wait()
    assert f"and Ray's raylet (process {sleepers[0].pid}) both died: one of them was ended by" in (watch(said) or "")


def test_the_process_speaks_when_its_driver_is_killed(tmp_path: Path, sleepers: list[psutil.Popen]) -> None:
    """A driver that is killed in the middle of whatever it does, with a sentinel that Ctrl-C does not end."""
    (tmp_path / "config.yaml").touch()
    code = (
        "import sys, time, pathlib, psutil\n"
        "from flsim.flower.sentinel import Sentinel\n"
        "sentinel = Sentinel(pathlib.Path(sys.argv[1]))\n"
        "sentinel.know({}, [psutil.Process(int(sys.argv[2]))])\n"
        "print(sentinel.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path), str(sleepers[0].pid)]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    sentinel = psutil.Process(int(driver.stdout.readline()))
    while "flsim.flower.sentinel" not in sentinel.cmdline() or sentinel.num_threads() == 0:
        time.sleep(0.01)
    driver.kill()
    _, err = driver.communicate(timeout=60)
    assert "error: the run's process died: it was ended by" in err
    assert err.rstrip().endswith(f"no round was finished yet; go on with: flsim resume {tmp_path}")
    assert not lives(sleepers[0])


def test_what_fails_because_a_process_of_ray_died_is_told_as_that(sleepers: list[psutil.Popen]) -> None:
    guard = Guard()
    guard._keepers = {"raylet": sleepers[0], "gcs_server": sleepers[1]}

    def fail() -> None:
        with guard.blamed():
            raise OSError("broken pipe")

    with pytest.raises(OSError, match="broken pipe"):
        fail()
    assert guard.holds
    sleepers[1].send_signal(signal.SIGKILL)
    sleepers[1].wait()
    with pytest.raises(RayDiedError, match=rf"Ray's GCS server \(process {sleepers[1].pid}\) died"):
        fail()
    assert not guard.holds
