"""The cache of what was bought: what comes back, who is first, two processes at once, and damage."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from flsim.cloud.cache import Cache
from flsim.files import DamagedFileError

WRITER = """
import sys
from flsim.cloud.cache import Cache
cache, me = Cache(sys.argv[1]), sys.argv[2].encode()
for number in range(200):
    cache.put({b"%d" % number: me})
"""


def test_what_was_put_comes_back_to_whoever_asks(tmp_path: Path) -> None:
    values = {b"a": b"one", b"b": b"", b"c": bytes(range(256))}
    assert Cache(tmp_path).get(list(values)) == {}
    assert not list(tmp_path.iterdir())
    assert Cache(tmp_path).put(values) == values
    assert Cache(tmp_path).get([b"c", b"nothing", b"a"]) == {b"a": b"one", b"c": bytes(range(256))}


def test_the_first_to_come_stays(tmp_path: Path) -> None:
    Cache(tmp_path).put({b"a": b"one"})
    assert Cache(tmp_path).put({b"a": b"two", b"b": b"three"}) == {b"a": b"one", b"b": b"three"}


def test_many_keys_at_once(tmp_path: Path) -> None:
    values = {b"%d" % number: b"v%d" % number for number in range(1234)}
    Cache(tmp_path).put(values)
    assert Cache(tmp_path).get(list(values)) == values


def test_two_processes_write_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    writers = [subprocess.Popen([*command, name]) for name in ("first", "second")]
    assert [writer.wait() for writer in writers] == [0, 0]
    kept = Cache(tmp_path).get([b"%d" % number for number in range(200)])
    assert len(kept) == 200
    assert set(kept.values()) <= {b"first", b"second"}


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.path.write_bytes(b"no database at all" * 100)
    with pytest.raises(DamagedFileError, match="delete it, and answers are bought again") as caught:
        cache.get([b"a"])
    assert str(cache.path) in str(caught.value)


def test_a_damaged_value_is_refused(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.put({b"a": b"one"})
    with closing(sqlite3.connect(cache.path)) as connection, connection:
        (value,) = connection.execute("SELECT value FROM bought").fetchone()
        connection.execute("UPDATE bought SET value = ?", (value[:-1] + b"x",))
    with pytest.raises(DamagedFileError, match="wrong checksum"):
        cache.get([b"a"])
