"""What the benchmarks share: medians, spreads, tables, and a command line that teaches."""

import re

import pytest

from experiments.benchmark.__main__ import BENCHMARKS, main
from experiments.benchmark.measuring import median_seconds, spread
from flsim.text import markdown_table as table


def test_median_ignores_the_first_call() -> None:
    calls: list[int] = []
    assert median_seconds(lambda: calls.append(1), 3) >= 0
    assert len(calls) == 4


def test_a_spread_is_the_median_between_its_ends() -> None:
    found = spread([3.0, 1.0, 2.0])
    assert (found.median, found.low, found.high) == (2.0, 1.0, 3.0)
    assert found.text(1) == "2.0 (1.0..3.0)"


def test_columns_of_a_table_line_up() -> None:
    assert table([["K", "ms"], ["64", "1"]]) == "|  K | ms |\n|---:|---:|\n| 64 |  1 |"


def test_help_names_every_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert all(re.search(rf"\n    {name}\s", shown) for name in BENCHMARKS)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([name, "--help"])
    assert (BENCHMARKS[name].__doc__ or "").splitlines()[0] in capsys.readouterr().out
