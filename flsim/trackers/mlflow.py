"""MLflow: a run in the experiment of its study, with parameters, metrics by step, texts and artefacts."""

import importlib
import time
import zlib
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from flsim.files import cache_folder
from flsim.trackers.named import need
from flsim.trackers.tracker import FAILED, FINISHED, STOPPED, TrackedRun, Tracker

_ID = "flsim.id"  # tag by which a run is found again
_ROUND = "round"  # metric of which the newest value says what the run holds
_STATUS = {FINISHED: "FINISHED", STOPPED: "KILLED", FAILED: "FAILED"}
_LOCAL = ("sqlite:", "file:", "/", "./")  # how addresses of this machine's own files begin
_AT_ONCE = 100  # parameters of a request
_LONGEST = 6000  # letters of a parameter


@dataclass
class Mlflow(Tracker):
    """A run of MLflow, on a server or in a local database.

    Raises:
        ConfigError: if `mlflow` is not installed.
    """

    uri: str | None = None
    """Of the tracking server, such as `http://127.0.0.1:5000`; None goes by MLFLOW_TRACKING_URI, else a local file."""
    experiment: str | None = None
    """None is the folder of the study, or the name of the config."""
    wait_s: float = 10.0
    """Seconds that the end of a run waits for uploads."""
    _client: Any = field(default=None, init=False, repr=False)
    _run: str = field(default="", init=False, repr=False)
    _experiment: str = field(default="", init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse a machine without it."""
        need("track=mlflow", "mlflow", "mlflow")

    def start(self, run: TrackedRun) -> int | None:
        """Find the run with this id, or make it; its newest `round` says what it holds."""
        mlflow = importlib.import_module("mlflow")
        uri = self.uri or mlflow.get_tracking_uri()
        with _alone_at(uri):
            self._client = mlflow.MlflowClient(tracking_uri=uri)
            self._experiment = self._experiment_of(run.group if self.experiment is None else self.experiment)
        found = self._client.search_runs([self._experiment], f"tags.`{_ID}` = '{run.id}'", max_results=1)
        if found:
            self._run = found[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
            return int(found[0].data.metrics.get(_ROUND, -1))
        made = self._client.create_run(self._experiment, run_name=run.name, tags={_ID: run.id})
        self._run = made.info.run_id
        entities = importlib.import_module("mlflow.entities")
        params = [entities.Param(name, str(value)[:_LONGEST]) for name, value in run.config.items()]
        for at in range(0, len(params), _AT_ONCE):
            self._client.log_batch(self._run, params=params[at : at + _AT_ONCE])
        return -1

    def measures(self, round_: int, values: Mapping[str, float]) -> None:
        """All metrics in one request, `round` among them, so that a run holds a round whole or not at all."""
        now, metric = round(time.time() * 1000), importlib.import_module("mlflow.entities").Metric
        whole = {**values, _ROUND: float(round_)}
        self._client.log_batch(self._run, metrics=[metric(name, value, now, round_) for name, value in whole.items()])

    def text(self, round_: int, name: str, text: str) -> None:
        """A file among the artefacts."""
        self._client.log_text(self._run, text, f"{name}/round-{round_:05d}.md")

    def artefact(self, path: Path, name: str) -> None:
        """A file as it is called, a folder under its name."""
        if path.is_dir():
            self._client.log_artifacts(self._run, str(path), name)
        else:
            self._client.log_artifact(self._run, str(path))

    def finish(self, status: str) -> None:
        """Say how it ended."""
        self._client.set_terminated(self._run, _STATUS[status])

    def place(self) -> str:
        """Its experiment and id."""
        return f"run {self._run} of experiment {self._experiment} at {self._client.tracking_uri}"

    def _experiment_of(self, name: str) -> str:
        """The id of an experiment, made if it is not there; another run may make it at the same moment."""
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name))
            except importlib.import_module("mlflow.exceptions").MlflowException:
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        return str(found.experiment_id)


def _alone_at(uri: str) -> AbstractContextManager[Any]:
    """A lock for a local database: who asks first makes it, and two at once, as runs of a study, would damage it."""
    if not uri.startswith(_LOCAL):
        return nullcontext()  # whoever waits for a server that is away must not keep others from theirs
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / f"mlflow-{zlib.crc32(uri.encode()):08x}.lock")
