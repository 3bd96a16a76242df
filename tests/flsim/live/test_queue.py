"""Runs that a study is still to begin."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from flsim.live.finding import QUEUE
from flsim.live.queue import queued, read_queue
from flsim.live.standing import STOPPED, WAITING


def test_runs_wait_for_as_long_as_their_study_is_at_work(tmp_path: Path) -> None:
    rounds = {tmp_path / "a" / "one": 4, tmp_path / "a" / "two": 5, tmp_path / "b" / "three": 6}
    with queued(rounds):
        found = dict[Path, int]()
        for folder in ("a", "b"):
            standing, own = read_queue(tmp_path / folder / QUEUE)
            assert standing.state == WAITING
            found |= own
        assert found == rounds
    assert not list(tmp_path.rglob(QUEUE))


def test_it_is_gone_when_the_study_fails(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bad luck"), queued({tmp_path / "one": 4}):
        raise ValueError("bad luck")
    assert not (tmp_path / QUEUE).exists()


def test_runs_of_a_study_that_was_killed_do_not_wait(tmp_path: Path) -> None:
    with queued({tmp_path / "one": 4}):
        kept = json.loads((tmp_path / QUEUE).read_text())
    kept["owner"]["started"] -= 1000.0  # another process had this pid then
    (tmp_path / QUEUE).write_text(json.dumps(kept))
    standing, _ = read_queue(tmp_path / QUEUE)
    assert standing == replace(standing, state=STOPPED)
    assert "ended before it began" in standing.why


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"owner": {"pid": 1}, "rounds": {}}', '{"rounds": 3}', "null"])
def test_a_file_that_says_nothing_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / QUEUE).write_text(text)
    with pytest.raises(ValueError, match=r"waiting\.json does not say which runs are to come"):
        read_queue(tmp_path / QUEUE)


def test_names_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    with queued({tmp_path / "one": 4}):
        kept = json.loads((tmp_path / QUEUE).read_text())
    kept["rounds"] = {"../../etc": 3}
    (tmp_path / QUEUE).write_text(json.dumps(kept))
    assert list(read_queue(tmp_path / QUEUE)[1]) == [tmp_path / "etc"]


def test_a_study_that_cannot_write_it_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with queued({tmp_path / "file" / "one": 4}):
        pass
