"""What is kept of a large data set: the same as reading it, once for all processes, and never out of date."""

import multiprocessing
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flsim.config.schema import Config
from flsim.tasks import kept
from flsim.tasks.item import Item, key_of
from flsim.tasks.item_table import ItemTable, read_table, write_table
from flsim.tasks.sets import _group
from flsim.tasks.stream import stream_of
from tests.flsim.tasks.own_sets import config_of, write_votes

TEXTS = st.text(st.sampled_from("ab \n\tÉ́́"), max_size=6)
ITEMS = st.builds(
    Item,
    TEXTS,
    TEXTS,
    user=st.none() | TEXTS,
    level=st.none() | st.integers(-3, 3),
    score_label=st.none() | st.integers(0, 2),
    split=st.none() | st.sampled_from(["train", "test"]),
    where=st.sampled_from(["", "f.csv", "f.csv, row 7", "f.csv, row 07", "f, row 3, row 9"]),
)


@settings(max_examples=60)
@given(st.lists(ITEMS, max_size=8), st.data())
def test_a_table_is_its_items(tmp_path_factory: pytest.TempPathFactory, items: list[Item], data: st.DataObject) -> None:
    """In memory, in a file, and of any of them; a key is that of the whole question."""
    table = ItemTable.of(items)
    path = tmp_path_factory.mktemp("table") / "items.arrow"
    write_table(path, table, {"more": np.arange(len(items))}, "said")
    again, more, said = read_table(path)
    assert (more["more"].tolist(), said) == (list(range(len(items))), "said")
    some = data.draw(st.lists(st.integers(0, len(items) - 1), max_size=6)) if items else []
    indices = np.array(some, dtype=np.int64)
    for own, expected in ((table, items), (again, items), (again.take(indices), [items[n] for n in some])):
        assert [(item, item.where) for item in own] == [(item, item.where) for item in expected]
        keys = [key_of(item.question) for item in expected]
        assert list(own.keys()) == keys
        assert list(own.questions()) == [item.question for item in expected]
        assert own.first_alike.tolist() == [keys.index(key) for key in keys]


def test_a_table_keeps_pictures() -> None:
    """Of one shape as one array, in a file, too; others as they are, and then there is no file."""
    pictures = [np.full((2, 3), number, dtype=np.uint8) for number in range(4)]
    table = ItemTable.of([Item("q", "a", features=picture) for picture in pictures])
    assert table.can_be_written
    with tempfile.TemporaryDirectory() as folder:
        write_table(Path(folder) / "items.arrow", table, {}, "")
        again, _, _ = read_table(Path(folder) / "items.arrow")
        for own in (table, again, again.take(np.arange(4))):
            for item, picture in zip(own, pictures, strict=True):
                np.testing.assert_array_equal(item.features, picture)
    uneven = ItemTable.of([Item("q", "a", features=picture) for picture in [*pictures, np.zeros(2), None]])
    assert not uneven.can_be_written
    assert uneven[5].features is None
    assert uneven[3].features is pictures[3]


@pytest.fixture
def votes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A set of users that is large enough to be kept, in a cache of its own."""
    monkeypatch.setattr(kept, "LEAST", 1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    return config_of(write_votes(tmp_path / "data"), phases="[[votes]]")


def dealt(config: Config) -> tuple[list[Item], list[int], str, tuple[str, ...]]:
    """What another process would see."""
    _group.cache_clear()
    (task,) = stream_of(config).data
    return list(task.source.items), task.source.assignment.device.tolist(), task.source.fingerprint, task.score_words


def files(config: Config) -> list[str]:
    folder = Path(os.environ["XDG_CACHE_HOME"]) / "flsim" / "data"
    return sorted(path.name for path in folder.glob("*.arrow"))


def test_what_is_kept_is_what_is_read(votes: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lies in the cache folder only, and is not read again."""
    root = Path(votes.data["votes"].root)
    before = sorted(root.iterdir())
    first = dealt(votes)
    assert len(files(votes)) == 1
    assert sorted(root.iterdir()) == before
    monkeypatch.setattr(kept, "dealt", lambda *_: pytest.fail("was dealt again"))
    assert dealt(votes) == first
    monkeypatch.undo()
    assert dealt(votes) == first  # read without a cache, as it is small


def test_files_that_changed_are_read_again(votes: Config) -> None:
    """Also where size and time of a file are as before."""
    path = Path(votes.data["votes"].root) / "votes.csv"
    first, found = dealt(votes), path.stat()
    text = path.read_text()
    path.write_text(text.replace("u1,", "u9,"))
    kept._digest_of.cache_clear()  # which another process does not have
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    other = dealt(votes)
    assert other[2] != first[2]
    assert len(files(votes)) == 2


@pytest.mark.parametrize("damage", [b"", b"ARROW1\0\0 and no more"])
def test_what_is_damaged_or_half_written_is_made_anew(votes: Config, damage: bytes) -> None:
    first = dealt(votes)
    folder = Path(os.environ["XDG_CACHE_HOME"]) / "flsim" / "data"
    (name,) = files(votes)
    (folder / name).write_bytes(damage)
    left = folder / f".{name}.999999999.part"  # of a process that was killed
    left.write_bytes(b"half")
    assert dealt(votes) == first
    assert not left.exists()
    assert (folder / name).stat().st_size > len(damage)


def test_without_a_folder_to_keep_it_in_it_is_read(
    votes: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = dealt(votes)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert dealt(votes) == first


def test_the_oldest_goes_where_there_is_no_room(votes: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    dealt(votes)
    monkeypatch.setattr(kept, "MOST", 10)
    before = files(votes)
    path = Path(votes.data["votes"].root) / "votes.csv"
    path.write_text(path.read_text().replace("u1,", "u9,"))
    dealt(votes)
    assert len(files(votes)) == 1
    assert files(votes) != before


def test_processes_that_ask_at_once_make_it_once(votes: Config) -> None:
    """They wait for one of them, and find one file with equal devices."""
    with multiprocessing.get_context("fork").Pool(3) as pool:
        found = pool.map(dealt, [votes] * 3, chunksize=1)
    assert found == [dealt(votes)] * 3
    assert len(files(votes)) == 1
