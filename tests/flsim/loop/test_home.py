"""Runs in an object store, which a folder stands for here: equal to local ones, and gone on with from anywhere.

A kill leaves the store as it was after some put or delete. So the store is copied after each of them, and runs go on
from the copies, on a machine that has nothing of them.
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import flsim
from flsim.config.schema import ConfigError
from flsim.files import DamagedFileError, UnwritableError, left_in
from flsim.loop.lock import OWNER, FolderInUseError, RunLock
from flsim.metrics.rows import read_rows, without_timing
from flsim.storage import bucket as bucket_module
from flsim.storage.behind import copy_of, open_copy
from flsim.storage.bucket import Bucket
from flsim.storage.looking import run_folder, run_folders
from flsim.storage.mirror import Mirror
from tests.tiny import TinyRun, without_report

TINY = (
    "rounds=3",
    "evaluation.every_rounds=9",
    "evaluation.prompts_per_task=1",
    "client.group_size=2",
    "client.lr=0.01",
)

pytestmark = pytest.mark.usefixtures("no_report", "own_cache")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Go to another machine: a cache of that name, which is empty at first."""

    def go_to(name: str) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches" / name))

    go_to("first")
    monkeypatch.setattr("flsim.loop.lock._SETTLE_THERE_S", 0.0)
    return go_to


@pytest.fixture(scope="module")
def whole(tiny_runs: TinyRun) -> Path:
    """The same run in a folder of its own."""
    with without_report():
        return flsim.run(tiny_runs("whole"), progress=False).folder


