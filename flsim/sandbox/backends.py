"""Three ways to shut a process in: each starts a defendant in a cell of its own, with a line to it, and ends it.

    landlock     own: a fork of a warm Python that gives up its rights by Landlock and seccomp (`confine`); no package
    sandlock     the package of that name: Landlock, seccomp and a supervisor of system calls
    bubblewrap   the program `bwrap`: namespaces of files, network, processes and users

Which of them holds on this host is not assumed but tried: `flsim.sandbox.probes`.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from glob import glob
from importlib import resources
from typing import Any, Protocol

from flsim.sandbox import confine, zygote

# in this order: each needs only those before it
_PROGRAM = ("wire", "confine", "defendant", "zygote")
_BASE_PYTHON = os.path.realpath(sys.executable)
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "LANG": "C.UTF-8", "PATH": "/usr/bin:/bin"}  # no key or token of the worker's
_LEAVING_S = 1.0  # between closing its line and being gone


class Cell(Protocol):
    """A process that is shut in."""

    reads: int
    """Descriptor on which its answers are read."""
    writes: int
    """Descriptor on which it is asked."""

    def end(self, *, left: bool) -> int:
        """End it and all it started.

        Args:
            left: its line is closed, so it has ended or is about to; wait for that, to learn how.

        Returns:
            The signal that ended it: 9 if that was this call, 0 if it had left by itself.
        """


class Sandbox(Protocol):
    """Starts cells."""

    def start(self, memory_mb: int) -> Cell:
        """A cell with a defendant in it, not yet given its code."""

    def close(self) -> None:
        """End what was kept warm."""


class LandlockSandbox:
    """Forks of a zygote that confine themselves."""

    def __init__(self) -> None:
        """Start the zygote, which holds nothing but its end of a socket."""
        self._control, theirs = socket.socketpair()
        self._zygote = subprocess.Popen(
            _command(f"zygote.main({theirs.fileno()})"),
            pass_fds=[theirs.fileno()],
            env=_ENVIRONMENT,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        theirs.close()

    def start(self, memory_mb: int) -> Cell:
        """Fork."""
        ours, theirs = socket.socketpair()
        socket.send_fds(self._control, [zygote.FORK], [theirs.fileno()])
        theirs.close()
        return _Fork(self._control, ours)

    def close(self) -> None:
        """Hang up, upon which the zygote leaves."""
        self._control.close()
        self._zygote.wait()


class _Fork:
    def __init__(self, control: socket.socket, line: socket.socket) -> None:
        self._control, self._line = control, line
        self.reads = self.writes = line.fileno()

    def end(self, *, left: bool) -> int:
        self._control.sendall(zygote.END)
        how = self._control.recv(1)
        self._line.close()
        if not how:
            raise RuntimeError("the zygote of the sandbox is gone")
        return how[0]


class SandlockSandbox:
    """A new Python per cell, under the supervisor of the package sandlock."""

    def __init__(self) -> None:
        """Load the package, which `flsim-continual[tasks]` brings."""
        import sandlock

        self._sandlock: Any = sandlock

    def start(self, memory_mb: int) -> Cell:
        """Start Python; it reads the standard library and writes nowhere."""
        sandbox = self._sandlock.Sandbox(
            fs_readable=[path for path in ("/dev/urandom", *_libraries()) if os.path.exists(path)],
            fs_denied=_packages(),
            fs_writable=["/dev/null"],
            max_memory=f"{memory_mb}M",
            max_processes=1,
            clean_env=True,
            env=_ENVIRONMENT,
            cwd=sysconfig.get_paths()["stdlib"],
            no_coredump=True,
        )
        piped = self._sandlock.StdioMode.PIPED
        return _Sandlocked(sandbox.popen(_command("defendant.main(0, 1, compute_only=False)"), piped, piped))

    def close(self) -> None:
        """Nothing is kept warm."""


class _Sandlocked:
    def __init__(self, process: Any) -> None:
        self._process = process
        self.reads, self.writes = process.stdout.fileno(), process.stdin.fileno()

    def end(self, *, left: bool) -> int:
        if not left:
            self._process.kill()
        result = self._process.wait(timeout=_LEAVING_S)  # kills what is still there by then
        for stream in (self._process.stdin, self._process.stdout):
            stream.close()
        killed = result.reason is not None and result.reason.name in ("KILLED", "TIMEOUT")
        return int(signal.SIGKILL) if killed else max(0, result.signal)


class BubblewrapSandbox:
    """A new Python per cell, in namespaces of its own made by `bwrap`."""

    def __init__(self) -> None:
        """Find the program."""
        found = shutil.which("bwrap")
        if found is None:
            raise FileNotFoundError("there is no program bwrap on the PATH; install the package bubblewrap")
        self._bwrap = found

    def start(self, memory_mb: int) -> Cell:
        """Start Python; of the files only the libraries exist, and none can be written."""
        wrapped = f"{self._bwrap} --unshare-all --die-with-parent --new-session --clearenv --cap-drop ALL".split()
        for path in _libraries():
            wrapped += ["--ro-bind-try", path, path]
        for path in _packages():
            wrapped += ["--tmpfs", path, "--remount-ro", path]
        for name, value in _ENVIRONMENT.items():
            wrapped += ["--setenv", name, value]
        wrapped += ["--dev", "/dev", "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/"]
        # its own namespaces do not count processes of root; the filter of system calls does, where the kernel has it
        command = [*wrapped, *_command("defendant.main(0, 1, compute_only=True)")]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        return _Wrapped(process)

    def close(self) -> None:
        """Nothing is kept warm."""


class _Wrapped:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin
        assert process.stdout
        self._process, self._pipes = process, (process.stdin, process.stdout)
        self.reads, self.writes = process.stdout.fileno(), process.stdin.fileno()

    def end(self, *, left: bool) -> int:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_LEAVING_S if left else 0)
        self._process.kill()
        code = self._process.wait()
        for pipe in self._pipes:
            pipe.close()
        return -code if code < 0 else max(0, code - 128)


def _command(call: str) -> list[str]:
    """Python on the modules of `_PROGRAM`, whose text travels with the command: no file of ours need be readable."""
    sources = {f"flsim.sandbox.{name}": _source(name) for name in _PROGRAM}
    lines = [
        "import sys, types",
        "package = sys.modules['flsim.sandbox'] = types.ModuleType('flsim.sandbox')",
        f"for name, source in {sources!r}.items():",
        "    module = sys.modules[name] = types.ModuleType(name)",
        "    exec(compile(source, name, 'exec'), vars(module))",
        "    setattr(package, name.rpartition('.')[2], module)",
        f"package.{call}",
    ]
    return [_BASE_PYTHON, "-s", "-S", "-P", "-c", "\n".join(lines)]


def _source(name: str) -> str:
    return resources.files("flsim.sandbox").joinpath(f"{name}.py").read_text()


def _libraries() -> list[str]:
    """What a new Python must read to start: itself, its library, shared libraries. Folders with all in them."""
    own = sysconfig.get_paths()
    shared = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", os.path.join(sys.base_prefix, "lib")]
    rest = ["/etc/ld.so.cache", "/usr/share/zoneinfo"]
    return list(dict.fromkeys([_BASE_PYTHON, own["stdlib"], own["platstdlib"], *shared, *rest]))


def _packages() -> list[str]:
    """Folders of installed packages within those: some packages are the data sets that code is tested on."""
    places = [*_libraries(), *(found for folder in _libraries() for found in glob(f"{folder}/python*"))]
    names = confine.PACKAGE_FOLDERS
    return sorted({os.path.realpath(found) for place in places for name in names for found in glob(f"{place}/{name}")})


SANDBOXES: dict[str, Callable[[], Sandbox]] = {
    "landlock": LandlockSandbox,
    "sandlock": SandlockSandbox,
    "bubblewrap": BubblewrapSandbox,
}
"""The ways, in the order in which they are tried: the fastest first."""

ENDED_BY_LIMIT = {int(signal.SIGXCPU), int(signal.SIGKILL)}
"""Signals by which the kernel ends a process that used up its processor seconds."""
