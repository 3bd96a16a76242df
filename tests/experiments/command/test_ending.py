"""How a command ends when it cannot go on: in one sentence, with what is kept, and with nothing left behind."""

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

import flsim
from experiments.command.__main__ import main
from experiments.command.ending import Stopped, hearing_signals
from flsim.config.schema import Config
from tests.experiments.command.test_run import finish, start, wait_for
from tests.kept import states_file
from tests.tiny import TinyRun, tiny_file

LONG = ("rounds=400", "evaluation.every_rounds=400", "client.prompts=2", "client.group_size=2")
RAY = ("engine.kind=ray", "engine.workers=1")


@pytest.fixture
def tiny(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A config file of a long run of small rounds; its folder is `my run` beside it."""
    return tiny_file(tmp_path, tiny_checkpoint, f"run_dir={tmp_path / 'my run'}", *LONG)


def assert_told(err: str, run: Path) -> None:
    """The last lines say what is kept and how to go on, as it can be pasted; there is no traceback."""
    assert "Traceback" not in err
    last = err.rstrip().splitlines()[-1]
    assert "everything up to round " in last
    assert last.endswith(f"go on with: flsim resume {shlex.quote(str(run))}")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signals_are_heard_once_and_handlers_come_back(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A second one while the command ends does not disturb it; one that was ignored stays so."""
    number = getattr(signal, name)
    before = signal.signal(number, signal.default_int_handler)
    ended = []

    def work() -> None:
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(number)
            ended.append(True)

    with pytest.raises(Stopped) as caught, hearing_signals(for_good=False):
        work()
    assert ended == [True]
    assert caught.value.status == 128 + number
    assert "stopping; another signal in a few seconds ends at once" in capsys.readouterr().err
    assert signal.getsignal(number) is signal.default_int_handler
    signal.signal(number, signal.SIG_IGN)
    with hearing_signals(for_good=False):
        signal.raise_signal(number)
    signal.signal(number, before)


@pytest.mark.usefixtures("hears_ctrl_c")
@pytest.mark.parametrize("signal_name", ["SIGINT", "SIGTERM"])
def test_a_stop_before_there_is_a_run_advises_no_resume(
    tiny: Path, tmp_path: Path, signal_name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither where nothing was written yet, nor where the folder holds the run of somebody else."""

    def stopped(*given: object, **more: object) -> None:
        signal.raise_signal(getattr(signal, signal_name))

    monkeypatch.setattr("flsim.loop.home.refuse_home", stopped)
    monkeypatch.setattr("experiments.command.first_look.refuse_home", lambda config: None)  # it would be the first
    for said in ("nothing of a run was written", f"nothing was written to {tmp_path / 'my run'}"):
        assert main(["run", str(tiny)]) == 128 + getattr(signal, signal_name)
        err = capsys.readouterr().err
        assert err == f"\nstopped; {said}\n"
        (tmp_path / "my run").mkdir(exist_ok=True)
        (tmp_path / "my run" / "config.yaml").write_text("seed: 0")


def block(path: Path) -> Path:
    """Have this process's next write of a file fail: a folder is where its part would be."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.mkdir(parents=True)
    return part


ROUND_FILES = {
    "rows/round-00001.parquet": "the rows of a round",
    "checkpoints/round-00001.npz": "the checkpoint of round 1",
    "devices": "the states of round 1",
    "timing/round-00001.json": "the timing of round 1",
}
REPORT_FILES = {
    "adapter/adapter_model.safetensors": "the adapter",
    "summary.json": "the summary",
    "ledger.parquet": "a table of the report",
    "plots/overview.png": "a picture",
    "report.html": "the report",
}


def assert_refused(config: Config, name: str, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A resume ends at this file with a sentence."""
    part = block(config.folder / name)
    assert main(["resume", str(config.folder)]) == 2
    err = capsys.readouterr().err
    assert f"error: {what} could not be written to {config.folder / name}: Is a directory" in err
    assert_told(err, config.folder)
    part.rmdir()


def test_each_write_of_a_round_that_fails_ends_the_run_in_a_sentence_and_a_resume_goes_on(
    tiny_run: TinyRun, no_report: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("flsim.report.table.end_table", lambda summary: "done")
    config = tiny_run("my run", "rounds=1", "evaluation.every_rounds=1")
    flsim.run(config, until=0, progress=False)
    for name, what in ROUND_FILES.items():
        # a file of states is named by what is in it, and lies there since the rows could not be written
        file = name if name != "devices" else f"devices/{states_file(config.folder, 1).name}"
        assert_refused(config, file, what, capsys)
    assert main(["resume", str(config.folder)]) == 0
    assert not list(config.folder.rglob("*.part"))


@pytest.mark.slow
def test_each_write_of_the_report_that_fails_ends_in_a_sentence_and_a_resume_finishes_it(
    tiny_run: TinyRun, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_run("my run", "rounds=1", "evaluation.every_rounds=1")
    flsim.run(config, progress=False)
    for name, what in REPORT_FILES.items():
        assert_refused(config, name, what, capsys)
    assert main(["resume", str(config.folder)]) == 0
    assert (config.folder / "report.html").is_file()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of five megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a small file system")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("engine", [("engine.kind=local",), RAY], ids=["local", "ray"])
def test_a_full_disk_ends_the_run_in_a_sentence_and_room_lets_it_go_on(
    tiny: Path, small_disk: Path, engine: tuple[str, ...]
) -> None:
    """What fills the disk is another's file, of which less and less is left to the run."""
    run = small_disk / "my run"
    ballast = small_disk / "ballast"
    process = start("run", tiny, f"run_dir={run}", "rounds=60", "evaluation.every_rounds=60", *engine)
    wait_for(run / "checkpoints" / "round-00002.npz", process)
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    status, out, err = finish(process)
    assert (status, out) == (2, "")
    assert "could not be written to" in err
    assert "No space left on device (it takes " in err
    assert_told(err, run)
    ballast.unlink()
    status, _, err = finish(start("resume", run))
    assert status == 0, err
    assert not list(run.rglob("*.part"))


def family_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def assert_gone(family: list[psutil.Process]) -> None:
    _, left = psutil.wait_procs(family, timeout=5)
    assert not [process for process in left if process.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["raylet", "gcs_server"])
def test_a_process_of_ray_that_dies_is_named_and_nothing_of_it_stays(tiny: Path, tmp_path: Path, name: str) -> None:
    run = tmp_path / "my run"
    process = start("run", tiny, *RAY)
    wait_for(run / "checkpoints" / "round-00001.npz", process)
    family = family_of(process)
    (victim,) = (child for child in family if child.name() == name)
    victim.kill()
    status, _, err = finish(process)
    assert status in (1, 2)  # 1 where Ray was the first to end the driver, whose sentinel speaks for it
    assert f"(process {victim.pid})" in err
    assert_told(err, run)
    assert_gone(family)
    status, _, err = finish(start("resume", run, "engine.kind=local", "--until", "3"))
    assert status == 0, err


@pytest.mark.slow
def test_a_driver_that_is_killed_leaves_a_word_and_no_process_of_ray(tiny: Path, tmp_path: Path) -> None:
    run = tmp_path / "my run"
    process = start("run", tiny, *RAY)
    wait_for(run / "checkpoints" / "round-00001.npz", process)
    family = family_of(process)
    process.kill()
    status, _, err = finish(process)
    assert status == -signal.SIGKILL
    assert "error: the run's process" in err
    assert "was ended by kill -9" in err
    assert_told(err, run)
    assert_gone(family)


@pytest.mark.slow
@pytest.mark.usefixtures("hears_ctrl_c")
@pytest.mark.parametrize("engine", [("engine.kind=local",), RAY], ids=["local", "ray"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_a_run_alike_on_every_engine(
    tiny: Path, tmp_path: Path, engine: tuple[str, ...], number: signal.Signals
) -> None:
    """Sent twice, as by somebody in a hurry."""
    run = tmp_path / "my run"
    process = start("run", tiny, *engine)
    wait_for(run / "checkpoints" / "round-00001.npz", process)
    family = family_of(process)
    process.send_signal(number)
    time.sleep(0.2)
    process.send_signal(number)
    status, out, err = finish(process)
    assert (status, out) == (128 + number, "")
    assert "SIGTERM received" not in err
    assert_told(err, run)
    assert_gone(family)


@pytest.mark.slow
def test_a_signal_while_ray_stops_and_the_report_is_made_is_heard(tiny: Path, tmp_path: Path) -> None:
    run = tmp_path / "my run"
    process = start("run", tiny, *RAY, "rounds=1", "evaluation.every_rounds=1")
    wait_for(run / "checkpoints" / "round-00001.npz", process)
    family = family_of(process)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    status, out, err = finish(process)
    assert (status, out) == (128 + signal.SIGTERM, "")
    assert_told(err, run)
    assert_gone(family)


@pytest.mark.slow
@pytest.mark.usefixtures("hears_ctrl_c")
@pytest.mark.parametrize("engine", [("engine.kind=local",), RAY], ids=["local", "ray"])
def test_a_signal_at_any_moment_of_the_start_ends_in_a_sentence(
    tiny: Path, tmp_path: Path, engine: tuple[str, ...]
) -> None:
    """From the first imports to the first rounds, in steps of half a second."""
    for step in range(14):
        run = tmp_path / f"run{step}"
        process = start("run", tiny, f"run_dir={run}", *engine)
        time.sleep(0.3 + 0.5 * step)
        family = family_of(process)
        process.send_signal(signal.SIGTERM if step % 2 else signal.SIGINT)
        status, _, err = finish(process)
        assert status == (143 if step % 2 else 130), err
        assert "Traceback" not in err
        assert "stopped" in err.splitlines()[-1]
        begun = (run / "config.yaml").is_file()
        assert (f"go on with: flsim resume {run}" in err) == begun
        assert_gone(family)


@pytest.mark.slow
def test_a_worker_that_cannot_write_ends_the_run(tiny: Path, tmp_path: Path) -> None:
    """On Ray, too, a state that cannot be written is no fault of its device, which is not set aside for it."""
    run = tmp_path / "my run"
    assert finish(start("run", tiny, "--until", "0", "engine.kind=local"))[0] == 0
    own = run / "devices" / "device-001"
    own.mkdir(parents=True, exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(own)], capture_output=True).returncode:
        pytest.skip("only root may mount a folder that is read-only")
    try:
        status, _, err = finish(start("resume", run, *RAY))
    finally:
        subprocess.run(["umount", str(own)], check=True)
    assert status == 2, err
    assert "error: the state of device-001 could not be written to" in err
    assert "everything up to round 0 is kept" in err
    assert "Traceback" not in err
