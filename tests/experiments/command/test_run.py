"""The command as a user types it: help, mistakes, a small run, Ctrl-C and the resume it proposes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.command.__main__ import main
from flsim.metrics.rows import read_rows, without_timing
from tests.tiny import tiny_file

ROOT = Path(__file__).resolve().parents[3]
COMMAND = [sys.executable, "-m", "flsim"]


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    """The command in a process of its own, from the repository's root; RAY_ADDRESS names a cluster that is not there.

    Without `engine.address` a run starts a Ray of its own, whatever that variable says.
    """
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "RAY_ADDRESS": "192.0.2.99:6379"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit status, stdout and stderr."""
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


@pytest.fixture
def tiny(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A config file of a run as small as it gets; its folder is `run` beside it."""
    more = ("evaluation.every_rounds=1", "client.prompts=2", "client.group_size=2", "client.max_new_tokens=3")
    return tiny_file(tmp_path, tiny_checkpoint, f"run_dir={tmp_path / 'run'}", *more)


def test_a_strategy_that_returns_nothing_is_named_and_the_run_can_go_on(
    tiny: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    no_report: None,
) -> None:
    """Its file and line stand in the message, and once it is mended `flsim resume` goes on."""
    monkeypatch.setattr("flsim.report.table.end_table", lambda summary: "done")
    file = tmp_path / "mine.py"
    body = "from strategies.base import DeltaStrategy\nclass Mine(DeltaStrategy):\n def aggregate(self, adapter, _):\n"
    file.write_text(body + "        pass\n")
    assert main(["run", str(tiny), f"strategy.path={file}:Mine"]) == 2
    said = capsys.readouterr().err
    assert f"error: Mine ({file}:2) returned None instead of the next adapter" in said
    assert f"go on with: flsim resume {tmp_path / 'run'}" in said
    file.write_text(body + "        return adapter\n")
    assert main(["resume", str(tmp_path / "run")]) == 0
    assert "done" in capsys.readouterr().out


def test_help_and_mistakes(tiny: Path, tmp_path: Path) -> None:
    """Help says how to set keys; a mistake exits 2 with one message, without a traceback and without a folder."""
    asked, wrong = start("run", "--help"), start("run", tiny, "fleet.devicess=3")
    status, out, err = finish(asked)
    assert (status, err) == (0, "")
    assert "flsim explain budget.tau" in out
    assert "--until ROUND" in out
    status, out, err = finish(wrong)
    assert (status, out) == (2, "")
    assert "Traceback" not in err
    assert err.startswith("error: unknown key 'fleet.devicess'")
    assert "did you mean fleet.devices?" in err
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def test_a_small_run_prints_its_table_and_where_the_report_is(tiny: Path, tmp_path: Path) -> None:
    status, out, err = finish(start("run", tiny, "seed=3"))
    assert status == 0, err
    assert "Traceback" not in err
    report = tmp_path / "run" / "report.html"
    assert out.rstrip().endswith(f"report: {report}")
    assert report.exists()
    table = out.split("\nreport:")[0]
    for word in ("global", "frozen", "random", "cloud"):
        assert word in table
    status, out, err = finish(start("run", tiny, "seed=3"))  # the same again would overwrite it
    assert status == 2
    assert f"flsim resume {tmp_path / 'run'}" in err


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 180
    while not path.exists():
        assert process.poll() is None, f"ended before {path.name} was there: {process.communicate()[1]}"
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.usefixtures("hears_ctrl_c")
def test_ctrl_c_says_how_to_go_on_and_going_on_finishes(tiny: Path, tmp_path: Path) -> None:
    """Stopped after the commit of round 1, with Ray workers; resumed, its rows are those of a run left in peace."""
    run = tmp_path / "run"
    process = start("run", tiny, "rounds=40", "evaluation.every_rounds=40", "engine.kind=ray", "engine.workers=1")
    wait_for(run / "checkpoints" / "round-00001.npz", process)
    process.send_signal(signal.SIGINT)
    status, out, err = finish(process)
    assert status == 130
    assert out == ""
    assert "Traceback" not in err
    assert "stopped; everything up to round " in err
    assert err.rstrip().endswith(f" is kept; go on with: flsim resume {run}")
    assert not (run / "report.html").exists()
    status, out, err = finish(start("resume", run, "engine.kind=local"))
    assert status == 0, err
    assert f"report: {run / 'report.html'}" in out
    peace = tmp_path / "peace"
    status, _, err = finish(start("run", tiny, "rounds=40", "evaluation.every_rounds=40", f"run_dir={peace}"))
    assert status == 0, err
    assert without_timing(read_rows(run)).equals(without_timing(read_rows(peace)))
