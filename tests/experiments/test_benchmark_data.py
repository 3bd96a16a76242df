"""The benchmark of data sets measures what it says: the second process finds what the first has made."""

from pathlib import Path

import pytest

from experiments.benchmark.__main__ import main
from experiments.benchmark.data import dealt, write_ratings
from flsim.tasks import kept
from flsim.tasks.sets import _group


def test_what_is_drawn_has_its_size_and_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_ratings(tmp_path, 3000, 60)
    assert len((tmp_path / "ratings.dat").read_text().splitlines()) == 3000
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(kept, "LEAST", 1)
    made = dealt(str(tmp_path), 20)
    _group.cache_clear()
    monkeypatch.setattr(kept, "dealt", lambda *_: pytest.fail("was dealt again"))
    found = dealt(str(tmp_path), 20)
    assert (made.items, made.train) == (found.items, found.train)
    assert made.items == 3000 - 10 * 60  # every user has ten to tell of first


@pytest.mark.slow
def test_its_table_has_both_processes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "elsewhere")  # put back at the end
    assert main(["data", "--ratings", "3000", "--devices", "20", "--repeats", "1"]) == 0
    said = capsys.readouterr().out
    assert "3,000 ratings, 1,500 questions, 20 devices" in said
    assert all(line in said for line in ("| made |", "| found |"))
