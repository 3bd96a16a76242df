"""The frame: the product is kept, its factors are as near and as large as the old ones, nothing sleeps for good."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsim.aggregation.frame import framed
from flsim.aggregation.low_rank import truncated
from flsim.aggregation.pairs import Matrix, Pair

SEEDS = st.integers(0, 999)
SCALES = st.sampled_from([0.25, 1.0, 4.0])


def draw(seed: int, rank: int = 4, *, b: float = 1.0, a: float = 1.0) -> Pair:
    rng = np.random.default_rng(seed)
    return Pair(b * rng.normal(size=(9, rank)), a * rng.normal(size=(rank, 7)))


def rotation(seed: int, rank: int) -> Matrix:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(rank, rank)))[0]


def distance(one: Pair, other: Pair, scale: float) -> float:
    """Of the factors as a device has them."""
    return float(np.sum((one.b - other.b) ** 2) / scale**2 + np.sum((one.a - other.a) ** 2))


@given(seed=SEEDS, scale=SCALES, rank=st.integers(1, 5), product=st.integers(1, 5), size=st.sampled_from([1e-4, 1, 50]))
def test_the_product_stays_and_a_is_as_large_as_it_was(
    seed: int, scale: float, rank: int, product: int, size: float
) -> None:
    """Of any rank; where the product lacks directions, A is as large in those that it has, and larger by the others."""
    low, old = truncated(draw(seed, product, b=size), rank), draw(seed + 1, rank)
    new = framed(low, old, scale=scale)
    exact = (low.u * low.s) @ low.v
    assert np.linalg.norm(new.product() - exact) <= 1e-12 * np.linalg.norm(exact)
    if product >= rank:
        assert np.linalg.norm(new.a) == pytest.approx(np.linalg.norm(old.a))


@given(seed=SEEDS, scale=SCALES)
def test_no_rotation_brings_it_nearer(seed: int, scale: float) -> None:
    low, old = truncated(draw(seed), 4), draw(seed + 1)
    new = framed(low, old, scale=scale)
    least = distance(new, old, scale)
    for other in range(5):
        turn = rotation(other, 4)
        assert least <= distance(Pair(new.b @ turn, turn.T @ new.a), old, scale) * (1 + 1e-12)


@given(seed=SEEDS, scale=SCALES)
def test_a_product_that_hardly_moved_has_factors_that_hardly_moved(seed: int, scale: float) -> None:
    """From factors that are alike in all directions, where A B^T tells nothing of their ratio."""
    a, b = rotation(seed, 7)[:4], rotation(seed + 1, 9)[:, :4]
    old = Pair(0.3 * scale * b, 2.0 * a)
    step = draw(seed + 2, b=1e-6)
    low = truncated(Pair(np.concatenate([old.b, step.b], 1), np.concatenate([old.a, step.a])), 4)
    assert distance(framed(low, old, scale=scale), old, scale) < 1e-6


@given(seed=SEEDS, lacking=st.integers(1, 3))
def test_lacking_directions_have_no_b_and_an_a_that_a_gradient_of_b_can_use(seed: int, lacking: int) -> None:
    """In the frame of the product: B has the product's rank, A has all of the old one's, so G A^T reaches all of B."""
    low, old = truncated(draw(seed, 4 - lacking), 4), draw(seed + 1)
    new = framed(low, old, scale=1.0)
    assert np.linalg.matrix_rank(new.b, tol=1e-9) == 4 - lacking
    assert np.linalg.svd(new.a)[1].min() > 1e-3
    gradient = np.random.default_rng(seed).normal(size=(9, 7)) @ new.a.T  # of B, for a random one of the product
    assert np.linalg.matrix_rank(gradient, tol=1e-6) == 4


@given(seed=SEEDS)
def test_a_product_of_zero_leaves_the_old_a_and_no_b(seed: int) -> None:
    old = draw(seed)
    new = framed(truncated(Pair(np.zeros((9, 4)), old.a), 4), old, scale=2.0)
    assert not new.b.any()
    np.testing.assert_allclose(new.a, old.a, atol=1e-12)


def test_the_first_round_goes_on_from_b_of_zero() -> None:
    """As all adapters start: what is learned comes in at the old size of A, not at the square root of the product."""
    old = Pair(np.zeros((9, 4)), draw(0).a)
    new = framed(truncated(draw(1, b=1e-3), 4), old, scale=1.0)
    assert np.linalg.norm(new.a) == pytest.approx(np.linalg.norm(old.a))
    assert np.linalg.norm(new.b) < 0.02


def test_a_layer_narrower_than_the_rank() -> None:
    """Seven inputs, rank nine, a product of rank one: of the eight others A can hold seven at most."""
    old = draw(0, 9)
    new = framed(truncated(draw(1, 1), 9), old, scale=1.0)
    np.testing.assert_allclose(new.product(), draw(1, 1).product(), atol=1e-12)


def test_equal_calls_give_equal_bits() -> None:
    one, other = (framed(truncated(draw(0), 4), draw(1), scale=0.5) for _ in range(2))
    assert one.a.tobytes() == other.a.tobytes()
    assert one.b.tobytes() == other.b.tobytes()
