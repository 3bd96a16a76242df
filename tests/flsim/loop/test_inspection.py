"""Before a run goes on, all that its checkpoint names is looked at; each mend that is told is followed, and works."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import flsim
from flsim.config.schema import ConfigError
from flsim.devices import device_name
from flsim.files import DamagedFileError, seal, write_atomically
from flsim.flower.grid import store_in
from flsim.flower.probe import Choice
from flsim.loop.inspection import inspect, world_of
from flsim.metrics.rows import read_rows, without_timing
from flsim.tasks.stream import stream_of
from tests.kept import states_file
from tests.tiny import TinyRun, without_report

TINY = ("rounds=4", "evaluation.every_rounds=9", "evaluation.prompts_per_task=1", "client.group_size=2")

pytestmark = pytest.mark.usefixtures("no_report")


@pytest.fixture(scope="module")
def whole(tiny_runs: TinyRun) -> pd.DataFrame:
    """Rows of a run that nobody disturbed."""
    with without_report():
        return without_timing(flsim.run(tiny_runs("whole"), progress=False).rows)


@pytest.fixture(scope="module")
def stopped(tiny_runs: TinyRun) -> Path:
    """The same run after round 3."""
    with without_report(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("flsim.flower.probe.probe", lambda *given, **more: Choice(8, ()))  # measuring takes long
        return flsim.run(tiny_runs("stopped", "engine.pack=auto"), until=3, progress=False).folder


@pytest.fixture
def folder(stopped: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stopped, tmp_path / "run"))


def refused(folder: Path) -> str:
    """What a resume says."""
    with pytest.raises(DamagedFileError) as caught:
        flsim.run(resume=folder, progress=False)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def assert_goes_on(folder: Path, whole: pd.DataFrame) -> None:
    rows = flsim.run(resume=folder, progress=False).rows
    pd.testing.assert_frame_equal(without_timing(rows), whole, check_exact=True)


def spoil(path: Path, how: str) -> None:
    data = path.read_bytes()
    match how:
        case "deleted":
            path.unlink()
        case "emptied":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(data[: len(data) // 2])
        case "flipped":
            path.write_bytes(data[:-9] + bytes([data[-9] ^ 4]) + data[-8:])


ROWS = "rows/round-00003.parquet"
STATES = "devices/round-00003-*.states"
NEWEST = "checkpoints/round-00003.npz"


OTHERS = ("cut", "no YAML", "deleted")


def damages() -> list[Any]:
    """Every way with every file of a round; the usual tests take one of each."""
    usual = {(ROWS, "deleted"), (STATES, "cut"), (NEWEST, "flipped")}
    every = [(file, how) for file in (ROWS, STATES, NEWEST) for how in ("deleted", "emptied", "cut", "flipped")]
    return [pytest.param(*one, marks=[] if one in usual else pytest.mark.slow) for one in every]


@pytest.mark.parametrize(("file", "how"), damages())
def test_what_the_last_round_left_is_run_again_after_its_checkpoint_was_deleted(
    folder: Path, whole: pd.DataFrame, file: str, how: str
) -> None:
    (path,) = folder.glob(file)
    spoil(path, how)
    if (file, how) != (NEWEST, "deleted"):
        said = refused(folder)
        assert str(path if path.exists() or file != STATES else path.parent) in said
        (mend,) = re.findall(r"delete (?:(\S+npz)|it)", said)
        assert mend in ("", str(folder / NEWEST))
        (folder / NEWEST).unlink()
    assert_goes_on(folder, whole)


@pytest.mark.parametrize(
    ("file", "how"),
    [
        ("rows/round-00002.parquet", "deleted"),
        pytest.param("rows/round-00002.parquet", "flipped", marks=pytest.mark.slow),
        pytest.param("rows/round-00000.parquet", "deleted", marks=pytest.mark.slow),
    ],
)
def test_what_no_checkpoint_can_give_back_is_put_back_or_made_anew(
    folder: Path, whole: pd.DataFrame, file: str, how: str
) -> None:
    good = (folder / file).read_bytes()
    spoil(folder / file, how)
    said = refused(folder)
    assert str(folder / file) in said
    assert "put a copy of it back" in said
    ((config, size),) = re.findall(r"flsim run (\S+) run_dir=NEW (engine\.pack=\d+), ", said)
    if (file, how) == ("rows/round-00002.parquet", "deleted"):
        anew = flsim.run(config, [f"run_dir={folder.parent / 'new'}", size], progress=False)
        pd.testing.assert_frame_equal(without_timing(anew.rows), whole, check_exact=True)
    (folder / file).write_bytes(good)
    assert_goes_on(folder, whole)


def test_an_older_state_that_both_checkpoints_name_cannot_be_run_again(folder: Path, whole: pd.DataFrame) -> None:
    """As of a device that was in no cohort since: here round 3's checkpoint is gone, and a state of round 2 with it."""
    (folder / NEWEST).unlink()
    state = states_file(folder, 2)
    good = state.read_bytes()
    spoil(state, "cut")
    assert "put a copy of it back" in refused(folder)
    state.write_bytes(good)
    assert_goes_on(folder, whole)


