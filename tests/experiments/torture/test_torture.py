"""The campaign judges as it says: what is lost is never counted as survived, and each deed does what it is called."""

import json
from pathlib import Path
from random import Random

import pandas as pd
import pytest

from experiments.command.__main__ import main
from experiments.torture.__main__ import FAMILIES
from experiments.torture.damage import deeds
from experiments.torture.processes import Ending
from experiments.torture.trial import LOST, REFUSED, SKIPPED, SURVIVED, Ground, Trial, refused, table
from flsim.metrics.rows import Row, write_rows


def rows_in(folder: Path, total: float) -> None:
    write_rows(folder / "rows" / "round-00000.parquet", [Row(0, "d", "t", "test", "global", "accuracy", total, 1.0)])


def ground_with(root: Path, total: float) -> Ground:
    """A campaign whose run in peace has one row."""
    rows_in(root / "peace-local", total)
    (root / "peace-local.seconds").write_text("1.0")
    return Ground(root, 0)


@pytest.mark.parametrize(
    ("ending", "total", "outcome"),
    [
        (Ending(0, ""), 1.0, SURVIVED),
        (Ending(0, ""), 2.0, LOST),
        (Ending(1, "Traceback ..."), 1.0, LOST),
        (Ending(None, "hung"), 1.0, LOST),
    ],
)
def test_a_run_survives_only_with_status_0_and_the_rows_of_a_run_in_peace(
    tmp_path: Path, ending: Ending, total: float, outcome: str
) -> None:
    ground = ground_with(tmp_path, 1.0)
    rows_in(tmp_path / "run", total)
    assert ground.judged("kills", "one", tmp_path / "run", ending).outcome == outcome


@pytest.mark.parametrize(
    ("ending", "outcome"),
    [
        (Ending(2, "error: the folder is in use\n"), REFUSED),
        (Ending(2, "bar\rerror: the folder is in use\n"), REFUSED),
        (Ending(0, ""), LOST),
        (Ending(2, "Traceback (most recent call last):\n..\nerror: x"), LOST),
        (Ending(2, ""), LOST),
        (Ending(1, "error: x"), LOST),
    ],
)
def test_a_refusal_is_status_2_and_one_sentence(ending: Ending, outcome: str) -> None:
    assert refused("twice", "one", ending).outcome == outcome


def test_the_table_counts_every_outcome_and_leaves_out_what_could_not_be_tried() -> None:
    trials = [
        Trial("kills", "a", SURVIVED),
        Trial("kills", "b", LOST),
        Trial("disks", "c", REFUSED),
        Trial("disks", "d", SKIPPED),
        Trial("kills", "e", SURVIVED),
    ]
    assert table(trials)[1:] == [
        ["kills", "3", "2", "0", "1"],
        ["disks", "1", "0", "1", "0"],
        ["all", "4", "2", "1", "1"],
    ]


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("ranges", [1, 4])
def test_every_deed_changes_the_file_and_only_where_it_says(size: int, ranges: int) -> None:
    data = bytes(range(1, 251)) * 4
    data = data[:size]
    for what, deed in deeds(size, ranges):
        new = deed(data, Random(0))
        assert new != data, what
        if what.startswith(("zeros at", "one bit of")):
            assert new is not None
            assert len(new) == size
            start, end = (int(word) for word in what.split() if word.isdigit())
            assert new[:start] == data[:start]
            assert new[end:] == data[end:]


def test_a_tenth_of_the_campaign_still_tries_everything_once() -> None:
    assert [Ground(Path("x"), 0, 0.1).times(whole) for whole in (50, 10, 4, 1)] == [5, 1, 1, 1]


def test_the_families_are_listed_with_a_sentence_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["torture", "--list"]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in FAMILIES)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["drvers"], "there is no family 'drvers'"), (["--scale", "0"], "--scale 0.0 must be above 0")],
)
def test_what_it_cannot_do_is_refused(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["torture", *arguments])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_it_empties_no_folder_that_is_not_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(SystemExit):
        main(["torture", "--root", str(tmp_path)])
    assert "holds something" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").read_text() == "mine"


@pytest.mark.slow
def test_two_at_once_as_the_command_tries_it(tmp_path: Path) -> None:
    assert main(["torture", "twice", "--scale", "0.1", "--root", str(tmp_path / "root")]) == 0
    trials = pd.read_json(tmp_path / "root" / "trials.jsonl", lines=True)
    assert set(trials["outcome"]) == {REFUSED}
    assert json.loads((tmp_path / "root" / "trials.jsonl").read_text().splitlines()[0])["family"] == "two at once"
