"""The layers of an adapter, worked on several at a time, with the same bits as one after the other."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

T = TypeVar("T")

_WORTH = 10_000_000  # numbers: about a tenth of a second


def by_layer(work: Callable[[str], T], layers: Iterable[str], *, threads: int | None) -> dict[str, T]:
    """What `work` finds for every layer, in their order.

    Each layer has one thread of BLAS to itself, so that the number of threads enters no bit. Of all that the work needs
    in between, memory holds as many layers as there are threads.

    Args:
        work: of a layer's name; NumPy's large products and decompositions let other threads go on meanwhile.
        layers: their names.
        threads: at most so many layers at a time; None goes one by one and leaves BLAS as it is.
    """
    names = list(layers)
    if threads is None:
        return {name: work(name) for name in names}
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
        return dict(zip(names, pool.map(work, names), strict=True))


def threads_for(numbers: int, processes: int) -> int | None:
    """How many layers to work on at a time; None where there is so little to do that threads would only delay it.

    Args:
        numbers: of all updates together.
        processes: that the run may use at a time, `engine.processes`; while the server aggregates, they wait.
    """
    if numbers < _WORTH:
        return None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(processes, cores)
