"""One process per run folder: who is refused and told whom, who takes over, and who finds that it was taken over."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest

from flsim.config.schema import ConfigError
from flsim.loop import lock as lock_module
from flsim.loop.lock import OWNER, FolderInUseError, Owner, RunLock, owner_of

HOLDS = """
import sys, time
from pathlib import Path
from flsim.loop import lock
if sys.argv[2] == "no locks":
    lock.RunLock._flock = lambda self: None
with lock.RunLock(Path(sys.argv[1]), beat_s=0.05):
    print("has it", flush=True)
    time.sleep(600)
"""


@contextmanager
def another_process(folder: Path, locks: str = "locks") -> Iterator[subprocess.Popen[str]]:
    """Another process that has the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLDS, str(folder), locks], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "has it\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def lease(folder: Path) -> Owner:
    return Owner(**json.loads((folder / OWNER).read_text()))


def leave_lease(folder: Path, owner: Owner) -> None:
    folder.mkdir(exist_ok=True)
    (folder / OWNER).write_text(json.dumps(asdict(owner)))


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system that answers `flock` with ENOLCK."""
    monkeypatch.setattr(RunLock, "_flock", lambda self: None)


def elsewhere(**other: object) -> Owner:
    """An owner on another machine."""
    return replace(Owner.me(), host="node-7", pid=4711, machine="another kernel", **other)  # type: ignore[arg-type]


def test_another_process_is_refused_by_name_while_it_runs_or_is_stopped_and_not_after_a_kill(tmp_path: Path) -> None:
    with another_process(tmp_path) as process:
        who = rf"in use by process {process.pid} on \S+, since \d{{4}}-\d\d-\d\d"
        with pytest.raises(FolderInUseError, match=who) as caught:
            RunLock(tmp_path).__enter__()
        assert f"end it there (kill {process.pid}), then resume it" in str(caught.value)
        process.send_signal(signal.SIGSTOP)
        while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
            time.sleep(0.01)
        with pytest.raises(FolderInUseError, match=rf"it is stopped; kill -CONT {process.pid} lets it go on"):
            RunLock(tmp_path).__enter__()
    with RunLock(tmp_path):  # the lease is still there, and the lock is not
        assert lease(tmp_path).pid == os.getpid()


def test_this_process_is_refused_too_and_may_come_back(tmp_path: Path) -> None:
    with RunLock(tmp_path), pytest.raises(FolderInUseError, match="in use by this very process, since"):
        RunLock(tmp_path / "." / "").__enter__()
    with RunLock(tmp_path), RunLock(tmp_path / "other"):
        pass
    assert not (tmp_path / OWNER).exists()


def test_a_forked_child_neither_keeps_the_lock_nor_lets_it_go(tmp_path: Path) -> None:
    done, go = os.pipe(), os.pipe()
    held = RunLock(tmp_path)
    with held:
        child = os.fork()
        if child == 0:  # outlives the lock's owner, like a worker
            held.__exit__(None, None, None)
            os.write(done[1], b"x")
            os.read(go[0], 1)
            os._exit(0)
        os.read(done[0], 1)
        assert lease(tmp_path).pid == os.getpid()
    with RunLock(tmp_path):
        pass
    os.write(go[1], b"x")
    os.waitpid(child, 0)


def test_programs_that_are_started_do_not_inherit_the_lock(tmp_path: Path) -> None:
    with RunLock(tmp_path) as held:
        sleeper = subprocess.Popen(["sleep", "60"], close_fds=False)
        assert held._lock is not None
    with RunLock(tmp_path):
        pass
    sleeper.kill()
    sleeper.wait()


def test_a_folder_that_cannot_be_written_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"run folder .*file cannot be taken .*choose another run_dir"):
        RunLock(tmp_path / "file").__enter__()


@pytest.mark.usefixtures("no_locks")
def test_without_locks_a_process_of_this_machine_is_refused_while_it_lives(tmp_path: Path) -> None:
    with another_process(tmp_path, "no locks") as process, pytest.raises(FolderInUseError, match=str(process.pid)):
        RunLock(tmp_path).__enter__()
    began = time.monotonic()
    with RunLock(tmp_path):
        assert time.monotonic() - began < 10.0  # nobody waits for a process that is gone


@pytest.mark.usefixtures("no_locks")
def test_a_process_number_that_was_given_anew_is_no_owner(tmp_path: Path) -> None:
    leave_lease(tmp_path, replace(Owner.me(), started=1.0))
    with RunLock(tmp_path) as held:
        held.check()
        assert json.loads((tmp_path / OWNER).read_text())["token"] == held.owner.token


@pytest.mark.parametrize("locks", [True, False], ids=["locks of one machine only", "no locks"])
def test_another_machine_has_it_while_its_lease_is_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locks: bool
) -> None:
    """Some file systems lock, but each machine for itself."""
    if not locks:
        monkeypatch.setattr(RunLock, "_flock", lambda self: None)
    leave_lease(tmp_path, elsewhere(beat=1))
    renewal = threading.Timer(0.3, leave_lease, (tmp_path, elsewhere(beat=2)))
    renewal.start()
    with pytest.raises(FolderInUseError, match="process 4711 on node-7"):
        RunLock(tmp_path, expiry_s=5.0).__enter__()
    renewal.join()


@pytest.mark.parametrize("locks", [True, False], ids=["locks of one machine only", "no locks"])
def test_a_lease_that_stands_still_is_taken_over_and_its_owner_finds_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locks: bool
) -> None:
    """The clocks of the machines do not matter: the lease is watched, not dated."""
    if not locks:
        monkeypatch.setattr(RunLock, "_flock", lambda self: None)
    monkeypatch.setattr(lock_module, "_SETTLE_S", 0.05)
    leave_lease(tmp_path, elsewhere(since="2099-01-01 00:00:00"))
    with RunLock(tmp_path, expiry_s=0.3) as new:
        new.check()
        assert lease(tmp_path).token == new.owner.token


@pytest.mark.usefixtures("no_locks")
def test_an_earlier_owner_that_wakes_up_stops_and_leaves_the_lease_alone(tmp_path: Path) -> None:
    with RunLock(tmp_path, beat_s=0.05) as early:
        early.check()
        late = elsewhere()
        leave_lease(tmp_path, late)
        time.sleep(0.3)  # it does not beat over another's lease
        with pytest.raises(FolderInUseError, match="was taken over by process 4711 on node-7") as caught:
            early.check()
        assert "commits nothing more" in str(caught.value)
    assert lease(tmp_path) == late


@pytest.mark.usefixtures("no_locks")
def test_of_two_that_take_a_folder_without_locks_at_once_one_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other writes its lease while the first waits to see who else is there."""
    monkeypatch.setattr(lock_module, "_SETTLE_S", 0.3)
    threading.Timer(0.1, leave_lease, (tmp_path, elsewhere())).start()
    with pytest.raises(FolderInUseError, match="4711 on node-7"):
        RunLock(tmp_path).__enter__()


