"""Truncation: the best there is (Eckart and Young), by three methods alike, with its energy, at any rank."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsim.aggregation.low_rank import METHODS, LowRank, balanced, cheapest, truncated
from flsim.aggregation.pairs import Matrix, Pair, layer_difference, weighted_sum

EXACT = ("dense", "qr")
SHAPES = st.tuples(st.integers(1, 24), st.integers(1, 24))


def draw(seed: int, shape: tuple[int, int], inner: int) -> Pair:
    """Factors with a falling spectrum."""
    rng = np.random.default_rng(seed)
    fall = 0.8 ** np.arange(inner)
    return Pair(rng.normal(size=(shape[0], inner)) * fall, rng.normal(size=(inner, shape[1])))


def cohort(seed: int, devices: int, shape: tuple[int, int], rank: int, drift: float) -> Pair:
    """The mean of devices that learned something in common, and `drift` of their own."""
    rng = np.random.default_rng(seed)
    b, a = rng.normal(size=(shape[0], rank)), rng.normal(size=(rank, shape[1]))
    own = [Pair(b + drift * rng.normal(size=b.shape), a + drift * rng.normal(size=a.shape)) for _ in range(devices)]
    return weighted_sum([(1 / devices, pair) for pair in own])


def product(low: LowRank) -> Matrix:
    return (low.u * low.s) @ low.v


def left_out(low: LowRank, pair: Pair) -> float:
    return float(np.linalg.norm(pair.product() - product(low)) ** 2)


@given(seed=st.integers(0, 999), shape=SHAPES, inner=st.integers(1, 30), rank=st.integers(1, 12))
@pytest.mark.parametrize("method", EXACT)
def test_it_is_the_best(method: str, seed: int, shape: tuple[int, int], inner: int, rank: int) -> None:
    """Against NumPy's decomposition of the dense product: the values, the product, what is kept and what is cut."""
    pair = draw(seed, shape, inner)
    low = truncated(pair, rank, method=method)
    u, s, v = np.linalg.svd(pair.product(), full_matrices=False)
    size = float(np.linalg.norm(pair.product()))
    assert (low.u.shape, low.s.shape, low.v.shape) == ((shape[0], rank), (rank,), (rank, shape[1]))
    np.testing.assert_allclose(low.s, np.pad(s, (0, rank))[:rank], rtol=0, atol=1e-13 * size)
    assert low.energy == pytest.approx(float(s @ s), rel=1e-12)
    assert low.cut == pytest.approx(float(s[rank:] @ s[rank:]), abs=1e-12 * size**2)
    assert np.linalg.norm(pair.product() - product(low)) ** 2 == pytest.approx(low.cut, abs=1e-12 * size**2)
    if rank >= s.size or s[rank] < 0.9 * s[rank - 1]:  # only then is the best unique
        np.testing.assert_allclose(product(low), (u[:, :rank] * s[:rank]) @ v[:rank], rtol=0, atol=1e-11 * size)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("inner", "rank"), [(20, 5), (90, 8), (3, 5), (40, 50)])
def test_triplets_are_orthonormal_sorted_and_signed(method: str, inner: int, rank: int) -> None:
    low = truncated(draw(1, (40, 31), inner), rank, method=method)
    found = np.count_nonzero(low.s)
    there = np.diag((np.arange(rank) < found).astype(float))  # missing directions are zero
    np.testing.assert_allclose(low.u.T @ low.u, there, rtol=0, atol=1e-12)
    np.testing.assert_allclose(low.v @ low.v.T, there, rtol=0, atol=1e-12)
    assert found == min(inner, rank, 31)
    assert (np.diff(low.s) <= 0).all()
    assert (low.v[np.arange(found), np.abs(low.v[:found]).argmax(axis=1)] > 0).all()


@pytest.mark.parametrize("shape", [(60, 45), (45, 60)])
def test_the_methods_agree(shape: tuple[int, int]) -> None:
    """Where the spectrum falls, down to the single direction and its sign."""
    pair = draw(2, shape, 70)
    first, *others = (truncated(pair, 6, method=method) for method in METHODS)
    for other in others:
        np.testing.assert_allclose(other.s, first.s, rtol=1e-6)
        np.testing.assert_allclose(other.u, first.u, rtol=0, atol=1e-3)  # the root of 1e-6 of what is cut
        np.testing.assert_allclose(other.v, first.v, rtol=0, atol=1e-3)
        assert other.energy == pytest.approx(first.energy, rel=1e-13, abs=5 * other.error)
        assert other.cut == pytest.approx(first.cut, rel=1e-6, abs=5 * other.error)
        assert left_out(other, pair) == pytest.approx(first.cut, rel=1e-6)


@pytest.mark.parametrize(("drift", "excess"), [(0.1, 1e-6), (1.0, 1e-6), (30.0, 0.05)])
def test_matrix_free_is_nearly_the_best(drift: float, excess: float) -> None:
    """Energy left out beyond the least possible, for devices that agree and for devices that do not at all."""
    pair = cohort(3, 40, (200, 150), 8, drift)
    best, found = (truncated(pair, 8, method=method) for method in ("dense", "matrix_free"))
    assert best.cut * (1 - 1e-9) <= left_out(found, pair) <= best.cut * (1 + excess)
    assert found.cut == pytest.approx(left_out(found, pair), abs=4 * found.error)
    assert found.energy - found.cut == pytest.approx(float(found.s @ found.s), rel=1e-9)
    assert 0 < found.error < 0.1 * found.cut
    assert best.error == 0


