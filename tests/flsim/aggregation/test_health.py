"""The read-outs of a cohort, against dense matrices; what equal, idle and merely turned devices show."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsim.aggregation.health import health, operations
from flsim.aggregation.pairs import Matrix, Pair, Pairs
from flsim.loop.health import MOST_OPERATIONS

SHAPES = {"q": (9, 7), "down": (4, 12)}
RANKS = st.lists(st.integers(1, 6), min_size=2, max_size=7)
SEEDS = st.integers(0, 999)


def draw(seed: int, rank: int) -> Pairs:
    rng = np.random.default_rng(seed)
    return {name: Pair(rng.normal(size=(m, rank)), rng.normal(size=(rank, n))) for name, (m, n) in SHAPES.items()}


def vector(update: Pairs) -> Matrix:
    return np.concatenate([pair.product().ravel() for pair in update.values()])


def dense_bias(updates: list[Pairs], shares: Any) -> float:
    """Mean of products against product of means, factors padded with zeros."""
    rank = max(pair.rank for update in updates for pair in update.values())
    error = whole = 0.0
    for layer, (m, n) in SHAPES.items():
        product, b, a = np.zeros((m, n)), np.zeros((m, rank)), np.zeros((rank, n))
        for share, update in zip(shares, updates, strict=True):
            pair = update[layer]
            product += share * pair.product()
            b[:, : pair.rank] += share * pair.b
            a[: pair.rank] += share * pair.a
        error += float(np.linalg.norm(product - b @ a)) ** 2
        whole += float(np.linalg.norm(product)) ** 2
    return math.sqrt(error / whole)


@given(ranks=RANKS, seed=SEEDS)
def test_it_is_what_dense_matrices_say(ranks: list[int], seed: int) -> None:
    """Unequal ranks and weights, each device from a start of its own."""
    rng = np.random.default_rng(seed)
    weights = rng.uniform(0.1, 5, size=len(ranks))
    updates = [draw(seed + k, rank) for k, rank in enumerate(ranks)]
    start = [draw(seed + 50 + k, rank) for k, rank in enumerate(ranks)]
    found = health(updates, weights, start=start)
    moves = np.stack([vector(new) - vector(old) for new, old in zip(updates, start, strict=True)])
    norms = np.linalg.norm(moves, axis=1)
    np.testing.assert_allclose(found.norms, norms, rtol=1e-12)
    unit = moves / norms[:, None]
    pairs = [unit[i] @ unit[j] for i in range(len(ranks)) for j in range(i)]
    assert found.cosine == pytest.approx(np.mean(pairs), abs=1e-12)
    mean = weights @ moves / weights.sum()
    np.testing.assert_allclose(found.with_mean, unit @ mean / np.linalg.norm(mean), atol=1e-12)
    assert found.bias == pytest.approx(dense_bias(updates, weights / weights.sum()), rel=1e-10)
    assert found.effective_devices == pytest.approx(weights.sum() ** 2 / (weights**2).sum())


def test_order_and_scale_of_weights_change_nothing() -> None:
    updates, weights = [draw(k, 2 + k % 3) for k in range(6)], np.arange(1.0, 7.0)
    first, other = health(updates, weights), health(updates[::-1], 1000 * weights[::-1])
    assert other.bias == pytest.approx(first.bias, rel=1e-12)
    assert other.cosine == pytest.approx(first.cosine, abs=1e-12)
    np.testing.assert_allclose(other.norms[::-1], first.norms, rtol=1e-13)
    assert other.effective_devices == pytest.approx(first.effective_devices)


@pytest.mark.parametrize("drift", [1e-2, 1e-5, 1e-8])
def test_the_bias_is_the_covariance_however_small(drift: float) -> None:
    """Relative to itself it stays exact, where mean of products less product of means would be rounding at 1e-8.

    With B_k = B + d x_k and A_k = A + d y_k the covariance is d^2 times that of x and y.
    """
    rng = np.random.default_rng(0)
    b, a = rng.normal(size=(6, 2)), rng.normal(size=(2, 5))
    x, y = rng.normal(size=(8, 6, 2)), rng.normal(size=(8, 2, 5))
    updates = [{"l": Pair(b + drift * x[k], a + drift * y[k])} for k in range(8)]
    covariance = sum((x[k] - x.mean(0)) @ (y[k] - y.mean(0)) for k in range(8)) / 8
    whole = sum(update["l"].product() for update in updates) / 8
    expected = drift**2 * np.linalg.norm(covariance) / np.linalg.norm(whole)
    assert health(updates, np.ones(8)).bias == pytest.approx(expected, rel=1e-14 / drift + 1e-12)


def test_equal_devices_have_no_bias_and_full_agreement() -> None:
    found = health([draw(0, 3)] * 4, [1, 2, 3, 4])
    assert found.bias == 0
    assert found.cosine == pytest.approx(1)
    assert found.effective_devices == pytest.approx(100 / 30)


def test_devices_that_did_not_move_are_left_out() -> None:
    """Nor those that only turned their frame, whose move is rounding. One mover alone agrees with nobody."""
    start = draw(0, 3)
    turns = [np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0] for seed in range(8)]
    turned = [{name: Pair(pair.b @ turn, turn.T @ pair.a) for name, pair in start.items()} for turn in turns]
    moved, opposite = ({name: Pair(f * p.b, p.a) for name, p in start.items()} for f in (1.5, 0.5))
    found = health([start, *turned, moved], np.ones(10), start=[start] * 10)
    assert found.norms[:9].tolist() == [0] * 9
    assert found.norms[9] == pytest.approx(0.5 * np.linalg.norm(vector(start)))
    assert found.cosine is None
    pair = health([start, moved, opposite], [1, 1, 1], start=[start] * 3)
    assert pair.cosine == pytest.approx(-1)
    assert np.isnan(pair.with_mean).all()  # their moves cancel, so that the mean has no direction
    one = health([start, moved], [3, 1], start=[start] * 2)
    assert np.isnan(one.with_mean[0])
    assert one.with_mean[1] == pytest.approx(1)


def test_nothing_at_all() -> None:
    """All at B = 0, where every adapter begins: no bias, no direction. Nor is there bias where A is shared."""
    begin = {name: Pair(0 * pair.b, pair.a) for name, pair in draw(0, 2).items()}
    found = health([begin] * 3, [1, 1, 1])
    assert (found.bias, found.cosine, found.norms.tolist()) == (0, None, [0, 0, 0])
    one = Pair(np.array([[1.0]]), np.array([[1.0]]))
    other = Pair(np.array([[-1.0]]), np.array([[1.0]]))
    assert health([{"l": one}, {"l": other}], [1, 1]).bias == 0


def test_numbers_by_hand() -> None:
    """Factors (1, 1) and (3, 5): products 1 and 15, mean 8; means 2 * 3 = 6; (8 - 6) / 8 = 0.25, cosine 1.

    Then products 2 * 1 and 1 * -2, which cancel, while the means 1.5 * -0.5 do not.
    """
    updates = [{"l": Pair(np.array([[b]]), np.array([[a]]))} for b, a in ((1.0, 1.0), (3.0, 5.0))]
    found = health(updates, [1, 1])
    assert found.bias == pytest.approx(0.25)
    assert found.norms.tolist() == [1, 15]
    assert found.cosine == pytest.approx(1)
    assert found.effective_devices == 2
    cancelled = [{"l": Pair(np.array([[b]]), np.array([[a]]))} for b, a in ((2.0, 1.0), (1.0, -2.0))]
    assert health(cancelled, [1, 1]).bias == math.inf


def test_what_does_not_match_is_refused() -> None:
    one = draw(0, 2)
    with pytest.raises(ValueError, match="2 updates, 3 weights and 2 starts"):
        health([one, one], [1, 1, 1])
    with pytest.raises(ValueError, match="2 updates, 2 weights and 1 starts"):
        health([one, one], [1, 1], start=[one])
    with pytest.raises(ValueError, match="differ in layers"):
        health([one, {"q": one["q"]}], [1, 1])


def test_the_operations_by_hand() -> None:
    """Three devices of rank 2, R = 6: for each layer 2 R^2 (m + n) = 1152 and R^2 (m + n) = 576 <= 2 m R n."""
    assert operations(draw(0, 2), 3) == 2 * (1152 + 576)


def test_a_hundred_devices_of_half_a_billion_parameters_are_beyond_the_bound_and_ten_below() -> None:
    """Rank 16 on the attention of a base 896 wide in 24 layers; ten of them take a hundredth."""
    rng = np.random.default_rng(0)
    layers = {f"{k}.{name}": m for k in range(24) for name, m in (("q", 896), ("k", 128), ("v", 128), ("o", 896))}
    adapter = {layer: Pair(rng.normal(size=(m, 16)), rng.normal(size=(16, 896))) for layer, m in layers.items()}
    assert operations(adapter, 100) > MOST_OPERATIONS > operations(adapter, 10)