def test_a_lease_beats_and_one_that_was_tidied_away_comes_back_under_the_lock(tmp_path: Path) -> None:
    def until(true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 10.0
        while not true():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    with RunLock(tmp_path, beat_s=0.02):
        first = lease(tmp_path).beat
        until(lambda: lease(tmp_path).beat > first)
    with RunLock(tmp_path) as held:
        (tmp_path / OWNER).unlink()
        held.check()
        assert lease(tmp_path).token == held.owner.token


@pytest.mark.usefixtures("no_locks")
def test_without_locks_a_lease_that_was_tidied_away_is_lost(tmp_path: Path) -> None:
    with RunLock(tmp_path) as held:
        (tmp_path / OWNER).unlink()
        with pytest.raises(FolderInUseError, match="somebody who has left it since"):
            held.check()


@pytest.mark.parametrize(
    "damage", [{"pid": -1}, {"pid": "x"}, {"started": None}, {"started": "x"}, {"color": 1}, "[" * 100_000, "3"]
)
def test_a_damaged_lease_is_nobodys_too(damage: dict[str, object] | str, tmp_path: Path) -> None:
    text = damage if isinstance(damage, str) else json.dumps({**asdict(Owner.me()), **damage})
    (tmp_path / OWNER).write_text(text)
    assert owner_of(tmp_path) is None


def test_a_lease_that_cannot_be_read_is_nobodys(tmp_path: Path) -> None:
    for damage in (b"", b"{", b'{"host": 3}', b"\xff"):
        (tmp_path / OWNER).write_bytes(damage)
        with RunLock(tmp_path) as held:
            held.check()
            assert json.loads((tmp_path / OWNER).read_text())["token"] == held.owner.token
