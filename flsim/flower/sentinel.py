"""A process beside a driver that has started Ray: it outlives the driver, and says what the driver could not.

Ray ends a driver whose raylet died, wherever that is in its Python, with status 1 and without a word; a driver may also
be killed from outside. Ray's agents and workers may stay then. The sentinel reads lines on its standard input: the
processes that are Ray's, and at last `END` from a driver that ended by itself. Where the lines stop without it, the
driver is gone.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from flsim.files import left_in

_END = "END"
_GONE_S = 5.0  # how long a killed process may take to die


class Sentinel:
    """The driver's end."""

    def __init__(self, run_dir: Path) -> None:
        """Start the process; it hears no Ctrl-C, and writes to this process's standard error."""
        command = [sys.executable, "-m", "flsim.flower.sentinel", str(run_dir)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, text=True)

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def know(self, keepers: Mapping[str, psutil.Process], family: Sequence[psutil.Process]) -> None:
        """Say which processes are Ray's; the keepers, by name, are those whose death ends the driver."""
        of_keepers = {name: _identity(process) for name, process in keepers.items()}
        self._send(json.dumps([of_keepers, [_identity(process) for process in family]]))

    def dismiss(self) -> None:
        """The driver ends by itself; wait until the sentinel is gone."""
        self._send(_END)
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_GONE_S)

    def _send(self, line: str) -> None:
        if self._process.stdin is not None:
            with suppress(OSError):  # somebody killed it
                self._process.stdin.write(f"{line}\n")
                self._process.stdin.flush()


def lives(process: psutil.Process) -> bool:
    """Whether a process runs; one that only waits for its parent to notice its end does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def end_all(processes: Iterable[psutil.Process]) -> None:
    """Kill processes, and wait until they are gone."""
    left = [process for process in processes if lives(process)]
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=_GONE_S)


def watch(lines: Iterable[str]) -> str | None:
    """Read what a driver says until it ends, and end what is left of its Ray.

    Returns:
        Why it ended; None if it did so by itself.
    """
    keepers, family = dict[str, tuple[int, float]](), list[tuple[int, float]]()
    for line in lines:
        if line.strip() == _END:
            return None
        keepers, family = json.loads(line)
    dead = [f"{name} (process {pid})" for name, (pid, created) in keepers.items() if not _found(pid, created)]
    end_all(process for one in family for process in _found(*one))
    both = f" and Ray's {dead[0]} both died: one of them" if dead else " died: it"  # who was first, nobody saw
    return f"the run's process{both} was ended by kill -9, by the system for want of memory, or by a crash"


def _identity(process: psutil.Process) -> tuple[int, float]:
    """Its number, and when it was created: another process may get the number later."""
    return process.pid, process.create_time()


def _found(pid: int, created: float) -> list[psutil.Process]:
    """That process, if it still lives."""
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        return [process] if process.create_time() == created and lives(process) else []
    return []


def main(run_dir: Path) -> None:
    """The process."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    why = watch(sys.stdin)
    if why is not None:
        with suppress(OSError):
            print(f"\nerror: {why}\n{left_in(run_dir)}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
