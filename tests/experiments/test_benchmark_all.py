"""All benchmarks into one page: each is called so that it understands, and one that fails stops no other."""

import argparse
import importlib
import re
import sys
from pathlib import Path

import pytest

from experiments.benchmark import all as benchmarks
from experiments.benchmark.__main__ import BENCHMARKS, main

STAND_IN = """
import sys
name, *given = sys.argv[1:]
print("a table of", name, *given)
if name == "limit":
    sys.exit("Traceback\\nthe last line")
"""


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Benchmarks that print their arguments; `limit` fails. Where the page shall be."""
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)
    monkeypatch.setattr(benchmarks, "_benchmark", lambda: [sys.executable, str(script)])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    return tmp_path / "new" / "page.md"


def test_every_benchmark_is_among_them() -> None:
    assert set(benchmarks.QUICK) == set(BENCHMARKS) - {"all"}
    assert set(benchmarks.IN_FULL) <= set(benchmarks.QUICK)


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name != "all"])
def test_a_benchmark_understands_how_it_is_called(name: str) -> None:
    parser = argparse.ArgumentParser(exit_on_error=False)
    importlib.import_module(f"experiments.benchmark.{name}").arguments(parser)
    for given in (benchmarks.QUICK[name], benchmarks.IN_FULL.get(name, ())):
        parser.parse_intermixed_args(given)


def test_what_fails_is_a_line_and_the_others_go_on(stand_ins: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"1 of 4 failed: limit; .*page\.md says why"):
        main(["all", "peers", "limit", "gpu", "round", "--out", str(stand_ins)])
    page = stand_ins.read_text()
    assert re.findall(r"^\| +(\w+) \| +[\d.]+ \| +(.+?) \|$", page, re.MULTILINE)[0:] == [
        ("peers", "measured"),
        ("limit", "failed: the last line"),
        ("gpu", "passed over: this machine has no CUDA card"),
        ("round", "measured"),
    ]
    assert "## peers\n\n    flsim benchmark peers --prompts 1 8\n\na table of peers --prompts 1 8\n" in page
    assert "## round\n\n    flsim benchmark round\n\na table of round\n" in page
    assert "a table of limit" not in page
    assert "--quick" not in page
    assert re.search(r"commit [0-9a-f]{40}\+?, measured on \d{4}-\d\d-\d\d", page)
    assert "limit: failed: the last line, 0.0 min" in capsys.readouterr().out


def test_quick_figures_are_said_to_be_none(stand_ins: Path) -> None:
    assert main(["all", "--quick", "round", "--out", str(stand_ins)]) == 0
    page = stand_ins.read_text()
    assert "Called with `--quick`: these figures say that the benchmarks work, and nothing else." in page
    assert "a table of round --packs 1 --repeats 1" in page


def test_one_that_is_not_there_is_told_before_any_is_run(stand_ins: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["all", "round", "limits", "--out", str(stand_ins)])
    assert stopped.value.code == 2
    assert "there is no benchmark 'limits'; did you mean limit?" in capsys.readouterr().err
    assert not stand_ins.exists()
