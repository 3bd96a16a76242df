"""The real trackers: what they hold is read back by their own readers, also after a kill and a resume."""

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import flsim
from flsim.config.load import to_yaml
from flsim.trackers.tensorboard import TensorBoard
from flsim.trackers.tracker import TrackedRun
from flsim.trackers.wandb_file import lines_of, records_of
from tests.tiny import TinyRun, tiny_file

pytestmark = [
    pytest.mark.ecosystem,
    pytest.mark.filterwarnings("default"),  # their own, which are none of ours
]
TINY = ("client.path=clients.sft:Sft", "rounds=4", "stream.phases=[[arithmetic],[strings]]", "cloud.cache=null")
_LONG_S = 300.0  # for whatever is awaited, on a machine that has much to do


def expected(folder: Path) -> dict[str, float]:
    """Some numbers that a tracker must hold of the last round."""
    summary = json.loads((folder / "summary.json").read_text())
    tested = summary["at_end"]["global"]["accuracy"]
    return {"accuracy/mean": tested["user_mean"], "accuracy/p10": tested["p10"]}


def stopped_and_resumed(config: Any) -> "flsim.Run":
    """A run that is stopped after round 2 and goes on."""
    flsim.run(config, until=2, progress=False)
    return flsim.run(resume=config.folder, progress=False)


def killed_and_resumed(config: Any, folder: Path, *, after: int) -> None:
    """A run in a process of its own that is killed with -9 once a tracker has a round, and goes on."""
    file = folder / "killed.yaml"
    file.write_text(to_yaml(config))
    command = [sys.executable, "-m", "flsim", "run", str(file), "rounds=80", "stream.phases=[[arithmetic]]"]
    own = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}  # of this process
    quiet = subprocess.DEVNULL
    started = subprocess.Popen(command, env=own, start_new_session=True, stdout=quiet, stderr=quiet)
    until = time.monotonic() + _LONG_S
    try:
        while sent_of(config.folder) < after and time.monotonic() < until and started.poll() is None:
            time.sleep(0.02)
        assert started.poll() is None, "it ended before it was killed"
    finally:
        started.kill()  # and not what it started: W&B's own process writes what it holds, and ends
        started.wait()
    reached = len(list((config.folder / "rows").iterdir())) - 1
    assert after <= reached < 76, "it was killed too late"
    flsim.run(resume=config.folder, progress=False, until=reached + 4)
    assert "was not done in time" not in log_of(config.folder)
    assert "failed" not in log_of(config.folder)


def sent_of(folder: Path) -> int:
    """The last round that any tracker of a run has."""
    found = [-1]
    for file in (folder / "trackers").glob("*.json"):
        found.append(json.loads(file.read_text())["sent"])
    return max(found)


def log_of(folder: Path) -> str:
    return (folder / "run.log").read_text()


@pytest.fixture(scope="module", autouse=True)
def _nothing_is_reported() -> Iterator[None]:
    """Packages tell their makers nothing of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
            patch.setenv(name, "true")
        patch.setenv("WANDB_ERROR_REPORTING", "false")
        yield


# TensorBoard


def events_of(folder: Path) -> Any:
    """A folder of event files, as TensorBoard itself reads it."""
    package = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    read = package.EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    read.Reload()
    return read


def scalars_of(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """All scalars of it as pairs of step and value."""
    read = events_of(folder)
    return {name: [(one.step, one.value) for one in read.Scalars(name)] for name in read.Tags()["scalars"]}


def test_tensorboard_reads_every_round_once(tiny_run: TinyRun, one_thread: None) -> None:
    pytest.importorskip("tensorboard", reason="the extra track is not installed")
    run = stopped_and_resumed(tiny_run("run", "track=tensorboard"))
    assert len(list((run.folder / "tensorboard").iterdir())) == 2  # one of each process
    scalars = scalars_of(run.folder / "tensorboard")
    assert [step for step, _ in scalars["cost_so_far/bytes"]] == [1, 2, 3, 4]
    assert [step for step, _ in scalars["accuracy/mean"]] == [0, 2, 4]
    for name, value in expected(run.folder).items():
        assert scalars[name][-1][1] == pytest.approx(value)
    assert scalars["forgetting/accuracy"][-1][0] == 4


def test_tensorboard_after_a_kill(tiny_run: TinyRun, tmp_path: Path, one_thread: None, no_report: None) -> None:
    pytest.importorskip("tensorboard", reason="the extra track is not installed")
    config = tiny_run("run", "track=tensorboard", "rounds=80", "stream.phases=[[arithmetic]]")
    killed_and_resumed(config, tmp_path, after=2)
    steps = [step for step, _ in scalars_of(config.folder / "tensorboard")["cost_so_far/bytes"]]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) >= 6


def test_tensorboard_reads_the_newest_file_last(tmp_path: Path) -> None:
    pytest.importorskip("torch.utils.tensorboard", reason="the extra track is not installed")
    older = tmp_path / "tensorboard" / f"events.out.tfevents.{int(time.time())}.zzz.99999.0"  # of another process
    older.parent.mkdir()
    older.touch()
    tracker = TensorBoard()
    tracker.start(TrackedRun("run", "study", tmp_path, {}, id="a1", first=3))
    tracker.finish("finished")
    (newer,) = set(older.parent.iterdir()) - {older}
    assert newer.name > older.name


def test_tensorboard_holds_findings_and_bands(tiny_run: TinyRun, one_thread: None) -> None:
    pytest.importorskip("tensorboard", reason="the extra track is not installed")
    run = flsim.run(tiny_run("run", "track=tensorboard"), progress=False)
    read = events_of(run.folder / "tensorboard")
    said = read.Tensors("findings/text_summary")
    assert [one.step for one in said] == [2, 4]
    assert b"After round 4" in said[-1].tensor_proto.string_val[0]
    assert "custom_scalars__config__" in read.Tags()["tensors"]


# MLflow


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real server with SQLite on loopback."""
    pytest.importorskip("mlflow", reason="the extra track is not installed")
    place, port = tmp_path_factory.mktemp("mlflow"), free_port()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{place / 'mlflow.db'}",
        "--artifacts-destination",
        str(place / "art"),
    ]
    with (place / "log").open("wb") as log:
        own = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # eight processes that runs do not need
        server = subprocess.Popen(command, cwd=place, env=own, stdout=log, stderr=log, start_new_session=True)
    try:
        await_server(f"{address}/health", server, place / "log")
        yield address
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def await_server(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + _LONG_S
    while time.monotonic() < until:
        assert server.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"no server: {log.read_text()}")


