"""Does a sandbox hold on this host? Each probe tries what code under test must not be able to do.

A sandbox that fails one of them is not used. The probes are our own code, so what they report is true.
"""

import os
import socket
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from flsim.sandbox.backends import Sandbox
from flsim.sandbox.remote import EndedError, Line, deadline_in

HELD = "held"
_WALL_S = 10.0  # for a probe that answers
_SHORT_S = 0.3  # for one that must be ended


@dataclass(frozen=True)
class _Probe:
    """One attempt: `attempt(where)` returns `held`, or what it could do."""

    name: str
    code: str


_ATTEMPTS = (
    _Probe(
        "compute",
        """
def attempt(secret, folder, port, judge):
    import json, math, fractions, datetime
    datetime.datetime.strptime("2026-01-02", "%Y-%m-%d")
    return "held" if json.dumps(sorted({3, 1, 2})) == "[1, 2, 3]" else "wrong"
""",
    ),
    _Probe(
        "network",
        """
def attempt(secret, folder, port, judge):
    import socket
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        try:
            line = socket.socket(socket.AF_INET, kind)
            line.settimeout(1)
            line.connect(("127.0.0.1", port))
            line.send(b"x")
        except OSError:
            continue
        if kind == socket.SOCK_STREAM:
            return "connected to another process"
    return "held"
""",
    ),
    _Probe(
        "files read",
        """
def attempt(secret, folder, port, judge):
    for path in (secret, "/etc/passwd", f"/proc/{judge}/environ", f"/proc/{judge}/mem"):
        try:
            open(path, "rb").read(1)
        except OSError:
            continue
        return f"read {path}"
    import os, sysconfig
    for folder in (sysconfig.get_path("purelib"), "/usr/lib/python3/dist-packages"):
        for path in (f"{folder}/README.txt", f"{folder}/pip/__init__.py", f"{folder}/apt/__init__.py"):
            try:
                open(path, "rb").read(1)
            except OSError:
                continue
            return f"read {path}, which is an installed package"
    return "held"
""",
    ),
    _Probe(
        "files written",
        """
def attempt(secret, folder, port, judge):
    import os
    for path in (f"{folder}/evil", "/tmp/flsim-probe", "/dev/shm/flsim-probe", "flsim-probe"):
        try:
            with open(path, "w") as file:
                file.write("x")
        except OSError:
            continue
        return f"wrote {os.path.abspath(path)}"
    try:
        os.remove(secret)
    except OSError:
        return "held"
    return "deleted a file"
""",
    ),
    _Probe(
        "processes",
        """
def attempt(secret, folder, port, judge):
    import os, time
    started = 0
    for _ in range(32):
        try:
            if os.fork() == 0:
                time.sleep(60)
                os._exit(0)
        except OSError:
            continue
        started += 1
    return "held" if started <= 4 else f"started {started} processes"
""",
    ),
    _Probe(
        "signals",
        """
def attempt(secret, folder, port, judge):
    import os
    for number in (judge, judge - 1, judge + 1):
        try:
            os.kill(number, 0)
        except OSError:
            continue
        return "may signal the judge"
    return "held"
""",
    ),
    _Probe(
        "memory",
        """
def attempt(secret, folder, port, judge):
    try:
        block = bytearray(4 << 30)
    except MemoryError:
        return "held"
    return "took 4 GiB"
""",
    ),
)
_ENDLESS = (
    _Probe("time, computing", "def attempt(*_):\n    while True: pass"),
    _Probe("time, asleep", "def attempt(*_):\n    import time\n    time.sleep(60)"),
)


def failures(sandbox: Sandbox) -> list[str]:
    """Which probes a sandbox fails, and how; empty: it holds."""
    found = []
    with tempfile.TemporaryDirectory(prefix="flsim-probe-") as folder, socket.socket() as listener:
        os.chmod(folder, 0o777)
        secret = Path(folder) / "secret"
        secret.write_text("secret")
        secret.chmod(0o666)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        where = (str(secret), folder, listener.getsockname()[1], os.getpid())
        for probe in _ATTEMPTS:
            said = _attempted(sandbox, probe, where, _WALL_S)
            if said != HELD:
                found.append(f"{probe.name}: {said}")
        if not secret.exists() or len(os.listdir(folder)) != 1:
            found.append("files written: a folder outside was changed")
    for probe in _ENDLESS:
        before = time.monotonic()
        _attempted(sandbox, probe, where, _SHORT_S)
        if time.monotonic() - before > 20 * _SHORT_S:
            found.append(f"{probe.name}: ended after {time.monotonic() - before:.1f} s instead of {_SHORT_S} s")
    return found


def _attempted(sandbox: Sandbox, probe: _Probe, where: tuple[str, str, int, int], wall_s: float) -> str:
    cell = sandbox.start(512)
    line = Line(cell, deadline_in(wall_s), 1 << 16)
    try:
        line.load(probe.code, cpu_s=5, memory_mb=512)
        return str(line.subject("attempt")(*where))
    except EndedError as error:
        # a process that is ended for trying has not got through either, but computing must work
        return HELD if error.left and probe.name != "compute" else str(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        cell.end(left=line.broken is not None and line.broken.left)
