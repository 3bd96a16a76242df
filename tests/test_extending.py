"""Pages on extending: each of their snippets is run as it stands there, with the settings that stand below it."""

import re
import shlex
from pathlib import Path

import pandas as pd
import pytest
from safetensors.numpy import load_file

import flsim
from tests.tiny import TinyRun

TINY = ("client.path=clients.sft:Sft",)
PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text()
POINTS = {section.split("\n")[0]: section.split("\n### ")[0] for section in PAGE.split("\n## ")[1:]}
HELP = (Path(__file__).parents[1] / "docs" / "collaboration.md").read_text().partition("## A mode of your own")[2]
WITHIN = {section.split("\n")[0]: section.split("\n## ")[0] for section in PAGE.split("\n### ")[1:]}


def snippet_of(point: str, folder: Path) -> list[str]:
    """Write the file of one point, and return the arguments of its command."""
    return written((POINTS | WITHIN)[point], folder, most=18)


def written(section: str, folder: Path, *, most: int) -> list[str]:
    """The same of a section, whose snippet has at most so many lines."""
    (name,) = re.findall(r"In `(\w+\.py)`:", section)
    (code,) = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    (folder / name).write_text(code)
    assert len(code.splitlines()) <= most
    (command,) = re.findall(r"^    (flsim .*(?:\n {8}.*)*)", section, flags=re.MULTILINE)
    return [word for word in shlex.split(command.replace("\\\n", " ")) if "=" in word or word.startswith("my_")]


@pytest.mark.parametrize("point", [point for point in POINTS if point != "A measure"])
def test_every_point_runs_as_it_is_written(
    point: str, tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_report: None, one_thread: None
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = snippet_of(point, tmp_path)
    if point == "A verifier":
        snippet_of("A data reader", tmp_path)
    assert any("=my_" in setting for setting in settings)
    rows = flsim.run(tiny_run("run", *settings), progress=False).rows
    assert not (rows["name"] == "set_aside").any()
    assert set(rows["round"]) == {0, 1, 2}
    assert (rows["name"] == "accuracy").any()


def test_a_measure_of_the_page_is_shown(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_report: None, one_thread: None
) -> None:
    monkeypatch.chdir(tmp_path)
    measures = snippet_of("A measure", tmp_path)
    run = flsim.run(tiny_run("run", "client.path=clients.da_grpo:DaGrpo"), progress=False)
    table = flsim.compare([run.folder], measures=measures).table
    reward = run.rows[(run.rows["name"] == "reward") & (run.rows["split"] == "train")]
    means = reward.groupby("device")["total"].sum() / reward.groupby("device")["weight"].sum()
    assert isinstance(table, pd.DataFrame)
    assert table.loc[:, "reward"].iloc[0] == pytest.approx(means.mean())


def test_what_is_learned_beside_lora_is_saved(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_report: None, one_thread: None
) -> None:
    monkeypatch.chdir(tmp_path)
    config = tiny_run("run", *snippet_of("Devices that learn more than LoRA", tmp_path), "client.temperature=0.1")
    run = flsim.run(config, progress=False)
    assert not (run.rows["name"] == "set_aside").any()
    saved = load_file(run.folder / "adapter" / "head.safetensors")
    assert saved["head.rate"].shape == (1,)
    assert 0 <= saved["head.rate"][0] < 1


def test_a_mode_of_help_runs_as_it_is_written(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_report: None, one_thread: None
) -> None:
    """Of the cloud's answers come two tokens at most, of which one may be the ending."""
    monkeypatch.chdir(tmp_path)
    settings = written(HELP.partition("\n## ")[0], tmp_path, most=30)
    more = ("cloud={kind: builtin}", "client={path: 'clients.da_grpo:DaGrpo', dual_init: 0}", "budget.tau=1")
    run = flsim.run(
        tiny_run("run", *more, *settings, "client.asking.path=clients.asking.simple:Always"), progress=False
    )
    rows = run.rows[(run.rows["split"] == "train") & (run.rows["round"] > 0)]
    said, trips = (rows[rows["name"] == name]["total"].sum() for name in ("cloud_completion_tokens", "cloud_trips"))
    assert 0 < said <= 2 * trips
    asked = run.rows[(run.rows["name"] == "cloud_test_trips") & (run.rows["model"] == "global")]
    assert (asked["total"] == asked["weight"]).all()


def test_the_page_has_all_seven_points() -> None:
    assert len(POINTS) == 7
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")][1:]
    assert [f"{'An' if 'asking' in row else 'A'} {row.split('|')[1].strip()}" for row in rows] == list(POINTS)
