"""Commits: a run that is stopped at any point of one goes on to the same bits, and nobody commits over another."""

import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from flwr.app import Context, Message, MessageType

import flsim
import flsim.flower.messages as wire
from clients.app import DeviceApp
from clients.da_grpo import DaGrpo
from flsim.config.schema import Config
from flsim.files import DamagedFileError
from flsim.flower.grid import store_in
from flsim.loop.checkpoints import latest_checkpoint, latest_mark
from flsim.loop.lock import FolderInUseError, RunLock
from flsim.metrics.rows import read_rows, without_timing
from tests.kept import states_file
from tests.tiny import TinyRun, without_report

TINY = (
    "rounds=3",
    "evaluation.every_rounds=9",
    "evaluation.prompts_per_task=1",
    "client.group_size=2",
    "client.lr=0.01",
)

pytestmark = pytest.mark.usefixtures("no_report")


class Stopped(BaseException):
    """What ends a run where it stands."""


class Disturbed(DeviceApp):
    """A client beside which something happens when a round begins to train."""

    def __init__(self, config: Config, round_: int, event: Callable[[], object]) -> None:
        settings = {key: value for key, value in config.client.items() if key != "path"}
        super().__init__(config, DaGrpo.client_app(config, **settings).algorithm)
        self.round, self.event = round_, event

    def answer(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        if messages[0].metadata.message_type == MessageType.TRAIN and wire.round_of(messages[0]) == self.round:
            self.round = -1
            self.event()
        return super().answer(messages, contexts)


class Failing(Disturbed):
    """A client whose device 1 fails in that round."""

    def answer(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        train = messages[0].metadata.message_type == MessageType.TRAIN
        if train and wire.round_of(messages[0]) == self.round and any(c.node_id == 2 for c in contexts):
            raise RuntimeError("out of battery")
        return DeviceApp.answer(self, messages, contexts)


@pytest.fixture(scope="module")
def whole(tiny_runs: TinyRun) -> Path:
    """A run that nobody disturbed."""
    with without_report():
        return flsim.run(tiny_runs("whole"), progress=False).folder


@pytest.fixture(scope="module")
def begun(tiny_runs: TinyRun) -> Path:
    """The same run after its first round."""
    with without_report():
        return flsim.run(tiny_runs("begun"), until=1, progress=False).folder


def same_rows(one: pd.DataFrame, other: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(one, other, check_exact=True)


def assert_same(folder: Path, whole: Path) -> None:
    same_rows(without_timing(read_rows(folder)), without_timing(read_rows(whole)))
    one, other = latest_checkpoint(folder), latest_checkpoint(whole)
    assert one is not None
    assert other is not None
    assert {name: t.tobytes() for name, t in one.adapter.items()} == {
        name: t.tobytes() for name, t in other.adapter.items()
    }
    assert one.inventory is not None
    assert other.inventory is not None
    assert one.inventory.states == other.inventory.states


def stop_at(patch: pytest.MonkeyPatch, place: int, *, after: bool) -> list[str]:
    """Have a run end at the rename of the `place`-th file of a round, before or after it; names those renamed."""
    rename, seen = os.replace, list[str]()

    def stopping(part: Path, path: Path) -> None:
        if "round-" not in path.name:
            rename(part, path)
            return
        seen.append(re.sub("-[0-9a-f]{12}", "", path.name))
        if after or len(seen) < place:
            rename(part, path)
        if len(seen) == place:
            raise Stopped

    patch.setattr(os, "replace", stopping)
    return seen


def points() -> list[Any]:
    """Every file of a round, before and after it has its name; the usual tests take those of the commit proper."""
    usual = {(1, True), (2, True), (3, False), (3, True)}
    every = [(place, after) for place in range(1, 5) for after in (False, True)]
    return [pytest.param(*one, marks=[] if one in usual else pytest.mark.slow) for one in every]


@pytest.mark.parametrize(("place", "after"), points())
def test_a_run_that_ends_at_any_file_of_a_commit_goes_on_to_the_same_bits(
    begun: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int, after: bool
) -> None:
    """In round 2: the states of two devices in one file, the rows, the checkpoint, the timing."""
    folder = Path(shutil.copytree(begun, tmp_path / "run"))
    with monkeypatch.context() as patch:
        seen = stop_at(patch, place, after=after)
        with pytest.raises(Stopped):
            flsim.run(resume=folder, progress=False)
    files = ["round-00002.states", "round-00002.parquet", "round-00002.npz", "round-00002.json"]
    assert seen == files[:place]
    mark = latest_mark(folder)
    assert mark is not None
    assert mark.round == (2 if (place, after) >= (3, True) else 1)
    flsim.run(resume=folder, progress=False)
    assert_same(folder, whole)


def test_states_are_on_the_disk_before_the_checkpoint_that_names_them(
    begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What reaches the disk for good, in its order: a file, then the folder that has its name."""
    folder = Path(shutil.copytree(begun, tmp_path / "run"))
    flushed, fsync = list[str](), os.fsync

    def noting(file: int) -> None:
        flushed.append(Path(os.readlink(f"/proc/self/fd/{file}")).name)
        fsync(file)

    monkeypatch.setattr(os, "fsync", noting)
    flsim.run(resume=folder, until=2, progress=False)
    where = {name: flushed.index(name) for name in ("devices", "rows", "checkpoints")}
    states = flushed.index(states_file(folder, 2).name)
    assert states < where["devices"] < where["checkpoints"]
    assert where["rows"] < where["checkpoints"]


def test_who_was_passed_by_commits_nothing_more(
    begun: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-Z in round 2, a resume elsewhere that commits rounds 2 and 3, and `fg`; here even the lock has failed."""
    monkeypatch.setattr(RunLock, "__enter__", lambda self: self)
    monkeypatch.setattr(RunLock, "__exit__", lambda self, *how: None)
    monkeypatch.setattr(RunLock, "check", lambda self: None)
    folder = Path(shutil.copytree(begun, tmp_path / "run"))
    config = flsim.load_config(folder / "config.yaml")
    early = Disturbed(config, 2, lambda: flsim.run(resume=folder, progress=False))
    with pytest.raises(FolderInUseError, match="a checkpoint of round 3 that is not its own") as caught:
        flsim.run(resume=folder, client=early, progress=False)
    assert "had committed that of round 1" in str(caught.value)
    assert_same(folder, whole)


def test_a_run_whose_folder_was_taken_over_commits_nothing_more(
    begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken(self: RunLock) -> None:
        raise FolderInUseError("was taken over")

    folder = Path(shutil.copytree(begun, tmp_path / "run"))
    config = flsim.load_config(folder / "config.yaml")
    client = Disturbed(config, 2, lambda: monkeypatch.setattr(RunLock, "check", taken))
    before = (folder / "adapter" / "adapter_model.safetensors").stat().st_mtime_ns
    with pytest.raises(FolderInUseError, match="was taken over"):
        flsim.run(resume=folder, client=client, progress=False)
    assert [path.name for path in sorted((folder / "rows").iterdir())] == ["round-00000.parquet", "round-00001.parquet"]
    assert (folder / "adapter" / "adapter_model.safetensors").stat().st_mtime_ns == before


def test_a_second_run_in_the_folder_is_refused_whatever_it_wants_there(begun: Path, tmp_path: Path) -> None:
    """In the middle of a round of the first, from the same process: a resume, a report, a new run. Reading is free."""
    folder = Path(shutil.copytree(begun, tmp_path / "run"))
    config = flsim.load_config(folder / "config.yaml", [f"run_dir={folder}"])
    said = list[str]()

    def try_all() -> None:
        tries: list[dict[str, Any]] = [{"resume": folder}, {"resume": folder, "until": 1}, {"config": config}]
        for one in tries:
            with pytest.raises(flsim.ConfigError) as caught:
                flsim.run(**one, progress=False)
            said.append(str(caught.value))
        assert len(read_rows(folder)) > 0

    flsim.run(resume=folder, client=Disturbed(config, 2, try_all), until=2, progress=False)
    assert ["in use by this very process" in one for one in said] == [True, True, False]
    assert "exists and is not empty" in said[2]


def test_a_state_of_a_round_that_was_given_up_is_not_used_by_the_next(begun: Path, tmp_path: Path) -> None:
    """Killed in round 2 after device 1 had written a state; after the resume the device fails in round 2."""
    rows = []
    for name in ("left", "clean"):
        folder = Path(shutil.copytree(begun, tmp_path / name))
        if name == "left":
            store = store_in(folder)
            other = store.load(0, next(one for held in store.files().values() for device, one in held if device == 0))
            store.save(2, {1: other})
        config = flsim.load_config(folder / "config.yaml", ["engine.pack=1"])
        client = Failing(config, 2, lambda: None)
        rows.append(without_timing(flsim.run(resume=folder, client=client, progress=False).rows))
    same_rows(*rows)
    assert (rows[0]["name"] == "set_aside").sum() == 1


@pytest.mark.parametrize("how", ["cut", "deleted"])
def test_a_state_that_is_lost_while_the_run_is_at_work_stops_it(tiny_run: TinyRun, how: str) -> None:
    """Its device, of the second pack, is not set aside for the rest of the run, and does not start from nothing."""
    config = tiny_run("run", "engine.pack=1", *TINY)
    folder = config.folder
    lost = list[Path]()

    def spoil() -> None:
        store = store_in(folder)
        ((name, _),) = [
            (name, one) for name, held in store.files().items() for device, one in held if (device, one.round) == (1, 2)
        ]
        lost.append(store.folder / name)
        lost[0].unlink() if how == "deleted" else lost[0].write_bytes(b"cut")

    with pytest.raises(DamagedFileError, match=r"flsim resume .* says how to go on") as caught:
        flsim.run(config, client=Disturbed(config, 3, spoil), progress=False)
    assert str(lost[0]) in str(caught.value)
    mark = latest_mark(folder)
    assert mark is not None
    assert mark.round == 2


def test_commits_need_not_read_what_they_committed_before(
    begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hashes come from the replies, and from the rows as they are written."""
    read = list[str]()
    whole = Path.read_bytes
    folder = Path(shutil.copytree(begun, tmp_path / "run"))
    config = flsim.load_config(folder / "config.yaml")

    def noting(path: Path) -> bytes:
        read.append(path.name)
        return whole(path)

    client = Disturbed(config, 2, lambda: monkeypatch.setattr(Path, "read_bytes", noting))
    flsim.run(resume=folder, client=client, until=2, progress=False)
    assert read == []
