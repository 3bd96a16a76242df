"""Layers abreast: the same bits for any number of threads, and BLAS as it was before."""

import os
import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from flsim.aggregation import layers
from flsim.aggregation.layers import by_layer, threads_for
from flsim.aggregation.pairs import Matrix

NAMES = [f"layer{index}" for index in range(7)]


def blas_threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def decomposed(name: str) -> Matrix:
    rng = np.random.default_rng(NAMES.index(name))
    return np.linalg.svd(rng.normal(size=(200, 150)) @ rng.normal(size=(150, 150)))[1]


def test_the_number_of_threads_changes_no_bit() -> None:
    first, *others = (by_layer(decomposed, NAMES, threads=threads) for threads in (1, 2, 5))
    for other in others:
        assert list(other) == NAMES
        assert [found.tobytes() for found in other.values()] == [found.tobytes() for found in first.values()]


def test_several_work_at_a_time() -> None:
    """Two that wait for each other both come to an end."""
    meet = threading.Barrier(2, timeout=30)
    assert set(by_layer(lambda _: meet.wait(), NAMES[:2], threads=2).values()) == {0, 1}


def test_each_layer_has_one_thread_of_blas_and_then_all_is_as_before() -> None:
    before = blas_threads()
    assert by_layer(lambda _: blas_threads(), NAMES[:1], threads=2) == {NAMES[0]: {1}}
    assert by_layer(lambda _: blas_threads(), NAMES[:1], threads=None) == {NAMES[0]: before}
    assert blas_threads() == before


@pytest.mark.parametrize("threads", [None, 1, 2])
def test_what_a_layer_raises_comes_out(threads: int | None) -> None:
    with pytest.raises(KeyError, match="layer9"):
        by_layer(lambda name: {"layer0": 1}[name], ["layer0", "layer9"], threads=threads)


def test_threads_are_for_large_work_and_no_more_than_processes_and_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)), raising=False)
    large = layers._WORTH
    assert [threads_for(numbers, 3) for numbers in (0, large - 1, large)] == [None, None, 3]
    assert [threads_for(large, processes) for processes in (1, 4, 9)] == [1, 4, 4]
