"""What the benchmarks share: medians, spreads, tables, and a command line that teaches."""

import mmap
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from experiments.benchmark.__main__ import BENCHMARKS, main
from experiments.benchmark.measuring import median_seconds, peak_bytes, reset_peak, spread
from experiments.command.walk import purpose_of
from flsim.text import markdown_table as table


def test_median_ignores_the_first_call() -> None:
    calls: list[int] = []
    assert median_seconds(lambda: calls.append(1), 3) >= 0
    assert len(calls) == 4


def test_a_spread_is_the_median_between_its_ends() -> None:
    found = spread([3.0, 1.0, 2.0])
    assert (found.median, found.low, found.high) == (2.0, 1.0, 3.0)
    assert found.text(1) == "2.0 (1.0..3.0)"


def test_a_peak_is_what_was_held_since_it_began_anew() -> None:
    with held(60 * 2**20) as size:
        assert peak_bytes() > size
    reset_peak()
    low = peak_bytes()
    with held(40 * 2**20) as size:
        assert peak_bytes() >= low + size // 2


@contextmanager
def held(size: int) -> Iterator[int]:
    """Memory of the system's own, since what a process has freed may be in its heap still."""
    with mmap.mmap(-1, size) as block:
        for page in range(0, size, mmap.PAGESIZE):
            block[page] = 1
        yield size


def test_columns_of_a_table_line_up() -> None:
    assert table([["K", "ms"], ["64", "1"]]) == "|  K | ms |\n|---:|---:|\n| 64 |  1 |"


def test_help_names_every_benchmark_and_what_it_measures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name in BENCHMARKS:
        assert re.search(rf"^  {name} +{purpose_of(f'experiments.benchmark.{name}').split()[0]} ", shown, re.MULTILINE)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([name, "--help"])
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: flsim benchmark {name} ")
    assert " ".join(shown.split()).count(purpose_of(f"experiments.benchmark.{name}")) == 1


def test_a_benchmark_that_is_not_there_is_told_in_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reel"]) == 2
    assert "there is no benchmark 'reel'; did you mean real?" in capsys.readouterr().err
