"""Measures of offloading and of fairness, each against a number derived by hand."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsim.metrics.fairness import gini, harm_rate, jain
from flsim.metrics.offloading import (
    accuracy_at,
    average_gap_recovered,
    call_performance_threshold,
    cost_per_correct,
    performance_gap_recovered,
    settling_rounds,
    share_left,
    violation,
)


def test_violation_by_hand() -> None:
    """Above 0.3 by 0.2 and 0.1 in two of four rounds; the 0.3 below in another makes up for nothing."""
    assert violation([0.5, 0.0, 0.4, 0.3], 0.3) == pytest.approx(0.3 / 4)


def test_settling_by_hand() -> None:
    """Rounds 11 to 15: outside until 12, inside from 13 on, that is two rounds after the first."""
    usage = pd.Series([0.6, 0.4, 0.34, 0.26, 0.31], index=range(11, 16))
    assert settling_rounds(usage, 0.3) == 2
    assert settling_rounds(usage, 0.3, tolerance=0.5) == 0
    assert settling_rounds(usage.iloc[:2], 0.3) is None
    assert settling_rounds(pd.Series([0.35], index=[1]), 0.3) == 0  # the edge of the band is in it


def test_gap_recovered_by_hand() -> None:
    """From 0.5 to 0.9; 0.7 is half of it."""
    assert performance_gap_recovered(0.7, 0.5, 0.9) == pytest.approx(0.5)
    assert np.isnan(performance_gap_recovered(0.7, 0.9, 0.9))


def test_apgr_by_hand() -> None:
    """Straight from (0, 0.5) to (1, 0.9) it is 1/2; through (0.25, 0.9): 0.25 * 0.5 + 0.75 * 1 = 0.875."""
    assert average_gap_recovered([], [], 0.5, 0.9) == pytest.approx(0.5)
    assert average_gap_recovered([0.25], [0.9], 0.5, 0.9) == pytest.approx(0.875)
    assert average_gap_recovered([0.5, 0.25], [0.9, 0.9], 0.5, 0.9) == pytest.approx(0.875)
    with pytest.raises(ValueError, match="no gap to close"):
        average_gap_recovered([0.5], [0.5], 0.9, 0.5)


def test_cpt_by_hand() -> None:
    """Through (0.5, 0.6) and (1, 0.9): half of the gap, 0.7, is a third of the way from there, at 0.5 + 0.5 / 3."""
    assert call_performance_threshold(0.5, [0.5], [0.6], 0.5, 0.9) == pytest.approx(0.5 + 0.5 / 3)
    assert call_performance_threshold(0.0, [0.5], [0.6], 0.5, 0.9) == 0.0
    assert call_performance_threshold(1.0, [0.5], [0.6], 0.5, 0.9) == pytest.approx(1.0)
    assert call_performance_threshold(0.5, [0.2, 0.6], [0.7, 0.4], 0.5, 0.9) == pytest.approx(0.2)  # a dip later


def test_the_worked_example_of_the_page_on_equal_spend() -> None:
    """docs/comparing.md: A learns from 0.2 calls per prompt, B from none; S = 0.3, once with H = 1 and once with 4."""
    a = {0.3: 0.76, 0.4: 0.80}
    b = {0.3: 0.74, 0.6: 0.84}
    assert [share_left(0.3, spent, 1.0) for spent in (0.2, 0.0)] == pytest.approx([0.4, 0.6])
    assert accuracy_at(share_left(0.3, 0.2, 1.0), list(a), list(a.values()), 0.62, 0.95) == pytest.approx(0.80)
    assert accuracy_at(share_left(0.3, 0.0, 1.0), list(b), list(b.values()), 0.55, 0.95) == pytest.approx(0.84)
    assert [share_left(0.3, spent, 4.0) for spent in (0.2, 0.0)] == pytest.approx([0.325, 0.375])
    assert accuracy_at(0.325, list(a), list(a.values()), 0.62, 0.95) == pytest.approx(0.77)
    assert accuracy_at(0.375, list(b), list(b.values()), 0.55, 0.95) == pytest.approx(0.765)


def test_a_curve_is_read_between_its_ends() -> None:
    """Nothing sent is the device alone and everything the cloud, however much is left; overspent is not defined."""
    assert [accuracy_at(share, [0.5], [0.8], 0.6, 0.9) for share in (0.0, 0.25, 1.0, 1.7)] == [0.6, 0.7, 0.9, 0.9]
    assert accuracy_at(-1e-12, [0.5], [0.8], 0.6, 0.9) == 0.6  # a last bit
    assert np.isnan(accuracy_at(-0.01, [0.5], [0.8], 0.6, 0.9))
    assert accuracy_at(0.5, [], [], 0.9, 0.5) == pytest.approx(0.7)  # a cloud that is worse


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.1, 100))
def test_what_is_left_and_what_was_spent_add_up(spend: float, training: float, horizon: float) -> None:
    left = share_left(spend, training, horizon)
    assert (training + horizon * left) / (1 + horizon) == pytest.approx(spend)


def test_cost_per_correct() -> None:
    assert cost_per_correct(0.6, 12) == pytest.approx(0.05)
    assert cost_per_correct(0.6, 0) == np.inf


def test_gini_and_jain_by_hand() -> None:
    """One of four has all: Gini 3/4, Jain 1/4. (1, 3): sum of gaps 4 over 2 * 4 * 2 = 1/4; 16 / (2 * 10) = 0.8."""
    assert (gini([0, 0, 0, 1]), jain([0, 0, 0, 1])) == (0.75, 0.25)
    assert (gini([1, 3]), jain([1, 3])) == (0.25, 0.8)
    assert (gini([0, 0]), jain([0, 0])) == (0.0, 1.0)
    with pytest.raises(ValueError, match="at least 0"):
        gini([-1, 1])


@given(values=st.lists(st.floats(0.01, 10), min_size=1, max_size=8), factor=st.floats(0.1, 10))
def test_scale_and_order_do_not_matter(values: list[float], factor: float) -> None:
    for measure in (gini, jain):
        assert measure([factor * value for value in reversed(values)]) == pytest.approx(measure(values), abs=1e-9)
    assert -1e-12 <= gini(values) < 1
    assert 1 / len(values) - 1e-12 <= jain(values) <= 1 + 1e-12


def test_harm_by_hand() -> None:
    """b lost 0.1, a gained, c lost 0.01; d is in one run only."""
    before = pd.Series({"a": 0.5, "b": 0.5, "c": 0.5})
    after = pd.Series({"c": 0.49, "b": 0.4, "a": 0.6, "d": 0.0})
    assert harm_rate(after, before) == pytest.approx(2 / 3)
    assert harm_rate(after, before, tolerance=0.05) == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="no user is in both"):
        harm_rate(after[["d"]], before)
