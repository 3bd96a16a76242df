"""Runs followed by their files: numbers as their reports have them, read once, and whatever is odd is a note."""

import json
import os
import shutil
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import flsim
from flsim.charts.of_run import charts_of
from flsim.diagnosis.seen import Facts
from flsim.live import view
from flsim.live.following import Following
from flsim.live.pages import as_json
from flsim.live.view import KeptRows, Known, summary_of
from flsim.loop.diagnosing import facts_of
from flsim.loop.lock import RunLock
from flsim.metrics.compact import plain
from flsim.metrics.rows import read_rows, rows_table
from flsim.report.summary import read_summary
from flsim.timing import read_timings
from tests.tiny import TinyRun, without_pictures


@pytest.fixture(scope="module")
def finished(tiny_runs: TinyRun) -> Path:
    """A finished run of two rounds; tests take copies of it."""
    with without_pictures():
        return flsim.run(tiny_runs("finished"), progress=False).folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, in a study below the folder that is followed."""
    return Path(shutil.copytree(finished, tmp_path / "runs" / "study" / "one"))


@pytest.fixture
def following(tmp_path: Path) -> Following:
    """Of all runs, at whatever pace."""
    return Following(tmp_path / "runs", facts_of, clock=lambda: 0.0)


def unfinish(run: Path, *, rounds: int) -> None:
    """Take a run back to when it had so many rounds, and no report yet."""
    for name in ("summary.json", "report.html"):
        (run / name).unlink()
    for file in run.glob("rows/round-*.parquet"):
        if int(file.stem[-5:]) > rounds:
            file.unlink()


def test_the_live_summary_of_a_finished_run_is_the_one_that_it_wrote(finished: Path) -> None:
    config = flsim.load_config(finished / "config.yaml")
    known = Known(finished.name, facts_of(config), config.fleet.devices)
    assert summary_of(known.as_run(read_rows(finished)), known) == read_summary(finished)


def test_the_list_has_the_numbers_of_the_summary(run: Path, following: Following) -> None:
    (entry,) = following.entries()
    told = json.loads((run / "summary.json").read_text())
    end = told["at_end"]["global"]
    assert (entry.path, entry.state, entry.why, entry.round, entry.rounds) == ("study/one", "done", "", 2, 2)
    assert (entry.accuracy, entry.alone) == (end["accuracy"]["user_mean"], end["alone_accuracy"]["user_mean"])
    assert (entry.usage, entry.tau) == (told["usage"][-1]["last_third"]["user_mean"], told["tau"])
    assert entry.findings is not None
    assert sum(entry.findings) == len(told["findings"])


def test_a_run_that_goes_is_summarised_as_far_as_it_is(run: Path, following: Following) -> None:
    unfinish(run, rounds=1)
    config = flsim.load_config(run / "config.yaml")
    with RunLock(run):
        shown = following.show("study/one")
    assert shown is not None
    assert shown.summary is not None
    known = Known("one", facts_of(config), config.fleet.devices)
    rows = read_rows(run)
    assert shown.summary == summary_of(known.as_run(rows), known)
    assert (shown.entry.state, shown.entry.round, shown.entry.rounds) == ("running", 1, 2)
    assert shown.charts == charts_of(known.as_run(rows), read_timings(run))
    assert shown.entry.ends is not None
    assert shown.entry.changed is not None
    assert shown.entry.ends > shown.entry.changed


def test_the_time_left_goes_by_timings_from_when_the_last_round_was_done(run: Path, following: Following) -> None:
    """One round of 30 s, one to go: 30 s after the rows of the first were written."""
    unfinish(run, rounds=1)
    for file in run.glob("timing/*.json"):
        told = json.loads(file.read_text())
        file.write_text(json.dumps(told | {"wall_s": 30.0}))
    (run / "timing" / "round-00002.json").unlink()
    with RunLock(run):
        (entry,) = following.entries()
    assert entry.ends == pytest.approx((entry.changed or 0.0) + 30.0)
    (entry,) = following.entries()
    assert (entry.state, entry.ends) == ("stopped", None)


def test_every_round_is_read_once_and_again_only_if_it_was_replaced(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def reading(path: Path) -> Any:
        read.append(path.name)
        return rows_table(path)

    monkeypatch.setattr(view, "rows_table", reading)
    last = run / "rows" / "round-00002.parquet"
    aside = shutil.move(last, tmp_path / "aside")
    kept = KeptRows(run, tmp_path)
    assert kept.read() is not None
    assert read == ["round-00000.parquet", "round-00001.parquet"]
    shutil.move(aside, last)
    found = kept.read()
    assert read[2:] == ["round-00002.parquet"]
    assert found is not None
    pd.testing.assert_frame_equal(plain(found), read_rows(run))
    (run / "rows" / "new").write_bytes(last.read_bytes())
    (run / "rows" / "new").replace(last)
    kept.read()
    assert read[3:] == ["round-00002.parquet"]
    last.unlink()  # a resume gives it up
    found = kept.read()
    assert len(read) == 4
    assert found is not None
    assert found["round"].max() == 1


def test_nothing_is_computed_again_when_no_file_changed(
    run: Path, following: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfinish(run, rounds=1)
    before = following.show("study/one")
    monkeypatch.setattr("flsim.live.following.summary_of", lambda *_: pytest.fail("computed again"))
    monkeypatch.setattr("flsim.live.following.charts_of", lambda *_: pytest.fail("drawn again"))
    assert following.show("study/one") == before
    assert len(following.entries()) == 1


def test_what_takes_long_is_computed_again_only_after_a_rest(run: Path, tmp_path: Path) -> None:
    """By this clock a computation takes 10 s: 89 s later none is made, and 91 s later one is."""
    unfinish(run, rounds=0)
    now, held = [0.0], ExitStack()

    def facts(_: object) -> Facts:
        now[0] += 10.0
        return Facts()

    following = Following(tmp_path / "runs", facts, clock=lambda: now[0], worked=lambda: now[0])
    held.enter_context(RunLock(run))
    assert [entry.accuracy is None for entry in following.entries()] == [False]
    rows = run / "rows" / "round-00000.parquet"
    rows.with_name("round-00001.parquet").write_bytes(rows.read_bytes())
    made = now[0]
    now[0] = made + 89.0
    following.entries()
    assert now[0] == made + 89.0
    now[0] = made + 91.0
    following.entries()
    assert now[0] == made + 101.0
    rows.with_name("round-00001.parquet").touch()
    held.close()  # nobody works on it any more: there is nobody to give way to
    following.entries()
    assert now[0] == made + 111.0


def test_a_list_in_a_hurry_leaves_summaries_to_the_next_one(run: Path, following: Following) -> None:
    unfinish(run, rounds=1)
    (entry,) = following.entries(0.0)
    assert (entry.state, entry.round, entry.accuracy, entry.findings) == ("stopped", 1, None, None)
    (entry,) = following.entries(1.0)
    assert entry.accuracy is not None
    assert entry.findings is not None


def test_damage_is_a_note_and_no_error(run: Path, following: Following) -> None:
    (run / "rows" / "round-00001.parquet").write_bytes(b"damaged")
    (run / "summary.json").write_text("{")
    (run / "timing" / "round-00001.json").write_text("[")
    (run / "run.log").write_bytes(b"\xff\xfe\x00")
    (run / ".owner.json").write_text("[]")
    shown = following.show("study/one")
    assert shown is not None
    assert shown.summary is not None
    assert shown.entry.state == "stopped"
    assert shown.entry.accuracy is not None
    assert any("summary.json cannot be read" in note for note in shown.notes)
    assert any("round-00001.parquet cannot be read" in note for note in shown.notes)


@pytest.mark.parametrize("text", ["rounds: [", "rounds: many\n", "no_such_key: 3\n", ""])
def test_a_config_of_another_release_costs_what_it_says_and_no_more(run: Path, following: Following, text: str) -> None:
    (run / "config.yaml").write_text(text)
    (entry,) = following.entries()
    assert entry.round == 2
    assert entry.accuracy is not None
    assert entry.rounds is None or text == ""


def test_what_is_left_out_is_said_in_the_list_too(run: Path, following: Following) -> None:
    unfinish(run, rounds=2)
    (run / "rows" / "round-00001.parquet").unlink()
    (run / "rows" / "round-00002.parquet").write_bytes(b"PAR1")
    (entry,) = following.entries()
    assert entry.left_out == (
        "rows/round-00002.parquet cannot be read, and its round is left out",
        "rows of round 1 are missing",
    )
    (run / "timing" / "round-00002.json").write_text("{")
    shown = following.show("study/one")
    assert shown is not None
    assert any(note.startswith("round-00002.json cannot be read") for note in shown.notes)


@pytest.mark.parametrize("name", [".owner.json", "summary.json"])
def test_whatever_a_file_holds_the_list_is_there(name: str, run: Path, following: Following) -> None:
    (run / name).write_text("[" * 100_000)
    (entry,) = following.entries()
    assert entry.path == "study/one"


def test_a_name_that_is_no_utf_8_is_shown_and_opened(run: Path, following: Following) -> None:
    shutil.move(run, os.fsdecode(os.fsencode(run.parent) + b"/bad\xff"))
    (entry,) = following.entries()
    assert entry.path == "study/bad\\xff"
    assert as_json({"runs": [asdict(entry)]})
    assert following.show(entry.path) is not None


def test_runs_appear_and_vanish(run: Path, following: Following) -> None:
    assert len(following.entries()) == 1
    other = shutil.copytree(run, run.parent / "two")
    assert [entry.path for entry in following.entries()] == ["study/one", "study/two"]
    shutil.rmtree(other)
    assert [entry.path for entry in following.entries()] == ["study/one"]
    assert following.show("study/two") is None
    shutil.rmtree(following.root)
    assert following.entries() == []


def test_a_run_before_its_first_round_has_no_numbers(run: Path, following: Following) -> None:
    unfinish(run, rounds=-1)
    with RunLock(run):
        shown = following.show("study/one")
    assert shown is not None
    assert (shown.summary, shown.charts, shown.entry.round) == (None, (), None)
    assert (shown.entry.state, shown.entry.why) == ("running", "before its first round")


def test_only_names_of_runs_are_answered(run: Path, following: Following) -> None:
    (following.root.parent / "secret").mkdir()
    shutil.copytree(run, following.root.parent / "secret" / "run")
    names = ("../secret/run", str(run), "study", "study/one/../one", "", "/", "study/one/replays")
    assert [following.show(name) for name in names] == [None] * len(names)
    assert [following.report(name) for name in names] == [None] * len(names)
    assert following.report("study/one") == run / "report.html"
    (run / "report.html").unlink()
    (run / "report.html").symlink_to(following.root.parent / "secret" / "run" / "report.html")
    assert following.report("study/one") is None


def test_what_is_read_leaves_no_trace(run: Path, following: Following) -> None:
    def everything() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in following.root.rglob("*")}

    before = everything()
    following.entries()
    following.show("study/one")
    assert everything() == before


def test_rows_that_cannot_be_summarised_are_a_note(run: Path, tmp_path: Path) -> None:
    def facts(_: object) -> Facts:
        raise RuntimeError("of another release")

    unfinish(run, rounds=1)
    shown = Following(tmp_path / "runs", facts).show("study/one")
    assert shown is not None
    assert shown.summary is None
    assert shown.notes == ("its rows cannot be summarised (RuntimeError: of another release)",)


def test_an_entry_of_a_run_is_the_same_in_list_and_page(run: Path, following: Following) -> None:
    unfinish(run, rounds=1)
    shown = following.show("study/one")
    assert shown is not None
    assert asdict(replace(shown.entry)) == asdict(following.entries()[0])
