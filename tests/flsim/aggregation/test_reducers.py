"""Reducers: laws, hand-derived numbers, the plain way in full space, and what one Byzantine device can do."""

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsim.aggregation.reducers import geometric_median, mean, median, multi_krum, trimmed_mean

WEIGHTS = st.lists(st.floats(0.01, 100), min_size=5, max_size=12)
SEEDS = st.integers(0, 999)


def draw(seed: int, devices: int) -> Any:
    """Updates around a common one `(K, 30)`."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=30) + 0.3 * rng.normal(size=(devices, 30))


def reductions(values: Any, weights: Any) -> dict[str, Any]:
    """What every robust reducer makes of updates `(K, n)`."""
    gram = values @ values.T
    return {
        "krum": multi_krum(gram, 1) @ values,
        "multi-krum": multi_krum(gram, 1, len(values) - 2) @ values,
        "geometric median": geometric_median(gram, weights) @ values,
        "trimmed mean": trimmed_mean(values, 0.25),
        "median": median(values),
    }


@given(weights=WEIGHTS, seed=SEEDS)
def test_coefficients_are_shares(weights: list[float], seed: int) -> None:
    values = draw(seed, len(weights))
    gram = values @ values.T
    for shares in (mean(weights), multi_krum(gram, 1, 3), geometric_median(gram, weights)):
        assert shares.shape == (len(weights),)
        assert shares.sum() == pytest.approx(1, abs=1e-14)
        assert (shares >= 0).all()


@given(weights=WEIGHTS, seed=SEEDS)
def test_the_order_of_devices_changes_nothing(weights: list[float], seed: int) -> None:
    values, order = draw(seed, len(weights)), np.random.default_rng(seed).permutation(len(weights))
    before, after = reductions(values, weights), reductions(values[order], np.array(weights)[order])
    for name, result in before.items():
        np.testing.assert_allclose(after[name], result, rtol=0, atol=1e-9, err_msg=name)
    assert after["trimmed mean"].tobytes() == before["trimmed mean"].tobytes()
    assert after["median"].tobytes() == before["median"].tobytes()


@given(weights=WEIGHTS, seed=SEEDS, factor=st.sampled_from([1e-6, 3.0, 1e9]))
def test_the_scale_of_weights_changes_nothing(weights: list[float], seed: int, factor: float) -> None:
    values = draw(seed, len(weights))
    scaled = [factor * weight for weight in weights]
    np.testing.assert_allclose(mean(scaled), mean(weights), rtol=1e-13)
    gram = values @ values.T
    np.testing.assert_allclose(geometric_median(gram, scaled), geometric_median(gram, weights), rtol=1e-9)


@given(weights=WEIGHTS, seed=SEEDS)
def test_equal_devices_are_their_mean(weights: list[float], seed: int) -> None:
    values = np.repeat(draw(seed, 1), len(weights), axis=0)
    for name, result in reductions(values, weights).items():
        np.testing.assert_allclose(result, values[0], rtol=0, atol=1e-14, err_msg=name)


@given(seed=SEEDS, sign=st.sampled_from([-1, 1]), huge=st.sampled_from([1e3, 1e6]))
def test_a_byzantine_device_moves_a_robust_result_by_a_bounded_amount(seed: int, sign: int, huge: float) -> None:
    """By less than three times the honest devices' spread, and no more if it shouts louder; the mean follows it."""
    values = draw(seed, 9)
    honest = values[:8]
    spread = np.linalg.norm(honest - honest.mean(axis=0), axis=1).max()
    values[8] = sign * huge
    for name, result in reductions(values, np.ones(9)).items():
        assert np.linalg.norm(result - honest.mean(axis=0)) < 3 * spread, name
    moved = np.linalg.norm(mean(np.ones(9)) @ values - honest.mean(axis=0))
    assert moved == pytest.approx(huge * 30**0.5 / 9, rel=0.1)


def krum_scores(values: Any, byzantine: int) -> list[float]:
    """As the paper says it, with the vectors themselves."""
    count = len(values)
    scores = []
    for i in range(count):
        distances = sorted(float(np.sum((values[i] - values[j]) ** 2)) for j in range(count) if j != i)
        scores.append(sum(distances[: count - byzantine - 2]))
    return scores


@given(seed=SEEDS, byzantine=st.integers(0, 3), keep=st.integers(1, 6))
def test_krum_is_that_of_the_vectors(seed: int, byzantine: int, keep: int) -> None:
    values = draw(seed, 9)
    chosen = np.flatnonzero(multi_krum(values @ values.T, byzantine, keep))
    assert sorted(chosen) == sorted(np.argsort(krum_scores(values, byzantine))[:keep])


def test_krum_by_hand() -> None:
    """Numbers 0 1 2 3 10, f = 1: two nearest squares add to 5 2 2 5 113; of the tied 1 and 2 the earlier is kept."""
    values = np.array([[0.0], [1.0], [2.0], [3.0], [10.0]])
    gram = values @ values.T
    assert multi_krum(gram, 1).tolist() == [0, 1, 0, 0, 0]
    assert multi_krum(gram, 1, 2).tolist() == [0, 0.5, 0.5, 0, 0]
    assert multi_krum(gram, 1, 4).tolist() == [0.25, 0.25, 0.25, 0.25, 0]


