"""Reducers: coefficients that add up to 1, numbers by hand, and what they do with too few or with unusable settings."""

import pickle
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.parts.reducers import (
    Combining,
    Coordinatewise,
    Floats,
    GeometricMedian,
    Mean,
    Median,
    MultiKrum,
    TrimmedMean,
)

COMBINING: list[Combining] = [Mean(), MultiKrum(), MultiKrum(0.4, 1), GeometricMedian()]


def gram_of(points: Floats) -> Callable[[], Floats]:
    return lambda: points @ points.T


def never() -> Floats:
    raise AssertionError("it needs no inner products")


@given(count=st.integers(1, 9), seed=st.integers(0, 99), scale=st.floats(0.5, 100))
def test_coefficients_add_up_to_one_and_know_no_rotation_nor_scale(count: int, seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    points, shares = rng.normal(size=(count, 4)), rng.dirichlet(np.ones(count))
    turn = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    for reducer in COMBINING:
        found = reducer.coefficients(gram_of(points), shares)
        assert found.shape == (count,)
        assert found.sum() == pytest.approx(1)
        assert (found >= 0).all()
        turned = pickle.loads(pickle.dumps(reducer)).coefficients(gram_of(scale * points @ turn), shares)
        np.testing.assert_allclose(found, turned, atol=1e-4)  # but for the median's smoothing, which has a unit


def test_a_mean_is_the_shares_and_costs_nothing() -> None:
    shares = np.array([0.2, 0.8])
    assert Mean().coefficients(never, shares) is shares


def test_krum_by_hand() -> None:
    """0, 1, 2, 3 and 100 on a line, one to fear: n - f - 2 = 2 neighbours; 1 and 2 have the least sums, 1 + 1 = 2."""
    points = np.array([[0.0], [1.0], [2.0], [3.0], [100.0]])
    shares = np.full(5, 0.2)
    assert MultiKrum(0.2, 1).coefficients(gram_of(points), shares).tolist() == [0, 1, 0, 0, 0]
    assert MultiKrum(0.2, 2).coefficients(gram_of(points), shares).tolist() == [0, 0.5, 0.5, 0, 0]
    assert MultiKrum(0.2).coefficients(gram_of(points), shares).tolist() == [0.25] * 4 + [0]


@pytest.mark.parametrize(("count", "kept"), [(3, 3), (4, 4), (5, 4), (7, 5), (8, 6)])
def test_krum_fears_as_many_as_the_round_allows(count: int, kept: int) -> None:
    """A share of 0.4, rounded up, but at most (n - 3) / 2: 0, 0, 1, 2 and 2."""
    points = np.random.default_rng(0).normal(size=(count, 3))
    found = MultiKrum(0.4).coefficients(gram_of(points), np.full(count, 1 / count))
    assert (found > 0).sum() == kept


@pytest.mark.parametrize("count", [1, 2])
def test_of_one_or_two_krum_can_exclude_nobody(count: int) -> None:
    shares = np.full(count, 1 / count)
    assert MultiKrum(0.4, 1).coefficients(never, shares) is shares


def test_the_geometric_median_by_hand() -> None:
    """On a line it is the median: of 0, 1 and 100 with equal weights, 1."""
    points = np.array([[0.0], [1.0], [100.0]])
    found = GeometricMedian().coefficients(gram_of(points), np.full(3, 1 / 3))
    assert (found @ points).item() == pytest.approx(1.0, abs=0.05)


def test_number_by_number_by_hand() -> None:
    values = np.array([[1.0, 9.0], [2.0, 8.0], [3.0, 7.0], [4.0, 6.0], [-1e9, 1e9]])
    assert TrimmedMean(0.2).reduce(values).tolist() == [2.0, 8.0]  # without -1e9 and 4; without 1e9 and 6
    assert Median().reduce(values).tolist() == [2.0, 8.0]
    assert TrimmedMean(0.0).reduce(values[:4]).tolist() == [2.5, 7.5]
    for reducer in (TrimmedMean(), Median()):
        assert isinstance(reducer, Coordinatewise)
        assert reducer.reduce(values[:1]).tolist() == [1.0, 9.0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MultiKrum(0.5), r"byzantine=0.5 must be at least 0 and below 0.5"),
        (lambda: MultiKrum(keep=0), r"keep=0 must be at least 1"),
        (lambda: TrimmedMean(-0.1), r"share=-0.1 must be at least 0 and below 0.5"),
        (lambda: GeometricMedian(iterations=0), r"iterations=0 must be at least 1"),
        (lambda: GeometricMedian(smoothing=0.0), r"smoothing=0.0 above 0"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_a_run(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