def test_a_warm_start_leaves_out_less() -> None:
    pair = cohort(4, 40, (200, 150), 8, 30.0)
    least = truncated(pair, 8, method="dense").cut
    cold = truncated(pair, 8, method="matrix_free")
    warm = truncated(pair, 8, method="matrix_free", start=cold.v)
    assert left_out(warm, pair) - least < 0.5 * (left_out(cold, pair) - least)
    missing = np.zeros((20, 150))  # as of a product of zero: begins at random
    np.testing.assert_array_equal(truncated(pair, 8, method="matrix_free", start=missing).s, cold.s)


def test_what_is_random_is_a_function_of_the_seed() -> None:
    pair = cohort(5, 40, (100, 90), 8, 30.0)
    found = [truncated(pair, 4, method="matrix_free", seed=seed) for seed in (0, 0, 1)]
    assert [low.cut == found[0].cut for low in found] == [True, True, False]
    assert [(low.s == found[0].s).all() for low in found] == [True, True, False]


@pytest.mark.parametrize("method", METHODS)
def test_a_sum_is_the_pair_of_its_concatenated_factors(method: str) -> None:
    """Also with weights below zero, and with one of zero, whose factors may be anything."""
    terms = [(0.5, draw(10, (40, 30), 6)), (0.0, draw(11, (40, 30), 3)), (-0.2, draw(12, (40, 30), 4))]
    one, other = truncated(terms, 3, method=method), truncated(weighted_sum(terms), 3, method=method)
    for name in ("u", "s", "v", "energy", "cut"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_a_product_of_lower_rank_comes_back_whole(method: str) -> None:
    """Ten directions that span only three: seven of the ten kept are zero, and nothing is cut."""
    rng = np.random.default_rng(6)
    pair = Pair(rng.normal(size=(30, 3)) @ rng.normal(size=(3, 10)), rng.normal(size=(10, 20)))
    low = truncated(pair, 10, method=method)
    assert np.count_nonzero(low.s) == 3
    np.testing.assert_allclose(product(low), pair.product(), rtol=0, atol=1e-12)
    assert 0 <= low.cut <= 1e-13 * low.energy


@pytest.mark.parametrize("method", METHODS)
def test_small_singular_values_are_not_lost(method: str) -> None:
    """1e-9 of the largest: a Gram alone, which squares them, would not see it."""
    rng = np.random.default_rng(7)
    b, a = np.linalg.qr(rng.normal(size=(30, 4)))[0], np.linalg.qr(rng.normal(size=(20, 4)))[0].T
    low = truncated(Pair(b * [1, 1e-3, 1e-6, 1e-9], a), 4, method=method)
    np.testing.assert_allclose(low.s, [1, 1e-3, 1e-6, 1e-9], rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_stays_nothing(method: str) -> None:
    """A product of zero, and one whose terms cancel up to rounding."""
    zero = Pair(np.zeros((9, 4)), np.ones((4, 7)))
    low = truncated(zero, 3, method=method)
    assert not any(part.any() for part in (low.u, low.s, low.v))
    assert (low.energy, low.cut) == (0, 0)
    pair = draw(8, (9, 7), 4)
    turned = np.linalg.qr(np.random.default_rng(8).normal(size=(4, 4)))[0]
    same = Pair(pair.b @ turned, turned.T @ pair.a)
    assert not truncated(layer_difference(same, pair), 3, method=method).s.any()


def test_numbers_by_hand() -> None:
    """diag(3, -2, 1) at rank 2: u s v keeps 3 and -2 and cuts 1 of 14."""
    low = truncated(Pair(np.diag([3.0, -2.0, 1.0]), np.eye(3)), 2)
    np.testing.assert_allclose(product(low), np.diag([3.0, -2.0, 0.0]), atol=1e-14)
    np.testing.assert_allclose(low.s, [3, 2])
    np.testing.assert_allclose(low.v, np.eye(3)[:2], atol=1e-14)
    assert [low.energy, low.cut] == pytest.approx([14, 1])


@given(seed=st.integers(0, 99), scale=st.sampled_from([1.0, 0.5, 3.0]))
def test_balanced_factors_are_equally_large(seed: int, scale: float) -> None:
    """After the scale is divided out, and direction by direction."""
    low = truncated(draw(seed, (11, 8), 20), 4)
    pair = balanced(low, scale=scale)
    np.testing.assert_allclose(pair.product(), product(low), rtol=0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(pair.b / scale, axis=0), np.linalg.norm(pair.a, axis=1), rtol=1e-12)


@pytest.mark.parametrize(
    ("m", "n", "inner", "method"),
    [
        (128, 896, 1600, "dense"),  # the keys' and values' layers of Qwen2.5-0.5B, 100 devices of rank 16
        (896, 896, 1600, "matrix_free"),
        (4864, 896, 1600, "matrix_free"),
        (4864, 896, 16, "qr"),  # a single device is found exactly
        (896, 896, 32, "qr"),
        (64, 64, 16, "qr"),
        (64, 64, 800, "dense"),
        (256, 4096, 100_000, "dense"),  # whatever the number of devices, a small side is decomposed exactly
        (600, 600, 1600, "matrix_free"),
        (600, 600, 100_000, "matrix_free"),
    ],
)
def test_auto_takes_the_cheapest(m: int, n: int, inner: int, method: str) -> None:
    assert cheapest(m, n, inner, 16) == method
    assert cheapest(n, m, inner, 16) == method


def test_what_cannot_be_is_refused() -> None:
    pair = draw(0, (4, 5), 3)
    for rank, method, start, message in (
        (0, "auto", None, "rank=0; an approximation has at least 1 direction"),
        (2, "svd", None, "method='svd' is unknown; choose one of auto, dense, qr, matrix_free"),
        (2, "auto", np.ones((2, 4)), "start has shape (2, 4); expected (any, 5)"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            truncated(pair, rank, method=method, start=start)
