"""Trackers beside a real run: told of every round once, also after a resume; whatever they do, the run is the same."""

import json
import logging
import time
from pathlib import Path

import pytest

import flsim
from flsim.diagnosis.seen import Facts
from flsim.metrics.rows import read_rows, without_timing
from flsim.storage.behind import open_copy
from flsim.storage.bucket import Bucket
from flsim.trackers.named import trackers_of
from flsim.trackers.sender import FOLDER, Ending, Sender
from flsim.trackers.told import Told
from flsim.trackers.tracking import tracked_run
from tests.flsim.trackers.recorder import rounds_in, told_in
from tests.flsim.trackers.test_named import RECORDER
from tests.tiny import TinyRun, without_report

TINY = ("client.path=clients.sft:Sft", "rounds=3", "evaluation.prompts_per_task=1", "client.prompts=1")


def of(what: str, folder: Path) -> list[dict[str, object]]:
    return [one for one in told_in(folder) if one["what"] == what]


def same_rows(one: Path, other: Path) -> bool:
    return without_timing(read_rows(one)).equals(without_timing(read_rows(other)))


def log_of(folder: Path) -> str:
    return (folder / "run.log").read_text()


@pytest.fixture(scope="module")
def plain(tiny_runs: TinyRun, one_thread: None) -> "flsim.Run":
    with without_report():
        return flsim.run(tiny_runs("plain"), progress=False)


def test_a_run_with_trackers_has_the_rows_of_one_without(
    plain: "flsim.Run", tiny_run: TinyRun, no_report: None
) -> None:
    followed = flsim.run(tiny_run("followed", f"track=[{RECORDER}]"), progress=False)
    assert same_rows(plain.folder, followed.folder)
    assert rounds_in(followed.folder) == [0, 1, 2, 3]
    (start,) = of("start", followed.folder)
    assert start["name"] == "followed"
    assert start["tau"] == 0.3
    assert start["group"] == followed.folder.parent.name
    assert [one["name"] for one in of("artefact", followed.folder)] == ["adapter"]  # the report was left out
    assert told_in(followed.folder)[-1] == {"what": "finish", "status": "finished"}


@pytest.mark.parametrize("knows", [False, True])
def test_a_resumed_run_goes_on_where_its_tracker_is(
    knows: bool, tiny_run: TinyRun, no_report: None, one_thread: None
) -> None:
    config = tiny_run("run", f"track=[{{path: '{RECORDER}', knows: {str(knows).lower()}}}]")
    flsim.run(config, until=1, progress=False)
    assert told_in(config.folder)[-1]["status"] == "stopped"
    flsim.run(resume=config.folder, progress=False)
    assert rounds_in(config.folder) == [0, 1, 2, 3]
    first, second = of("start", config.folder)
    assert first["id"] == second["id"]
    assert (first["first"], second["first"]) == (0, 2)
    assert told_in(config.folder)[-1]["status"] == "finished"


def test_what_a_tracker_holds_goes_before_what_was_noted(tiny_run: TinyRun, no_report: None, one_thread: None) -> None:
    """It was killed between taking round 1 and our note of it, and had lost round 2 that was noted."""
    config = tiny_run("run", f"track=[{{path: '{RECORDER}', knows: true}}]")
    flsim.run(config, until=2, progress=False)
    file = config.folder / FOLDER / "recorder.json"
    for noted in (0, 5):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"sent": noted}))
        flsim.run(resume=config.folder, until=2, progress=False)
        assert rounds_in(config.folder) == [0, 1, 2]


def test_a_tracker_that_comes_late_gets_all_rounds(tiny_run: TinyRun, no_report: None, one_thread: None) -> None:
    """Also of a finished run, which is how it is sent afterwards."""
    plain = flsim.run(tiny_run("plain"), progress=False)
    assert rounds_in(plain.folder) == []
    flsim.run(None, [f"track=[{RECORDER}]"], resume=plain.folder, progress=False)
    assert rounds_in(plain.folder) == [0, 1, 2, 3]
    assert told_in(plain.folder)[-1]["status"] == "finished"