@pytest.mark.parametrize("how", ["emptied", "another", *(pytest.param(one, marks=pytest.mark.slow) for one in OTHERS)])
def test_a_config_that_is_not_the_runs_is_refused_and_written_again_once_it_is_deleted(
    folder: Path, whole: pd.DataFrame, how: str
) -> None:
    path = folder / "config.yaml"
    text = path.read_text()
    other = {"another": re.sub(r"seed: 0", "seed: 1", text), "no YAML": "a: [", "emptied": "", "cut": text[:300]}
    if how != "deleted":
        path.write_text(other[how])
        said = refused(folder)
        assert said.startswith(str(path))
        assert f"delete it, and flsim resume {folder} writes it again as it was" in said
    path.unlink()
    assert_goes_on(folder, whole)
    assert path.read_text() == text


def test_where_a_run_runs_may_be_changed_by_hand(folder: Path, whole: pd.DataFrame) -> None:
    path = folder / "config.yaml"
    path.write_text(path.read_text().replace("workers: 2", "workers: 1"))
    assert_goes_on(folder, whole)


def test_a_config_that_is_not_whole_is_refused_before_the_first_round_too(folder: Path, tmp_path: Path) -> None:
    for room in ("checkpoints", "rows", "devices"):
        shutil.rmtree(folder / room)
    (folder / "config.yaml").write_text("")
    said = refused(folder)
    assert f"delete {folder} and start the run again" in said


def test_a_lost_pack_size_is_told(folder: Path, whole: pd.DataFrame) -> None:
    path = folder / "pack.json"
    size = json.loads(path.read_text())["pack"]
    for how in ("deleted", "another"):
        if how == "deleted":
            path.unlink()
        else:
            path.write_text(json.dumps({"pack": size + 1}))
        said = refused(folder)
        assert str(path) in said
        assert f'write {{"pack": {size}}} into it' in said
        path.write_text(json.dumps({"pack": size}))
    assert_goes_on(folder, whole)


def test_rows_without_any_checkpoint_are_not_run_over(folder: Path) -> None:
    shutil.rmtree(folder / "checkpoints")
    before = without_timing(read_rows(folder))
    assert "has rows up to round 3 and no checkpoint" in refused(folder)
    pd.testing.assert_frame_equal(without_timing(read_rows(folder)), before)


def test_the_only_checkpoint_if_damaged_has_no_round_before_it(folder: Path) -> None:
    (folder / "checkpoints" / "round-00002.npz").unlink()
    spoil(folder / NEWEST, "cut")
    said = refused(folder)
    assert "round before it" not in said
    assert "put a copy of it back" in said


def test_a_damaged_first_checkpoint_is_deleted_to_begin_again(tiny_run: TinyRun) -> None:
    run = flsim.run(tiny_run("first"), until=0, progress=False)
    rows = without_timing(run.rows)
    spoil(run.folder / "checkpoints" / "round-00000.npz", "cut")
    assert "delete it to begin again" in refused(run.folder)
    (run.folder / "checkpoints" / "round-00000.npz").unlink()
    again = flsim.run(resume=run.folder, until=0, progress=False)
    pd.testing.assert_frame_equal(without_timing(again.rows), rows, check_exact=True)


def test_rows_of_a_round_that_was_given_up_are_in_no_report(folder: Path) -> None:
    """Killed between the rows of round 3 and its checkpoint, and now only to be reported."""
    (folder / NEWEST).unlink()
    assert set(flsim.run(resume=folder, until=2, progress=False).rows["round"]) == {0, 1, 2}


