"""The table in the terminal."""

import io
from dataclasses import replace

from rich.console import Console

from flsim.live.following import Entry
from flsim.live.terminal import counted, plain, table, told_findings

RUNS = [
    Entry("demo/a", "running", "", 3, 12, 100.0, 190.0, 16, 0, 0.8125, 0.5, 0.3, 0.3, (1, 2, 0)),
    Entry("demo/b", "failed", "no space left", 2, 12, 100.0, None, 16, 0),
    Entry("demo/c", "waiting", "for its turn", None, 12, None, None),
]


def test_a_line_by_hand() -> None:
    """90 s are left at 100 of a run that ends at 190; what is not known is a dash."""
    lines = plain(RUNS, 100.0).splitlines()
    assert lines[0] == "3 runs: 1 running, 1 waiting, 1 failed"
    words = [" ".join(line.split()) for line in lines]
    assert words[4] == "demo/a running 3 of 12 1.50 min 81.2 % 50.0 % 30.0 % 30 % 1F 2W"
    assert words[6] == "demo/c waiting - of 12 - - - - - -"
    assert lines[-1] == "demo/b: no space left"


def test_what_was_left_out_is_said() -> None:
    damaged = replace(RUNS[0], left_out=("rows of round 2 are missing",))
    assert plain([damaged], 100.0).splitlines()[-1] == "demo/a: rows of round 2 are missing"


def test_findings_by_hand() -> None:
    assert [told_findings(one) for one in (None, (0, 0, 0), (0, 1, 3))] == ["-", "none", "1W 3N"]


def test_no_runs_are_counted_too() -> None:
    assert counted([]) == "0 runs"
    assert counted(RUNS[:1]) == "1 run: 1 running"


def test_the_table_in_colour_has_the_same_words_and_fits_its_terminal() -> None:
    console = Console(width=120, height=12, record=True, force_terminal=True, file=io.StringIO())
    many = [replace(RUNS[0], path=f"demo/{number}", state="done", ends=None) for number in range(40)]
    console.print(table([*many, *RUNS], 100.0, console.height))
    text = console.export_text()
    assert "demo/a" in text
    assert "no space left" in text
    assert "more; --once prints all" in text
    assert len(text.splitlines()) <= 12
