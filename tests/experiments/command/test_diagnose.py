"""`flsim diagnose` and `--fail-on`, on a run whose random model is never right: its groups teach nothing, a fault."""

import json
import shutil
from pathlib import Path

import pytest

import flsim
from experiments.command.__main__ import main
from experiments.command.complete import candidates
from experiments.command.diagnose import SEVERITIES
from flsim.config.schema import ConfigError
from flsim.diagnosis.finding import SEVERITIES as ALL
from flsim.report.summary import read_summary
from tests.tiny import tiny_file, without_pictures


@pytest.fixture(scope="module")
def folder(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a finished run, which was told to fail on a fault."""
    root = tmp_path_factory.mktemp("diagnosed")
    grpo = ("client.path=clients.grpo:Grpo", "rounds=3", "evaluation.every_rounds=3", f"run_dir={root / 'run'}")
    with without_pictures():
        assert main(["run", str(tiny_file(root, tiny_checkpoint, *grpo)), "--fail-on", "fault"]) == 1
    return root / "run"


def test_the_summary_the_page_and_the_command_say_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also of a copy of the run without its report, as an older one is."""
    found = flsim.diagnose(folder)
    assert [one.name for one in found if one.severity == "fault"] == ["reward_collapse"]
    assert read_summary(folder).findings == found
    page = (folder / "report.html").read_text()
    assert page.index("Diagnosis: 1 fault") < page.index("<h2>")
    old = Path(shutil.copytree(folder, folder.parent / "old"))
    (old / "summary.json").unlink()
    assert flsim.diagnose(old) == found
    assert main(["diagnose", str(old), str(folder)]) == 0
    out = capsys.readouterr().out
    assert out.count("fault: reward collapse") == 2
    assert "name in ['effective_groups', 'unanimous_groups', 'reward'] and 1 <= round <= 3" in out


@pytest.mark.parametrize(("severity", "status"), [("fault", 1), ("warning", 1), ("note", 1)])
def test_the_status_is_1_from_that_severity_on(folder: Path, severity: str, status: int) -> None:
    assert main(["diagnose", str(folder), "--fail-on", severity]) == status
    assert main(["diagnose", str(folder)]) == 0


@pytest.mark.usefixtures("no_pictures")
def test_a_run_ends_with_its_findings_and_is_kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A resume of the finished run ends in the same way."""
    assert main(["resume", str(folder), "--fail-on", "fault"]) == 1
    out = capsys.readouterr().out
    assert "diagnosis: 1 fault" in out
    assert "  fault: In rounds 1 to 3 " in out
    assert max(map(len, out.splitlines())) <= 100 or str(folder) in out
    assert json.loads((folder / "summary.json").read_text())["findings"][0]["rows"][0]["first"] == 1


def test_what_is_no_run_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", str(tmp_path)]) == 2
    assert "is no run: it has no config.yaml" in capsys.readouterr().err
    (tmp_path / "config.yaml").write_text("name: mine\n")
    with pytest.raises(ConfigError, match="none of its rounds has ended"):
        flsim.diagnose(tmp_path)
    with pytest.raises(SystemExit):
        main(["diagnose", str(tmp_path), "--fail-on", "doom"])


def test_the_command_is_completed_and_knows_all_severities(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert SEVERITIES == ALL
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "config.yaml").write_text("")
    monkeypatch.chdir(tmp_path)
    assert candidates(["diagnose", ""]) == ["runs/a"]
