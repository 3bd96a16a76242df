"""CUDA graphs: a piece of a card's work is captured once, and from then on launched by one call.

A step of decoding is some two thousand small operations at 24 layers with LoRA, and a processor may take longer to
launch them than a card to run them. A captured piece runs the same kernels on the same memory. So what goes in is
copied into tensors that stay where they are, and nothing within it looks at a number (`item`, `nonzero`) or depends on
one in Python (PyTorch, "CUDA semantics", "CUDA Graphs").
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import torch

T = TypeVar("T")

_WARM = 3  # calls, as in `torch.cuda.make_graphed_callables`


class Graphs(Protocol):
    """What captures pieces of work that belong together, such as a pass and its backward."""

    def warm_up(self, work: Callable[[], object]) -> None:
        """Let libraries do what they do at first calls, and must not do while work is captured."""
        ...

    def capture(self, work: Callable[[], T]) -> Callable[[], T]:
        """A function that does `work` anew at each call, and gives what it gave.

        Args:
            work: reads and writes tensors that stay where they are, and takes no others.
        """
        ...


class CudaGraphs:
    """Of a card. A launch fills the tensors that `work` gave while it was captured."""

    def __init__(self) -> None:
        self._pool: Any = torch.cuda.graph_pool_handle()

    def warm_up(self, work: Callable[[], object]) -> None:
        """See `Graphs`; on a stream of its own, as PyTorch asks for."""
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(_WARM):
                work()
        torch.cuda.current_stream().wait_stream(beside)

    def capture(self, work: Callable[[], T]) -> Callable[[], T]:
        """See `Graphs`."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            made = work()

        def launch() -> T:
            graph.replay()
            return made

        return launch


class NoGraphs:
    """Where there is no card, which is how tests read what a card would run: work is done as it is, in new tensors."""

    def warm_up(self, work: Callable[[], object]) -> None:
        """See `Graphs`; nothing has to be."""

    def capture(self, work: Callable[[], T]) -> Callable[[], T]:
        """See `Graphs`."""
        return work
