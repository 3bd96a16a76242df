"""A process kept warm beside the worker, which may hang or die: it is ended after a set time and started anew.

Its main thread does the work, so libraries that need signals find them whichever thread of the worker asks. It inherits
no variable of the worker's environment but a few harmless ones: no key, no token.
"""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
import weakref
from typing import Any

from flsim.sandbox.wire import ClosedError, GarbledError, SilentError, receive, send

_START_S = 120.0  # a first import on a busy machine
_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "TMPDIR", "SYSTEMROOT")


class VerifierError(RuntimeError):
    """A verifier cannot work here; the message says why and gives the mend. Never taken for a wrong answer."""


class HelperEndedError(Exception):
    """The helper was ended over one request: `late` if it took too long, otherwise it died."""

    def __init__(self, *, late: bool) -> None:
        """Say how."""
        super().__init__("took too long" if late else "died")
        self.late = late


class Helper:
    """One such process; any thread may ask, one at a time."""

    def __init__(self, module: str, *arguments: str) -> None:
        """Name the module that the process runs, which calls `flsim.sandbox.serving.serve`; it starts when asked."""
        self._command = [sys.executable, "-s", "-P", "-m", module, *arguments]
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._end: weakref.finalize[Any, Any] | None = None

    def ask(self, request: Any, wall_s: float, cpu_s: float | None = None) -> Any:
        """The reply to a request.

        Args:
            request: JSON.
            wall_s: seconds on the clock, after which the process is ended.
            cpu_s: seconds of its own processor time, after which it ends itself; None: as many as on the clock.

        Raises:
            HelperEndedError: this request ended the process; the next one starts another.
            VerifierError: the process does not start.
        """
        with self._lock:
            if self._process is None:
                self._start()
            assert self._process
            assert self._process.stdin
            assert self._process.stdout
            nonce = secrets.token_hex(16)
            try:
                send(
                    self._process.stdin.fileno(),
                    {"nonce": nonce, "cpu_s": wall_s if cpu_s is None else cpu_s, "request": request},
                )
                reply = receive(self._process.stdout.fileno(), time.monotonic() + wall_s)
            except SilentError:
                self._stop()
                raise HelperEndedError(late=True) from None
            except (ClosedError, GarbledError):
                self._stop()
                raise HelperEndedError(late=False) from None
            except BaseException:  # an interrupt: the reply would meet the next request
                self._stop()
                raise
            if not secrets.compare_digest(str(reply.get("nonce")), nonce):
                self._stop()
                raise HelperEndedError(late=False)
            return reply["reply"]

    def close(self) -> None:
        """End the process; also happens when this object is forgotten and when the worker leaves."""
        with self._lock:
            self._stop()

    @property
    def pid(self) -> int | None:
        """Of the process; None if none runs."""
        return None if self._process is None else self._process.pid

    def _start(self) -> None:
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        environment |= {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path), "PYTHONHASHSEED": "0"}
        environment |= {"OMP_NUM_THREADS": "1", "LANG": "C.UTF-8"}
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
        )
        self._end = weakref.finalize(self, _end, self._process)
        assert self._process.stdout
        try:
            said = receive(self._process.stdout.fileno(), time.monotonic() + _START_S)
        except (SilentError, ClosedError, GarbledError) as error:
            said = {"failed": str(error)}
        if "failed" in said:
            self._stop()
            raise VerifierError(f"the process `{' '.join(self._command[3:])}` does not start: {said['failed']}")

    def _stop(self) -> None:
        if self._end is not None:
            self._end()
        self._process = self._end = None


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started, which share its group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