def mlflow_runs(address: str, experiment: str) -> tuple[Any, list[Any]]:
    client = importlib.import_module("mlflow").MlflowClient(tracking_uri=address)
    found = client.get_experiment_by_name(experiment)
    return client, [] if found is None else list(client.search_runs([found.experiment_id]))


def test_mlflow_server_has_one_run_with_every_round_once(
    mlflow_server: str, tiny_run: TinyRun, one_thread: None
) -> None:
    run = stopped_and_resumed(tiny_run("run", f"track=[{{path: mlflow, uri: '{mlflow_server}', wait_s: 120}}]"))
    client, (found,) = mlflow_runs(mlflow_server, run.folder.parent.name)
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "run"
    assert found.data.params["budget.tau"] == "0.3"
    for name, value in expected(run.folder).items():
        assert found.data.metrics[name] == pytest.approx(value)
    history = sorted(one.step for one in client.get_metric_history(found.info.run_id, "cost_so_far/bytes"))
    assert history == [1, 2, 3, 4]
    left = {one.path for one in client.list_artifacts(found.info.run_id)}
    assert {"report.html", "summary.json", "adapter", "findings"} <= left


def test_mlflow_after_a_kill(
    mlflow_server: str, tiny_run: TinyRun, tmp_path: Path, one_thread: None, no_report: None
) -> None:
    track = f"track=[{{path: mlflow, uri: '{mlflow_server}', experiment: killed, wait_s: 120}}]"
    config = tiny_run("run", track, "rounds=80", "stream.phases=[[arithmetic]]")
    killed_and_resumed(config, tmp_path, after=2)
    client, (found,) = mlflow_runs(mlflow_server, "killed")
    steps = sorted(one.step for one in client.get_metric_history(found.info.run_id, "cost_so_far/bytes"))
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) >= 6


def test_a_server_that_is_away_costs_a_line_and_some_seconds(tiny_run: TinyRun, one_thread: None) -> None:
    pytest.importorskip("mlflow", reason="the extra track is not installed")
    track = f"track=[{{path: mlflow, uri: 'http://127.0.0.1:{free_port()}', wait_s: 1}}]"
    run = flsim.run(tiny_run("run", track), progress=False)
    assert (run.folder / "summary.json").is_file()
    assert "tracker mlflow" in log_of(run.folder)
    assert "it has no round; flsim resume" in log_of(run.folder)


# Weights & Biases, offline


def wandb_files(folder: Path) -> list[Path]:
    """Those of offline runs, one of each process."""
    return sorted((folder / "trackers" / "wandb").glob("offline-run-*/run-*.wandb"))


def wandb_records(folder: Path) -> list[Any]:
    return [record for file in wandb_files(folder) for record in records_of(file)]


def wandb_history(folder: Path) -> list[dict[str, Any]]:
    return [line for file in wandb_files(folder) for line in lines_of(file)]


@pytest.fixture
def wandb_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="the extra track is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "wandb"))


