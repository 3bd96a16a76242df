"""Object stores through pyarrow, by a folder that stands for one: whole puts, tries, and errors as sentences."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from flsim.config.address import Address
from flsim.config.ranges import ConfigError
from flsim.storage import bucket as bucket_module
from flsim.storage.bucket import Bucket
from flsim.storage.trouble import UnreachableError, told


@pytest.fixture
def there(tmp_path: Path) -> Bucket:
    """A store in a folder, with short waits."""
    return Bucket(Address.of(f"file://{tmp_path}/there"), waits=(0.0, 0.0))


def test_what_is_put_is_got_whole_in_part_and_listed(there: Bucket) -> None:
    there.put("a/b", b"0123456789")
    there.put("a/c", b"")
    there.put("a/b", b"abcdefghij")
    assert there.get("a/b") == b"abcdefghij"
    assert there.get("a/b", 3, 4) == b"defg"
    assert there.sizes() == {"a/b": 10, "a/c": 0}
    assert there.below("a").sizes() == {"b": 10, "c": 0}
    assert there.sizes("nothing") == {}
    assert there.get_all(["a/b", "gone"]) == {"a/b": b"abcdefghij"}
    there.delete(["a/b", "gone"])
    assert there.sizes() == {"a/c": 0}
    with pytest.raises(FileNotFoundError):
        there.get("a/b")
    assert there.below("a").above() == there


def test_memory_of_fsspec_is_a_store_like_any() -> None:
    there = Bucket.at("fsspec+memory://somewhere/run")
    there.check()
    there.put("rows/x", b"1")
    assert there.sizes() == {"rows/x": 1}
    assert there.get("rows/x") == b"1"


def test_a_put_that_fails_leaves_what_was_there(there: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there.put("a", b"old")

    def failing(system: Any, path: str, data: bytes) -> None:
        Path(path).write_bytes(data[:1])
        raise OSError("HTTP status 503")

    monkeypatch.setattr(bucket_module, "_write", failing)
    with pytest.raises(UnreachableError, match="the server does not answer"):
        there.put("a", b"new")
    assert there.get("a") == b"old"
    assert os.listdir(tmp_path / "there") == ["a"]


def test_what_may_pass_is_tried_again_and_what_stays_is_not(there: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    put, tries, error = bucket_module._put, list[str](), OSError("AWS Error NETWORK_CONNECTION during PutObject")

    def flaky(system: Any, path: str, data: bytes) -> None:
        tries.append(path)
        if len(tries) < 3:
            raise error
        put(system, path, data)

    monkeypatch.setattr(bucket_module, "_put", flaky)
    there.put("a", b"1")
    assert (len(tries), there.get("a")) == (3, b"1")
    tries.clear()
    error = OSError("AWS Error NO_SUCH_BUCKET during PutObject operation: nothing")
    with pytest.raises(UnreachableError, match="there is no such bucket"):
        there.put("b", b"1")
    assert len(tries) == 1


def test_tries_that_take_long_themselves_are_fewer(
    there: Bucket, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 6 s each, before waits of 4 and 70 s: the second one would be over after 75 s, so there are two tries."""
    clock, tries = [0.0], list[float]()

    def slow(system: Any, path: str, data: bytes) -> None:
        tries.append(clock[0])
        clock[0] += 6.0
        raise OSError("AWS Error NETWORK_CONNECTION during PutObject")

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    monkeypatch.setattr(bucket_module, "_put", slow)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", sleep)
    with pytest.raises(UnreachableError, match="the server does not answer"):
        Bucket(there.address, waits=(4.0, 70.0)).put("a", b"1")
    assert tries == [0.0, 10.0]
    assert "does not answer (the server does not answer" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("AWS Error ACCESS_DENIED during HeadObject operation: No response body.", "it wants other credentials"),
        ("AWS Error UNKNOWN (HTTP status 301) during HeadBucket", "the bucket lies in another region"),
        ("When resolving region for bucket 'b': AWS Error NETWORK_CONNECTION", "its region could not be found"),
        ("Unable to load libjvm\ndlopen(...)\ndlopen(...)", "Hadoop's library is not here"),
    ],
)
def test_errors_are_one_sentence_without_secrets(error: str, reason: str) -> None:
    address = Address.of("s3://AKIA:hush@bucket/x")
    said, _ = told(OSError(f"{error} for AKIA:hush and hush"), address)
    assert said.startswith(reason)
    assert "hush" not in said
    assert "\n" not in said


def test_an_address_that_nobody_can_open_is_refused_before_any_work() -> None:
    with pytest.raises(ConfigError, match=r"run_dir=zz://bucket/x cannot hold a run: .*[Uu]nrecognized filesystem"):
        Bucket.at("zz://key:hush@bucket/x").check()
    with pytest.raises(ConfigError, match="Unexpected query parameter"):
        Bucket.at("s3://bucket/x?endpoint_overide=127.0.0.1:9").check()
    with pytest.raises(ConfigError, match="no address"):
        Bucket.at("://")