@pytest.mark.parametrize("method", ["start", "measures", "finish always", "start always"])
def test_a_tracker_that_raises_is_a_line_in_the_log(
    method: str, plain: "flsim.Run", tiny_run: TinyRun, no_report: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Even `sys.exit` in its code; it gets what it missed as soon as it works again."""
    followed = flsim.run(tiny_run("followed", f"track=[{{path: '{RECORDER}', fails_in: {method}}}]"), progress=False)
    assert same_rows(plain.folder, followed.folder)
    assert log_of(followed.folder).count("tracker recorder failed after round") == 1
    assert "(SystemExit: the server is away)" in log_of(followed.folder)
    assert ("the run goes on" in log_of(followed.folder)) == ("finish" not in method)  # at its end nothing follows
    if "always" in method:
        has = "the rounds up to 3 of 3" if "finish" in method else "no round"
        assert f"tracker recorder failed; it has {has}; flsim resume" in log_of(followed.folder)
    if "start always" not in method:
        assert rounds_in(followed.folder) == [0, 1, 2, 3]
    assert not capsys.readouterr().err


@pytest.mark.parametrize("method", ["start", "measures", "finish"])
def test_a_tracker_that_hangs_is_left_behind(
    method: str, plain: "flsim.Run", tiny_run: TinyRun, no_report: None
) -> None:
    track = f"track=[{{path: '{RECORDER}', hangs_in: {method}, wait_s: 0.3}}]"
    started = time.monotonic()
    followed = flsim.run(tiny_run("followed", track), progress=False)
    assert time.monotonic() - started < 60  # and not the 1000 s that it hangs
    assert same_rows(plain.folder, followed.folder)
    assert "tracker recorder was not done in time; it has" in log_of(followed.folder)


def test_a_run_that_fails_says_so(
    tiny_run: TinyRun, no_report: None, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(folder: Path, *adapter: object) -> None:
        raise OSError("no such disk")

    monkeypatch.setattr("flsim.loop.run.save_adapter", away)
    monkeypatch.setattr("flsim.trackers.sender._WAIT_STOPPED_S", 30.0)  # for a machine that has much to do
    config = tiny_run("run", f"track=[{RECORDER}]")
    with pytest.raises(OSError, match="no such disk"):
        flsim.run(config, progress=False)
    assert told_in(config.folder)[-1]["status"] == "failed"
    assert of("artefact", config.folder) == []


def test_it_never_holds_less_than_nothing(tiny_run: TinyRun, no_report: None, one_thread: None) -> None:
    config = tiny_run("run", f"track=[{{path: '{RECORDER}', knows: true, holds: -50}}]")
    flsim.run(config, until=1, progress=False)
    assert rounds_in(config.folder) == [0, 1]
    assert "failed" not in log_of(config.folder)


def test_a_run_in_a_store_belongs_to_what_its_address_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for path, group in (("study/one", "study"), ("runs/one", "demo")):
        copy = open_copy(Bucket.at(f"file://{tmp_path}/there/{path}"))
        run = tracked_run(copy, "demo", {})
        assert (run.name, run.group, run.folder) == ("one", group, copy)


def test_its_id_is_in_the_store_before_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is killed then goes on in the same tracker run from another machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    copy = open_copy(Bucket.at(f"file://{tmp_path}/there/one"))
    (named,) = trackers_of([{"path": RECORDER, "fails_in": "start always"}])
    sender = Sender(named, tracked_run(copy, "demo", {}), Told(copy, Facts(), 1), logging.getLogger("x"), shows=False)
    sender.committed(0)
    sender.leave(sender.ends(Ending("stopped", ()), patient=True))
    there = tmp_path / "there" / "one" / FOLDER / "recorder.json"
    assert json.loads(there.read_text()) == json.loads((copy / FOLDER / "recorder.json").read_text())


def test_damaged_notes_are_begun_anew(tiny_run: TinyRun, no_report: None, one_thread: None) -> None:
    config = tiny_run("run", f"track=[{RECORDER}]")
    flsim.run(config, until=1, progress=False)
    (config.folder / FOLDER / "recorder.json").write_text('{"id": "../up", "sent": 1}')
    flsim.run(resume=config.folder, progress=False)
    first, second = of("start", config.folder)
    assert first["id"] != second["id"]
    assert rounds_in(config.folder) == [0, 1, 0, 1, 2, 3]
