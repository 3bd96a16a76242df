"""A real deployment on loopback: a SuperLink and SuperNodes as processes that are ended whatever happens.

Nothing of it leaves the machine, and Flower's own folder is one of the test's.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
_BIN = Path(sys.executable).parent
_PATIENCE = """
import flwr.common.constant
flwr.common.constant.HEARTBEAT_DEFAULT_INTERVAL = {seconds}
"""
"""Flower gives a ClientApp up that takes longer to start, which three at once may where other tests run."""


def free_port() -> int:
    """A port that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Deployment:
    """What runs, and how to end it."""

    folder: Path
    environment: Mapping[str, str]
    link: int = field(default_factory=free_port)
    """The SuperLink's port."""
    running: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def start(self, name: str, *command: str) -> None:
        """Start a program of Flower's; what it says goes into NAME.log."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [str(_BIN / command[0]), *command[1:]],
                stdout=log,
                stderr=log,
                env=self.environment,
                cwd=self.folder,
                start_new_session=True,
            )

    def start_node(self, device: int) -> None:
        """A SuperNode that is a device, with a folder for its states."""
        states = self.folder / "states" / f"node-{device}"
        self.start(
            f"node-{device}",
            *("flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{self.link}", "--port", str(free_port())),
            *("--node-config", f'partition-id={device} state-dir="{states}"'),
        )

    def kill(self, name: str) -> None:
        """`kill -9` of a program and of all that it has started."""
        process = self.running.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def flwr(self, *arguments: str, timeout: float) -> str:
        """What `flwr` prints."""
        done = subprocess.run(
            [str(_BIN / "flwr"), *arguments],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        return done.stdout + done.stderr

    def said(self) -> str:
        """The ends of all logs, for a test that fails."""
        return "\n".join(f"== {log.name}\n{log.read_text()[-3000:]}" for log in sorted(self.folder.glob("*.log")))


@contextmanager
def deployment(folder: Path, *, patience_s: int = 120) -> Iterator[Deployment]:
    """An environment for Flower's programs, and at the end none of them.

    Args:
        folder: for all that they write.
        patience_s: Flower's heartbeat.
    """
    home, patched = folder / "flwr", folder / "patched"
    home.mkdir(parents=True)
    patched.mkdir()
    (patched / "sitecustomize.py").write_text(_PATIENCE.format(seconds=patience_s))
    environment = {
        **os.environ,
        "PATH": f"{_BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{patched}{os.pathsep}{ROOT}",
        "FLWR_HOME": str(home),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    one = Deployment(folder, environment)
    mine = ["[superlink.mine]", f'address = "127.0.0.1:{one.link}"', "insecure = true"]
    lines = ["[superlink]", 'default = "mine"', *mine]
    (home / "config.toml").write_text("\n".join([*lines, ""]))
    try:
        yield one
    finally:
        for name in list(one.running):
            one.kill(name)


def wait_until(there: Callable[[], bool], seconds: float, what: Callable[[], str]) -> None:
    """Wait for something, or fail with what was said."""
    deadline = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < deadline, what()
        time.sleep(0.5)


def answers(port: int) -> bool:
    """Whether somebody listens."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
