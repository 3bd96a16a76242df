"""The child's side of a helper: answers requests one by one, until the parent is gone.

Ends itself when a request uses far more processor time than it may, so that a hang cannot outlive a parent that was
killed and cannot end it any more.
"""

import math
import os
import resource
from collections.abc import Callable
from typing import Any

from flsim.sandbox.wire import ClosedError, receive, send


def serve(begin: Callable[[], Callable[[Any], Any]]) -> None:
    """Begin, say so, then answer.

    Args:
        begin: prepares and returns what answers a request; an exception that it raises is told to the parent.
    """
    requests, replies = os.dup(0), os.dup(1)
    silence = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):  # what a library prints must not get among the replies
        os.dup2(silence, standard)
    try:
        answer = begin()
    except Exception as error:
        send(replies, {"failed": f"{type(error).__name__}: {error}"})
        return
    send(replies, {"ready": True})
    while True:
        try:
            request = receive(requests)
        except ClosedError:
            return
        _allow(request["cpu_s"])
        send(replies, {"nonce": request["nonce"], "reply": answer(request["request"])})


def _allow(seconds: float) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = math.ceil(used.ru_utime + used.ru_stime + seconds) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
