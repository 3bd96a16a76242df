"""A card's graphs, pretended on a processor: what is captured are the operations, and a launch does them again.

As on a card, a launch runs no Python of the work, reads the tensors that were there when it was captured, and writes
into those that it then made; and what a card refuses while it captures is refused: to look at a number.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

LOOKS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal")
"""Operations whose result, or its size, a processor has to wait for."""


class PretendedGraph:
    """Stands for `torch.cuda.CUDAGraph`."""

    def __init__(self) -> None:
        self.done: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Any]]] = []

    @torch.no_grad()
    def replay(self) -> None:
        """Do all of it again, into the same tensors."""
        for operation, args, kwargs, made in self.done:
            found = tree_flatten(operation(*args, **kwargs))[0]
            for old, new in zip(made, found, strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class _Recorder(TorchDispatchMode):
    def __init__(self, graph: PretendedGraph) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._graph = graph

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().partition("::")[2].partition(".")[0]
        assert name not in LOOKS, f"{name} cannot be captured"
        made = func(*args, **(kwargs or {}))
        self._graph.done.append((func, args, kwargs or {}, tree_flatten(made)[0]))
        return made


class _Stream:
    def wait_stream(self, other: object) -> None:
        pass


def pretend(monkeypatch: pytest.MonkeyPatch) -> list[PretendedGraph]:
    """Let `torch.cuda` be a card on which work can be captured; the graphs are listed as they are made."""
    graphs: list[PretendedGraph] = []

    def made() -> PretendedGraph:
        graphs.append(PretendedGraph())
        return graphs[-1]

    @contextmanager
    def graph(of: PretendedGraph, pool: object) -> Iterator[None]:
        assert pool == "a pool"
        with _Recorder(of):
            yield

    @contextmanager
    def stream(_: object) -> Iterator[None]:
        yield

    for name, stands in {
        "CUDAGraph": made,
        "graph": graph,
        "Stream": _Stream,
        "stream": stream,
        "current_stream": _Stream,
        "graph_pool_handle": lambda: "a pool",
    }.items():
        monkeypatch.setattr(torch.cuda, name, stands)
    return graphs
