"""Alignment: the product stays, the distance to the old factors shrinks to the least that a rotation allows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsim.aggregation.frame import aligned
from flsim.aggregation.low_rank import balanced, truncated
from flsim.aggregation.pairs import Matrix, Pair

SEEDS = st.integers(0, 999)


def draw(seed: int, rank: int = 4) -> Pair:
    rng = np.random.default_rng(seed)
    return Pair(rng.normal(size=(9, rank)), rng.normal(size=(rank, 7)))


def rotation(seed: int, rank: int = 4) -> Matrix:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(rank, rank)))[0]


def turned(pair: Pair, turn: Matrix) -> Pair:
    return Pair(pair.b @ turn, turn.T @ pair.a)


def distance(one: Pair, other: Pair, scale: float = 1.0) -> float:
    return float(np.sum((one.b - other.b) ** 2) / scale**2 + np.sum((one.a - other.a) ** 2))


@given(seed=SEEDS, rank=st.integers(1, 6), scale=st.sampled_from([1.0, 0.1, 4.0]))
def test_the_product_stays_and_no_rotation_lies_nearer(seed: int, rank: int, scale: float) -> None:
    pair, previous = draw(seed, rank), draw(seed + 1, rank)
    near = aligned(pair, previous, scale=scale)
    np.testing.assert_allclose(near.product(), pair.product(), rtol=0, atol=1e-13)
    least = distance(near, previous, scale)
    assert least <= distance(pair, previous, scale) * (1 + 1e-14)
    for other in range(5):
        assert least <= distance(turned(pair, rotation(other, rank)), previous, scale) * (1 + 1e-14)


@given(seed=SEEDS)
def test_a_mere_rotation_is_undone(seed: int) -> None:
    previous = draw(seed)
    back = aligned(turned(previous, rotation(seed)), previous)
    np.testing.assert_allclose(back.b, previous.b, rtol=0, atol=1e-12)
    np.testing.assert_allclose(back.a, previous.a, rtol=0, atol=1e-12)


def test_a_decomposition_of_a_slightly_moved_product_stays_near() -> None:
    """Fresh singular vectors lie far away from the factors they came from; aligned they are as near as the move."""
    previous = balanced(truncated(draw(0), 4))
    moved = turned(previous, rotation(1))
    step = 1e-3 * draw(2).b
    fresh = balanced(truncated(Pair(moved.b + step, moved.a), 4))
    start = turned(previous, rotation(3))
    assert distance(fresh, start) > 1
    assert distance(aligned(fresh, start), start) < 1e-4


def test_a_flipped_sign_by_hand() -> None:
    """`(-1)(-2)` beside `(1)(2)`: the rotation of one direction is its sign."""
    near = aligned(Pair(np.array([[-1.0]]), np.array([[-2.0]])), Pair(np.array([[1.0]]), np.array([[2.0]])))
    assert (near.b.tolist(), near.a.tolist()) == ([[1.0]], [[2.0]])


def test_zero_directions_do_no_harm() -> None:
    """From B = 0, where every adapter starts, and to a rank that is not filled."""
    pair = draw(0)
    start = Pair(np.zeros_like(pair.b), pair.a)
    np.testing.assert_allclose(aligned(pair, start).product(), pair.product(), atol=1e-13)
    assert not aligned(Pair(np.zeros_like(pair.b), np.zeros_like(pair.a)), pair).product().any()


def test_another_rank_is_refused() -> None:
    with pytest.raises(ValueError, match=r"of rank 4, the previous one \(9, 7\) of rank 3.*padded"):
        aligned(draw(0), draw(0, 3))