def test_a_finished_run_needs_no_states_for_its_report(folder: Path) -> None:
    shutil.rmtree(folder / "devices")
    assert set(flsim.run(resume=folder, until=3, progress=False).rows["round"]) == {0, 1, 2, 3}
    assert "lacks the state that device-000 left in round 3" in refused(folder)


def test_comparing_takes_no_lock(folder: Path, whole: pd.DataFrame) -> None:
    """A folder that somebody writes can be read."""
    from flsim.loop.lock import RunLock

    with RunLock(folder):
        with pytest.raises(ConfigError, match="its rows end at round 3 of 4"):
            flsim.compare([folder, folder])
        assert len(read_rows(folder)) > 0


def in_old_files(folder: Path) -> None:
    """Lay the states out as the release before did: a folder a device, and a sealed file a round."""
    store = store_in(folder)
    for name, held in store.files().items():
        for device, one in held:
            path = store.folder / device_name(device) / f"round-{one.round:05d}.state"
            write_atomically(path, seal(store.read(device, one, "")))
        store.delete([name])


def of_the_release_before(folder: Path) -> None:
    """Take from the checkpoints what that release did not write."""
    in_old_files(folder)
    for path in (folder / "checkpoints").glob("*.npz"):
        with np.load(path) as file:
            old = {name: file[name] for name in file.files if name != "rows" and not name.startswith("states/")}
        meta = {"round": json.loads(old["meta"].tobytes())["round"]}
        old["meta"] = np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)
        np.savez(path, **old)


@pytest.mark.parametrize("lost", [False, True])
def test_a_run_of_the_release_before_goes_on_with_a_note(folder: Path, whole: pd.DataFrame, lost: bool) -> None:
    of_the_release_before(folder)
    old = folder / "devices" / "device-001" / "round-00003.state"
    shutil.copyfile(old, old.with_name("round-00004.state"))  # of the round that was killed
    if lost:
        spoil(folder / "rows" / "round-00001.parquet", "deleted")
        assert "rows/round-00001.parquet cannot be read" in refused(folder)
        return
    assert_goes_on(folder, whole)
    assert "the release before" in (folder / "run.log").read_text()


def test_states_in_the_files_of_the_release_before_are_gone_on_from_and_go(folder: Path, whole: pd.DataFrame) -> None:
    """Its checkpoint names them; a damaged one is named, and after a round they are no longer needed."""
    in_old_files(folder)
    old = folder / "devices" / "device-001" / "round-00003.state"
    good = old.read_bytes()
    spoil(old, "flipped")
    assert str(old) in refused(folder)
    old.write_bytes(good)
    assert_goes_on(folder, whole)
    assert [path.name for path in sorted((folder / "devices").iterdir())][:2] == ["device-000", "device-001"]
    assert {path.name for path in (folder / "devices").rglob("*.state")} == {"round-00003.state"}


def test_another_model_under_the_same_name_is_refused(
    stopped: Path, tiny_checkpoint: Path, whole: pd.DataFrame, tmp_path: Path
) -> None:
    """One weight differs; where it was put back, the run goes on."""
    model, folder = tmp_path / "model", tmp_path / "run"
    shutil.copytree(tiny_checkpoint, model)
    config = flsim.load_config(stopped / "config.yaml", [f"model.path={model}", f"run_dir={folder}", "engine.pack=8"])
    flsim.run(config, until=1, progress=False)
    good = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(good[:-2] + bytes([good[-2] ^ 8]) + good[-1:])
    assert refused(folder).startswith(f"model.path is another checkpoint than when {folder} was begun")
    (model / "model.safetensors").write_bytes(good)
    assert_goes_on(folder, whole)


def test_every_flipped_byte_of_what_is_named_is_found(folder: Path) -> None:
    """One byte in so many of each file, at a time; the sums find all."""
    config = flsim.load_config(folder / "config.yaml")
    log = flsim.files.log_to(folder)
    world = world_of(config, stream_of(config))

    def inspect_() -> None:
        inspect(folder, store_in(folder), config, world, last=4, log=log)

    inspect_()
    for file in (folder / "rows" / "round-00001.parquet", states_file(folder, 3)):
        data = file.read_bytes()
        for place in (*range(0, 250, 20), *range(250, len(data), len(data) // 25)):
            file.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
            with pytest.raises(DamagedFileError, match=str(file)):
                inspect_()
        file.write_bytes(data)
    inspect_()
