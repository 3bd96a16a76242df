"""Runs in a real S3 server, with Ray nodes that share no folder: equal to local runs, killed at any moment or not.

moto's server keeps the objects. Before it stands a doorkeeper that lets only those in who know the key, turns some
requests away if it is told to, and kills the driver when a certain object is put, before it is there or afterwards.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import flsim
from flsim.loop.lock import OWNER
from flsim.metrics.rows import read_rows, without_timing
from flsim.storage.bucket import Bucket
from flsim.storage.looking import run_folder
from tests.tiny import tiny_file, without_report

pytestmark = pytest.mark.ecosystem
moto = pytest.importorskip("moto.server", reason="moto[server] is not installed: no S3 server to test against")
ray_cluster = pytest.importorskip("ray.cluster_utils")

KEY, SECRET = "AKIAHOUSEGUEST", "hush-hush-hush"
SETTINGS = ("rounds=3", "fleet.devices=4", "engine.pack=1", "evaluation.every_rounds=2", "client.group_size=2")
ROOT = Path(__file__).resolve().parents[2]


class Door:
    """The WSGI app before the store."""

    def __init__(self) -> None:
        self.app = moto.DomainDispatcherApplication(moto.create_backend_app)
        self.turned_away = self.asked = self.port = 0
        self.every = 0
        """Turn every so many requests away; 0 turns none away."""
        self.at: tuple[str, bool] | None = None
        """Part of a name at whose put something is done, and whether after it; once."""
        self.then: Callable[[], None] = lambda: None
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request."""
        path, key = environ["PATH_INFO"], f"Credential={KEY}/"
        if key not in environ.get("HTTP_AUTHORIZATION", "") and "moto-api" not in path:
            return self._refused(environ, start_response, "403 Forbidden", "AccessDenied")
        with self._lock:
            self.asked += 1
            away = self.every and self.asked % self.every == 0
            self.turned_away += bool(away)
        if away:
            return self._refused(environ, start_response, "503 Slow Down", "SlowDown")
        met = self.at is not None and environ["REQUEST_METHOD"] in ("PUT", "POST") and self.at[0] in path
        after = self.at is not None and self.at[1]
        if met:
            self.at = None
        if met and not after:
            self.then()
            return self._refused(environ, start_response, "503 Slow Down", "SlowDown")
        answer = list(self.app(environ, start_response))
        if met:
            self.then()
        return answer

    @staticmethod
    def _refused(environ: dict[str, Any], start: Callable[..., Any], status: str, code: str) -> Iterable[bytes]:
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
        start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    """The door, with its server behind it on loopback, and one bucket."""
    boto3, serving = (
        pytest.importorskip(name, reason="comes with moto[server]") for name in ("boto3", "werkzeug.serving")
    )
    quiet = type("Quiet", (serving.WSGIRequestHandler,), {"log": lambda *said: None, "protocol_version": "HTTP/1.1"})
    door = Door()
    server = serving.make_server("127.0.0.1", 0, door, threaded=True, request_handler=quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    door.port = server.server_port
    who = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET, "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=f"http://127.0.0.1:{door.port}", **who).create_bucket(Bucket="bucket")
    yield door
    server.shutdown()
    thread.join()


def environment(cache: Path, *, knows: bool = True) -> dict[str, str]:
    """Of a process on a machine with this cache, which knows the key, or not."""
    more = {"XDG_CACHE_HOME": str(cache), "AWS_EC2_METADATA_DISABLED": "true", "PYTHONPATH": str(ROOT)}
    return more | ({"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET} if knows else {})


@pytest.fixture
def at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """This process is a machine of its own, which knows the key."""
    for name, value in environment(tmp_path / "mine").items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[Path]]]:
    """The address of two Ray nodes with a CPU each, and their caches; neither knows a key."""
    caches = [tmp_path_factory.mktemp(f"node{number}") for number in range(2)]
    first = {"num_cpus": 1, "env_vars": environment(caches[0], knows=False), "include_dashboard": False}
    for left in (2, 1, 0):  # Ray gives a node 30 s to start, which a machine with other work may need more than once
        try:
            cluster = ray_cluster.Cluster(initialize_head=True, head_node_args=first)
            cluster.add_node(num_cpus=1, env_vars=environment(caches[1], knows=False))
            break
        except Exception:
            if not left:
                raise
    yield cluster.address, caches
    cluster.shutdown()


@pytest.fixture(scope="module")
def local(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The rows of the run in a folder."""
    folder = tmp_path_factory.mktemp("local")
    with without_report():
        flsim.run(tiny_file(folder, tiny_checkpoint, *SETTINGS), [f"run_dir={folder / 'tiny'}"], progress=False)
    return without_timing(read_rows(folder / "tiny"))


def address(door: Door, name: str, *, secret: bool = False) -> str:
    who = f"{KEY}:{SECRET}@" if secret else ""
    return f"s3://{who}bucket/{name}/tiny?scheme=http&endpoint_override=127.0.0.1:{door.port}&region=us-east-1"


def started(cache: Path, call: list[str]) -> subprocess.Popen[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    everything = own | environment(cache)
    return subprocess.Popen(call, env=everything, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def command(cache: Path, *words: str) -> subprocess.Popen[str]:
    return started(cache, [sys.executable, "-m", "flsim", *words])


WITHOUT_REPORT = """
import sys
from types import SimpleNamespace
import flsim, flsim.report.finish
flsim.report.finish.finish_run = lambda folder, **more: SimpleNamespace(findings=())
config, resume, *settings = sys.argv[1:]
flsim.run(config or None, settings, resume=resume or None, progress=False)
"""


def driver(cache: Path, *settings: str, config: Path | str = "", resume: str = "") -> subprocess.Popen[str]:
    """A process that runs, and draws no figures, which take longer than so small a run."""
    call = [sys.executable, "-c", WITHOUT_REPORT, str(config), resume, *settings]
    return started(cache, call)


def same(one: pd.DataFrame, other: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(without_timing(one), other, check_exact=True)


@pytest.mark.usefixtures("at_home", "no_report")
def test_a_server_that_turns_requests_away_changes_no_row(
    door: Door, local: pd.DataFrame, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    door.every, before = 9, door.turned_away
    try:
        there = address(door, "flaky")
        run = flsim.run(tiny_file(tmp_path, tiny_checkpoint, *SETTINGS), [f"run_dir={there}"], progress=False)
    finally:
        door.every = 0
    assert door.turned_away > before + 5
    same(run.rows, local)


def test_two_nodes_that_share_nothing_give_the_rows_of_one_folder_and_keep_no_secret(
    door: Door, nodes: tuple[str, list[Path]], local: pd.DataFrame, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """The nodes know no key: it comes with the address, to their memory alone."""
    ray, caches = nodes
    there = address(door, "two", secret=True)
    engine = ["engine.kind=ray", "engine.workers=2", f"engine.address={ray}"]
    config = tiny_file(tmp_path, tiny_checkpoint, *SETTINGS)
    done = driver(tmp_path / "driver", f"run_dir={there}", *engine, config=config)
    said, _ = done.communicate(timeout=900)
    assert done.returncode == 0, said
    bucket = Bucket.at(there)
    objects = bucket.get_all(bucket.sizes())
    assert {name.partition("/")[0] for name in objects} >= {"devices", "rows", "checkpoints", "adapter", "run.log"}
    for cache in caches:
        states = list(cache.rglob("*.states"))
        assert states, f"no worker was at work in {cache}"
        assert not list(cache.rglob("rows")), "a node has what only the driver has"
    kept = [path.read_bytes() for root in (*caches, tmp_path) for path in root.rglob("*") if path.is_file()]
    assert not [data for data in (*objects.values(), *kept, said.encode()) if SECRET.encode() in data]
    assert OWNER not in objects
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path / "reader"))
        same(read_rows(run_folder(there)), local)


MOMENTS = [
    ("devices/round-00002", True),  # states of a round that was not committed
    ("rows/round-00002", False),
    ("checkpoints/round-00002", False),  # all but the commit
    ("checkpoints/round-00002", True),  # the commit, and nothing after it
    ("tiny/purchases/", True),  # a question that is paid
    ("tiny/config.yaml", True),  # nothing but that
]


@pytest.mark.parametrize(("name", "after"), MOMENTS)
@pytest.mark.parametrize("elsewhere", [False, True], ids=["same machine", "another machine"])
def test_a_driver_that_is_killed_goes_on_to_the_same_bits(
    door: Door, local: pd.DataFrame, tiny_checkpoint: Path, tmp_path: Path, name: str, after: bool, elsewhere: bool
) -> None:
    there = address(door, tmp_path.name)
    config = tiny_file(tmp_path, tiny_checkpoint, *SETTINGS)
    first = driver(tmp_path / "one", f"run_dir={there}", config=config)
    door.then = lambda: os.kill(first.pid, signal.SIGKILL)
    door.at = (name, after)
    said, _ = first.communicate(timeout=900)
    assert first.returncode == -signal.SIGKILL, said
    cache = tmp_path / ("two" if elsewhere else "one")
    again = driver(cache, resume=there)
    said, _ = again.communicate(timeout=900)
    assert again.returncode == 0, said
    with pytest.MonkeyPatch.context() as patch:
        for key, value in environment(tmp_path / "reader").items():
            patch.setenv(key, value)
        same(read_rows(run_folder(there)), local)


def test_a_driver_of_two_nodes_that_is_killed_goes_on_to_the_same_bits(
    door: Door, nodes: tuple[str, list[Path]], local: pd.DataFrame, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    ray, _ = nodes
    there = address(door, "killed", secret=True)
    engine = ["engine.kind=ray", "engine.workers=2", f"engine.address={ray}"]
    config = tiny_file(tmp_path, tiny_checkpoint, *SETTINGS)
    first = driver(tmp_path / "one", f"run_dir={there}", *engine, config=config)
    door.then = lambda: os.kill(first.pid, signal.SIGKILL)
    door.at = ("devices/round-00002", True)
    said, _ = first.communicate(timeout=900)
    assert first.returncode == -signal.SIGKILL, said
    again = driver(tmp_path / "two", *engine, resume=there)
    said, _ = again.communicate(timeout=900)
    assert again.returncode == 0, said
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path / "reader"))
        same(read_rows(run_folder(there)), local)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (lambda port: f"s3://nobody/x?scheme=http&endpoint_override=127.0.0.1:{port}", "there is no such bucket"),
        (
            lambda port: f"s3://A:B@bucket/x?scheme=http&endpoint_override=127.0.0.1:{port}",
            "it wants other credentials",
        ),
        (lambda port: "s3://bucket/x?scheme=http&endpoint_override=127.0.0.1:9", "the server does not answer"),
    ],
    ids=["bucket", "credentials", "server"],
)
def test_what_is_wrong_with_a_place_is_one_sentence_before_any_work(
    door: Door, tmp_path: Path, words: Callable[[int], str], said: str
) -> None:
    refused = command(tmp_path, "run", "demo", f"run_dir={words(door.port)}")
    text, _ = refused.communicate(timeout=120)
    assert refused.returncode == 2, text
    assert said in text
    assert "Traceback" not in text
    assert "A:B" not in text


def test_commands_take_addresses(door: Door, local: pd.DataFrame, tiny_checkpoint: Path, tmp_path: Path) -> None:
    there = address(door, "commands")
    config = tiny_file(tmp_path, tiny_checkpoint, *SETTINGS)
    for words in (
        ["run", str(config), f"run_dir={there}"],
        ["why", there, "round=2", "device=1"],
        ["why", there, "round=2", "--json"],
        ["diagnose", there],
        ["replay", there, "round=3", "device=1"],
        ["profile", "--run", there, "--picture", str(tmp_path / "time.png")],
        ["compare", there, "--out", str(tmp_path / "compared")],
        ["resume", there],
    ):
        done = command(tmp_path / "cache", *words)
        said, _ = done.communicate(timeout=900)
        assert done.returncode == 0, f"{words}: {said}"
        if words[-1] == "--json":
            assert json.loads(said)["round"] == 2