@given(weights=WEIGHTS, seed=SEEDS)
def test_the_geometric_median_is_that_of_the_vectors(weights: list[float], seed: int) -> None:
    """Weiszfeld in full space, and no point nearby has a lesser sum of distances."""
    values, shares = draw(seed, len(weights)), mean(weights)
    found = geometric_median(values @ values.T, weights, iterations=300) @ values
    point = shares @ values
    for _ in range(300):
        pull = shares / np.maximum(np.linalg.norm(values - point, axis=1), 1e-6)
        point = pull @ values / pull.sum()
    np.testing.assert_allclose(found, point, rtol=0, atol=1e-6)

    def cost(at: Any) -> float:
        return float(shares @ np.linalg.norm(values - at, axis=1))

    for near in np.random.default_rng(seed).normal(scale=0.01, size=(5, 30)):
        assert cost(found) <= cost(found + near) + 1e-9


def test_a_geometric_median_by_hand() -> None:
    """On a line it is the weighted median: 0 with weights 1 1 3 at -1, 5, 0. One step by hand from the mean of 0 and 4
    with weights 3 and 1, which is 1: pulls 3 / 1 and 1 / 3, so the far one keeps (1/3) / (10/3) = 0.1."""
    values = np.array([[-1.0], [5.0], [0.0]])
    assert (geometric_median(values @ values.T, [1, 1, 3]) @ values)[0] == pytest.approx(0, abs=1e-5)
    two = np.array([[0.0], [4.0]])
    assert geometric_median(two @ two.T, [3, 1], iterations=1) == pytest.approx([0.9, 0.1])


def test_a_device_without_weight_has_no_say() -> None:
    values = draw(0, 6)
    values[5] = 100
    shares = geometric_median(values @ values.T, [1, 1, 1, 1, 1, 0])
    assert shares[5] == 0
    np.testing.assert_allclose(shares[:5], geometric_median(values[:5] @ values[:5].T, np.ones(5)), rtol=1e-6)


@given(seed=SEEDS, devices=st.integers(1, 12), share=st.floats(0, 0.49))
def test_a_trimmed_mean_lies_between_mean_and_median(seed: int, devices: int, share: float) -> None:
    """Without trimming it is the mean, with all but the middle the median; else each coordinate by itself."""
    values = draw(seed, devices)
    np.testing.assert_allclose(trimmed_mean(values, 0), values.mean(axis=0), atol=1e-14)
    np.testing.assert_allclose(trimmed_mean(values, (devices - 1) // 2 / devices), median(values), atol=1e-14)
    cut = int(share * devices)
    expected = [np.mean(sorted(column)[cut : devices - cut]) for column in values.T]
    np.testing.assert_allclose(trimmed_mean(values, share), expected, atol=1e-14)


def test_coordinates_by_hand() -> None:
    """Five devices, a fifth off each end: 1 2 3 of 0 1 2 3 99, and 5 5 6 of 5 5 6 -7 9; medians 2 and 5."""
    values = np.array([[0, 5], [1, 5], [2, 6], [3, -7], [99, 9]], dtype=np.float32)
    assert trimmed_mean(values, 0.2).tolist() == [2, 16 / 3]
    assert median(values).tolist() == [2, 5]
    assert median(values[:4]).tolist() == [1.5, 5]
    assert trimmed_mean(values, 0.2).dtype == median(values).dtype == np.float64
    assert trimmed_mean(np.append(np.zeros(71), np.ones(29)), 0.29).tolist() == 0  # 29 of 100, not 28


def test_weights_are_shares_by_hand() -> None:
    assert mean([1, 3]).tolist() == [0.25, 0.75]
    assert mean([1e308, 1e308]).tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (lambda: mean([]), "the weights are []"),
        (lambda: mean([0.0, 0.0]), "not all 0"),
        (lambda: mean([1, -1]), "at least 0"),
        (lambda: mean([1, float("nan")]), "must be finite"),
        (lambda: multi_krum(np.eye(4), 1), "at least 2 * 1 + 3 = 5 updates and got 4"),
        (lambda: multi_krum(np.eye(4), -1), "byzantine >= 0"),
        (lambda: multi_krum(np.eye(5), 1, 5), "keep=5; of 5 updates with 1 Byzantine, 1 to 4 are kept"),
        (lambda: multi_krum(np.eye(5), 1, 0), "keep=0"),
        (lambda: geometric_median(np.eye(2), [1, 1, 1]), "3 weights for 2 updates"),
        (lambda: geometric_median(np.eye(2), [1, 1], iterations=0), "iterations=0"),
        (lambda: geometric_median(np.eye(2), [1, 1], smoothing=0.0), "smoothing=0.0"),
        (lambda: trimmed_mean(np.ones((4, 2)), 0.5), "share=0.5"),
    ],
)
def test_what_cannot_be_is_refused(work: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        work()
