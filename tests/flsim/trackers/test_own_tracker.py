"""The tracker of docs/watching.md runs as it stands there, with the command below it, and goes on after a stop."""

import json
import re
import shlex
from pathlib import Path

import pytest

import flsim
from tests.tiny import TinyRun

TINY = ("client.path=clients.sft:Sft",)
SECTION = (Path(__file__).parents[3] / "docs" / "watching.md").read_text().partition("### One's own tracker")[2]


def test_the_tracker_of_the_page_runs_as_it_is_written(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_report: None, one_thread: None
) -> None:
    monkeypatch.chdir(tmp_path)
    (name,) = re.findall(r"`(\w+\.py)`:", SECTION)
    (code,) = re.findall(r"```python\n(.*?)```", SECTION, flags=re.DOTALL)
    (command,) = re.findall(r"^    (flsim run .*)", SECTION, flags=re.MULTILINE)
    assert len(code.splitlines()) <= 20
    (tmp_path / name).write_text(code)
    config = tiny_run("run", shlex.split(command)[-1])
    flsim.run(config, until=1, progress=False)
    flsim.run(resume=config.folder, progress=False)
    (file,) = (tmp_path / "told").iterdir()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["round"] for line in lines] == [0, 1, 2]
    assert 0 <= lines[-1]["accuracy/mean"] <= 1