@pytest.fixture(scope="module")
def moments(tiny_runs: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What was in the store after each change of round 2, and whole; by what was done last."""
    root = tmp_path_factory.mktemp("moments")
    found: dict[str, Path] = {}

    def watch(patch: pytest.MonkeyPatch, name: str, work: Callable[..., Any]) -> None:
        def watched(*given: Any) -> Any:
            result = work(*given)
            path = given[1]
            if "round-00002" in path or (found and OWNER not in path):
                what = re.sub(r"[-.][0-9a-f]{12}", "", path.rpartition("/there/")[2])
                found[f"{name} {what}"] = Path(shutil.copytree(root / "there", root / str(len(found))))
            return result

        patch.setattr(bucket_module, name, watched)

    with without_report(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        patch.setattr("flsim.loop.lock._SETTLE_THERE_S", 0.0)
        patch.setattr(bucket_module, "_AT_ONCE", 1)
        watch(patch, "_put", bucket_module._put)
        watch(patch, "_delete", bucket_module._delete)
        flsim.run(tiny_runs("there", f"run_dir=file://{root}/there"), until=2, progress=False)
    return found


def assert_same(folder: Path, whole: Path) -> None:
    one, other = (without_timing(read_rows(place)) for place in (folder, whole))
    pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_a_run_in_a_store_is_the_run_in_a_folder(whole: Path, tiny_run: TinyRun, tmp_path: Path) -> None:
    address = f"file://{tmp_path}/there"
    run = flsim.run(tiny_run("there", f"run_dir={address}"), progress=False)
    assert_same(run.folder, whole)
    assert run.folder == copy_of(Bucket.at(address).address)
    there = {re.sub(r"[-.][0-9a-f]{12}", "", name) for name in Bucket.at(address).sizes()}
    here = {path.relative_to(whole).as_posix() for path in whole.rglob("*") if path.is_file()}
    here = {re.sub(r"-[0-9a-f]{12}", "", name) for name in here}
    assert there == here - {".lock"}
    assert f"run_dir: {address}" in (tmp_path / "there" / "config.yaml").read_text()
    assert left_in(run.folder) == f"everything up to round 3 is kept; go on with: flsim resume {address}"


def usual(name: str) -> bool:
    return name.startswith(("_put rows/round-00002", "_put checkpoints/round-00002", "_put devices/round-00002"))


def test_a_run_that_was_killed_at_any_change_of_the_store_goes_on_elsewhere_to_the_same_bits(
    moments: dict[str, Path], whole: Path, tmp_path: Path, own_cache: Callable[[str], None]
) -> None:
    names = [name for name in moments if usual(name)]
    assert names == [
        "_put devices/round-00002.states",
        "_put rows/round-00002.parquet",
        "_put checkpoints/round-00002.npz",
    ]
    assert_goes_on(moments, names, whole, tmp_path, own_cache)


@pytest.mark.slow
def test_likewise_at_all_others(
    moments: dict[str, Path], whole: Path, tmp_path: Path, own_cache: Callable[[str], None]
) -> None:
    names = [name for name in moments if not usual(name)]
    assert len(names) > 6
    assert_goes_on(moments, names, whole, tmp_path, own_cache)


def assert_goes_on(
    moments: dict[str, Path], names: list[str], whole: Path, tmp_path: Path, own_cache: Callable[[str], None]
) -> None:
    for number, name in enumerate(names):
        own_cache(str(number))
        store = taken_over(moments[name], tmp_path / str(number))
        run = flsim.run(resume=f"file://{store}", progress=False)
        assert_same(run.folder, whole)
        assert len(list(store.glob("rows/*"))) == 4, name  # rows that were given up are gone


def taken_over(moment: Path, place: Path) -> Path:
    """A copy of a store without a lease, as after a minute: the process that it names is this one, which lives."""
    shutil.copytree(moment, place)
    (place / OWNER).unlink(missing_ok=True)
    return place


def test_a_copy_that_went_on_alone_is_brought_back_to_what_is_committed(
    moments: dict[str, Path], whole: Path, tmp_path: Path, own_cache: Callable[[str], None]
) -> None:
    """The same machine, whose copy has a checkpoint, rows and a log that the store has not, and lacks others."""
    store = taken_over(moments["_put rows/round-00002.parquet"], tmp_path / "there")
    folder = open_copy(Bucket.at(f"file://{store}"))
    Mirror(folder, Bucket.at(f"file://{store}")).bring()
    shutil.copy(folder / "checkpoints" / "round-00001.npz", folder / "checkpoints" / "round-00002.npz")
    (folder / "rows" / "round-00002.parquet").write_bytes(b"of a round that was given up")
    (folder / "rows" / "round-00000.parquet").write_bytes(b"not what it was")
    (folder / "rows" / "round-00001.parquet").unlink()
    assert_same(flsim.run(resume=folder, progress=False).folder, whole)  # its copy is as good as its address


def test_a_damaged_or_lost_object_is_named_with_what_can_be_done(
    moments: dict[str, Path], whole: Path, tmp_path: Path, own_cache: Callable[[str], None]
) -> None:
    store = taken_over(moments["_put checkpoints/round-00002.npz"], tmp_path / "there")
    newest = sorted(store.glob("checkpoints/round-00002*"))[0]
    kept = newest.read_bytes()
    newest.write_bytes(kept[:-1])
    with pytest.raises(DamagedFileError, match=r"checkpoints/round-00002\.\w+\.npz of file://.* is damaged.*delete it"):
        flsim.run(resume=f"file://{store}", progress=False)
    newest.unlink()  # the mend
    assert_same(flsim.run(resume=f"file://{store}", progress=False).folder, whole)
    lost = sorted(store.glob("rows/round-00001*"))[0]
    lost.unlink()
    with pytest.raises(DamagedFileError, match=r"lacks rows/round-00001\.\w+\.parquet, which checkpoints/round-00003"):
        flsim.run(resume=f"file://{store}", progress=False)


def test_a_state_that_no_store_has_is_told_and_nobody_goes_on_without(
    moments: dict[str, Path], tmp_path: Path, own_cache: Callable[[str], None]
) -> None:
    store = taken_over(moments["_put checkpoints/round-00002.npz"], tmp_path / "there")
    for path in store.glob("devices/round-00002*"):
        path.unlink()
    with pytest.raises(DamagedFileError, match=r"lacks the state .*delete file://.*round-00002\.\w+\.npz to go on"):
        flsim.run(resume=f"file://{store}", progress=False)


def test_a_new_run_wants_an_empty_place_and_a_resume_a_run(tiny_run: TinyRun, tmp_path: Path) -> None:
    address = f"file://{tmp_path}/there"
    with pytest.raises(ConfigError, match=r"file://.*/there holds no run"):
        flsim.run(resume=address, progress=False)
    Bucket.at(address).put("something", b"1")
    with pytest.raises(ConfigError, match=r"there is not empty; go on with what is there by flsim resume"):
        flsim.run(tiny_run("there", f"run_dir={address}"), progress=False)
    with pytest.raises(ConfigError, match=r"has no config\.yaml"):
        run_folder(address)


def test_a_store_that_goes_away_ends_the_run_in_a_sentence_and_loses_nothing(
    whole: Path, tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, put = f"file://{tmp_path}/there", bucket_module._put

    def away(system: Any, path: str, data: bytes) -> None:
        if "rows/round-00002" in path or broken:
            broken.append(path)
            raise OSError("AWS Error NETWORK_CONNECTION during PutObject operation")
        put(system, path, data)

    broken: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(bucket_module, "_put", away)
        patch.setattr("time.sleep", lambda seconds: None)
        with pytest.raises(UnwritableError, match=r"could not put rows/round-00002.*the server does not answer"):
            flsim.run(tiny_run("there", f"run_dir={address}"), progress=False)
    assert_same(flsim.run(resume=address, progress=False).folder, whole)


def test_one_process_at_a_time_has_a_run_in_a_store(tmp_path: Path, own_cache: Callable[[str], None]) -> None:
    bucket = Bucket.at(f"file://{tmp_path}/there")
    with RunLock(open_copy(bucket)) as first:
        own_cache("another")
        with pytest.raises(FolderInUseError, match=r"file://.*/there is in use by process"), RunLock(open_copy(bucket)):
            pass
        bucket.put(OWNER, bucket.get(OWNER).replace(first.owner.token.encode(), b"0" * 32))
        with pytest.raises(FolderInUseError, match=r"file://.*/there was taken over by"):
            first.check()
    assert bucket.sizes() == {OWNER: len(bucket.get(OWNER))}  # another's lease is left to it


def test_a_checkpoint_of_another_is_a_stranger(tmp_path: Path) -> None:
    bucket = Bucket.at(f"file://{tmp_path}/there")
    one, other = (Mirror(open_copy(bucket), bucket) for _ in range(2))
    one.commit("checkpoints/round-00001.npz", b"mine")
    assert one.strangers() == []
    other.commit("checkpoints/round-00001.npz", b"yours")
    assert len(one.strangers()) == 1
    assert len(bucket.sizes("checkpoints")) == 2  # neither is written over


def test_runs_are_looked_at_apart_from_the_copy_that_is_at_work(
    moments: dict[str, Path], whole: Path, tmp_path: Path, own_cache: Callable[[str], None]
) -> None:
    store = moments["_put checkpoints/round-00002.npz"]
    folder = run_folder(f"file://{store}")
    assert folder != copy_of(Bucket.at(f"file://{store}").address)
    rows, every = read_rows(folder), read_rows(whole)
    early = without_timing(every[every["round"] <= 2])
    pd.testing.assert_frame_equal(without_timing(rows), early, check_exact=True)
    assert run_folders(f"file://{store}") == [folder]
    assert folder in run_folders(f"file://{store.parent}")
