"""A warm Python that forks one defendant per trial, and ends it.

It never sees a test or a solution (the defendant reads its own from its line), so that a fork inherits nothing worth
finding. The judge starts it and sends one byte per wish; when the judge is gone it ends what runs and goes too.
"""

import ctypes
import os
import signal
import socket

from flsim.sandbox import confine, defendant

FORK, END = b"f", b"e"


def main(control_fd: int) -> None:
    """Serve a judge: `FORK` with a descriptor starts a defendant on it, `END` ends it and answers by which signal."""
    control = socket.socket(fileno=control_fd)
    defendant.warm_up()
    rules = confine.file_rules()
    libc = ctypes.CDLL(None)
    child = 0
    while True:
        wish, lines, _, _ = socket.recv_fds(control, 1, 1)
        if wish == FORK:
            child = os.fork()
            if child == 0:
                _become_defendant(libc, lines[0], rules)
            os.close(lines[0])
        elif child:
            os.kill(child, signal.SIGKILL)  # changes nothing about how a process ended that has ended already
            _, status = os.waitpid(child, 0)
            child = 0
            if wish == END:
                control.sendall(bytes([os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0]))
        if not wish:
            return


def _become_defendant(libc: ctypes.CDLL, line: int, rules: int | None) -> None:
    try:
        libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG: dies with the zygote
        defendant.main(line, line, compute_only=True, rules=rules)
    finally:
        os._exit(1)
