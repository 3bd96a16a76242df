"""The benchmark of modes of help: its numbers by hand on made-up answers, and the command itself, small."""

import argparse
from pathlib import Path

import pytest

from experiments.benchmark.collaboration import Helped, arguments, drafts_table, main, modes_table, trips_table
from flsim.cloud.exchange import Exchange
from flsim.cloud.protocol import Answer, bytes_sent
from flsim.collaboration.worth import Pace
from flsim.problems.problem import Problem
from flsim.report.drafting_figure import TRIPS_S, Drafted

PROBLEMS = (Problem("arithmetic", "add", 1, "1+1=", "2"), Problem("arithmetic", "add", 1, "2+2=", "4"))
ASKED = Helped(0.2, [Answer("2", 4, 2), Answer("5", 4, 2)], PROBLEMS)
DRAFTED = Helped(
    0.4,
    [
        Answer("2", 6, 1, exchange=Exchange(trips=1, up_bytes=10, down_bytes=4, drawn=2, drafted=2, accepted=1)),
        Answer("4", 6, 1, exchange=Exchange(trips=2, up_bytes=12, down_bytes=8, drawn=4, drafted=4, accepted=2)),
    ],
    PROBLEMS,
)


def test_what_a_mode_took_by_hand() -> None:
    """Two questions: asking sends their texts, and one answer of two is that of the other mode."""
    sent = sum(map(bytes_sent, PROBLEMS))
    assert (ASKED.took.trips, ASKED.took.up_bytes, ASKED.took.down_bytes) == (2, sent, 2)
    assert (ASKED.right, DRAFTED.right, DRAFTED.same(ASKED)) == (0.5, 1.0, 0.5)
    line = modes_table({"ask": ASKED, "verify": DRAFTED}).splitlines()[3]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:5] == ["verify", "100.0 %", "50.0 %", "1.50", "11 bytes"]
    assert cells[5:] == ["6 bytes", "6.0", "1.0", "3.0", "200 ms"]


def test_drafts_beside_the_law_by_hand() -> None:
    """Lengths 0 and 2 of drafts of 2 are 2 of 3 judged tokens; E(2/3, 2) = 1 + 2/3 + 4/9."""
    found = {0: (Drafted(0, []), ASKED), 2: (Drafted(2, [0, 2]), DRAFTED)}
    first, second = drafts_table(found, ASKED).splitlines()[2:]
    assert [cell.strip() for cell in first.strip("|").split("|")][:5] == ["0", "-", "-", "-", "-"]
    cells = [cell.strip() for cell in second.strip("|").split("|")]
    assert cells == ["2", "50.0 %", "66.7 %", "2.000", "2.111", "1.50", "0", "50.0 %"]


def test_best_lengths_by_round_trip() -> None:
    """As in the reference: 50, 100 and 200 ms take drafts of 3, 5 and 6 at a = 0.8."""
    lines = trips_table(Pace(0.02, 0.03, 0.0), 0.8).splitlines()[2:]
    lengths = [int(line.split("|")[2]) for line in lines]
    assert dict(zip(TRIPS_S, lengths, strict=True)).items() >= {0.01: 2, 0.05: 3, 0.1: 5, 0.2: 6}.items()


@pytest.mark.slow
def test_the_command_measures_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str], one_thread: None) -> None:
    parser = argparse.ArgumentParser()
    arguments(parser)
    main(parser.parse_args(["--devices", "2", "--questions", "2", "--lengths", "0", "4", "--out", str(tmp_path)]))
    printed = capsys.readouterr().out
    lines = {line.split("|")[1].strip(): line for line in printed.splitlines() if line.startswith("|")}
    for exact in ("verify, k = 4", "exit at 3 of 6, never", "split at 2 of 6, float32"):
        assert lines[exact].split("|")[3].strip() == "100.0 %"
    assert lines["4"].split("|")[-2].strip() == "100.0 %"
    assert "drafting pays below a round trip of" in printed
    assert (tmp_path / "accepted.png").is_file()
    assert (tmp_path / "drafting.png").is_file()