def test_wandb_offline_holds_every_round_once(wandb_offline: None, tiny_run: TinyRun, one_thread: None) -> None:
    run = stopped_and_resumed(tiny_run("run", "track=[{path: wandb, wait_s: 120}]"))
    records = wandb_records(run.folder)
    history = wandb_history(run.folder)
    assert [line["round"] for line in history] == [0, 1, 2, 3, 4]
    assert [line["_step"] for line in history] == [0, 1, 2, 3, 4]
    for name, value in expected(run.folder).items():
        assert history[-1][name] == pytest.approx(value)
    begun = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    assert len({one.run_id for one in begun}) == 1
    assert {one.run_group for one in begun} == {run.folder.parent.name}
    left = {record.artifact.name for record in records if record.WhichOneof("record_type") == "artifact"}
    left |= {
        record.request.log_artifact.artifact.name
        for record in records
        if record.WhichOneof("record_type") == "request" and record.request.HasField("log_artifact")
    }
    assert {name.partition("-")[0] for name in left} >= {"report", "summary", "adapter"}


def test_wandb_after_a_kill(
    wandb_offline: None, tiny_run: TinyRun, tmp_path: Path, one_thread: None, no_report: None
) -> None:
    track = "track=[{path: wandb, wait_s: 120}]"
    config = tiny_run("run", track, "rounds=80", "stream.phases=[[arithmetic]]")
    killed_and_resumed(config, tmp_path, after=2)
    records = wandb_records(config.folder)
    rounds = [line["round"] for line in wandb_history(config.folder)]
    assert rounds == list(range(len(rounds)))
    assert len({record.run.run_id for record in records if record.WhichOneof("record_type") == "run"}) == 1


def test_wandb_online_without_a_key_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="the extra track is not installed")
    from flsim.config.schema import ConfigError
    from flsim.trackers.named import trackers_of

    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="track=wandb has no key: call wandb login, or set WANDB_API_KEY"):
        trackers_of([{"path": "wandb", "mode": "online"}])
    with pytest.raises(ConfigError, match="mode='ofline' is not known"):
        trackers_of([{"path": "wandb", "mode": "ofline"}])


# Trackio


def trackio_logs(project: str) -> dict[str, list[Mapping[str, Any]]]:
    kept = importlib.import_module("trackio.sqlite_storage").SQLiteStorage
    return {run: kept.get_logs(project, run) for run in kept.get_runs(project)}


@pytest.fixture(scope="module")
def trackio_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Trackio reads where it writes when it is imported, so one folder serves the whole file."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("trackio")
        patch.setenv("TRACKIO_DIR", str(folder))
        pytest.importorskip("trackio", reason="the extra track is not installed")
        yield folder


def test_trackio_holds_every_round_once(trackio_folder: Path, tiny_run: TinyRun, one_thread: None) -> None:
    run = stopped_and_resumed(tiny_run("run", "track=[{path: trackio, project: kept, wait_s: 120}]"))
    ((name, logs),) = trackio_logs("kept").items()
    assert name.startswith("run-")
    assert [line["step"] for line in logs] == [0, 1, 2, 3, 4]
    for key, value in expected(run.folder).items():
        assert logs[-1][key] == pytest.approx(value)
    assert "findings" in logs[-1]
    assert any(trackio_folder.rglob("kept*.db"))


def test_trackio_after_a_kill(
    trackio_folder: Path, tiny_run: TinyRun, tmp_path: Path, one_thread: None, no_report: None
) -> None:
    track = "track=[{path: trackio, project: killed, wait_s: 120}]"
    config = tiny_run("run", track, "rounds=80", "stream.phases=[[arithmetic]]")
    killed_and_resumed(config, tmp_path, after=2)
    ((_, logs),) = trackio_logs("killed").items()
    steps = [line["step"] for line in logs]
    assert steps == list(range(len(steps)))
    assert len(steps) >= 6


# Several at once, and a study


def test_all_four_at_once_change_no_row(
    wandb_offline: None, trackio_folder: Path, mlflow_server: str, tiny_run: TinyRun, one_thread: None
) -> None:
    from flsim.metrics.rows import without_timing

    mlflow = f"{{path: mlflow, uri: '{mlflow_server}', experiment: four, wait_s: 120}}"
    more = "{path: wandb, wait_s: 120}, {path: trackio, project: four, wait_s: 120}"
    followed = flsim.run(tiny_run("four", f"track=[tensorboard, {mlflow}, {more}]"), progress=False)
    plain = flsim.run(tiny_run("plain"), progress=False)
    assert without_timing(followed.rows).equals(without_timing(plain.rows))
    assert "failed" not in log_of(followed.folder)


def test_runs_of_a_study_are_one_experiment(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two at a time, in a local database that the first of them makes."""
    pytest.importorskip("mlflow", reason="the extra track is not installed")
    address = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    track = "track=[{path: mlflow, wait_s: 120}]"
    file = tiny_file(tmp_path, tiny_checkpoint, "client.path=clients.sft:Sft", track)
    root = tmp_path / "my-study"
    command = [sys.executable, "-m", "flsim", "study", str(file), "seed=0,1", "--jobs", "2", "--root", str(root)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    _, found = mlflow_runs(address, "my-study")
    assert {one.info.run_name for one in found} == {"seed0", "seed1"}
    assert {one.info.status for one in found} == {"FINISHED"}
