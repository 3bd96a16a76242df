"""The command as a user types it: two tiny real runs side by side, help, and mistakes."""

from pathlib import Path

import pytest

import flsim
from experiments.command.__main__ import main
from tests.tiny import TinyRun, without_report

TINY = ("stream.phases=[[arithmetic],[strings]]", "client.prompts=2", "client.group_size=2")


@pytest.fixture(scope="module")
def root(tiny_runs: TinyRun) -> Path:
    """A folder with two real runs, of two strategies."""
    for name, path in (("together", "fedavg:FedAvg"), ("apart", "local_only:LocalOnly")):
        config = tiny_runs(name, f"strategy.path=strategies.{path}", f"name={name}")
        with without_report():
            flsim.run(config, progress=False)
    return tiny_runs("any").folder.parent


def test_two_real_runs_side_by_side(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["compare", str(root), "--against", "apart", "--alone", "apart", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "accuracy minus apart" in said
    assert all(any(line.startswith(name) for line in said.splitlines()) for name in ("together", "apart", "cloud LLM"))
    assert f"page: {out / 'page.html'}" in said
    assert "strategies.local_only:LocalOnly" in (out / "page.html").read_text()
    assert sorted(path.suffix for path in out.iterdir()) == [".csv"] * 5 + [".html", ".md"] + [".png"] * 7 + [".tex"]


@pytest.mark.usefixtures("no_pictures")
def test_labels_are_given_one_by_one_and_measures_by_name(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = ["--label", f"mine={root / 'together'}", "--label", f"theirs={root / 'apart'}"]
    assert main(["compare", *labels, "--measures", "plasticity", "calls", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "accuracy minus mine" in said
    assert any(line.split() == ["over", "the", "run", "plasticity", "calls"] for line in said.splitlines())


def test_mistakes_say_what_is_wrong_and_exit_2(root: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for arguments, words in (
        ([str(root), "--against", "nobody"], "none of the methods compared; they are apart, together"),
        ([str(tmp_path / "nowhere")], "is not there; give run folders"),
        ([str(root), "--label", "mine"], "must be NAME=RUN"),
        ([str(root), "--measures", "acuracy"], "measures='acuracy' is not known; did you mean"),
        ([str(root), "--weighting", "trafic"], "weighting='trafic' is not known; did you mean traffic"),
    ):
        assert main(["compare", *arguments]) == 2
        said = capsys.readouterr()
        assert (said.out, said.err.startswith("error: "), said.err.count("\n")) == ("", True, 1)
        assert words in said.err
    with pytest.raises(SystemExit, match="2"):
        main(["compare"])
    assert "give the folders of finished runs" in capsys.readouterr().err


def test_help_teaches_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["compare", "--help"])
    said = capsys.readouterr().out
    assert "flsim compare runs/pair --against FedAvg" in said
    assert "--bounds RUN" in said
