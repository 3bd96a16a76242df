"""Reliability and ECE: laws, a number by hand, and sums that add up over users."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsim.metrics.auc import auc
from flsim.metrics.calibration import (
    ROWS,
    by_tenths,
    claim_rows,
    expected_calibration_error,
    from_rows,
    gaps_of_users,
    of_all,
)
from flsim.metrics.rows import Subject, rows_frame

CLAIMS = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40)


def ece(claims: np.ndarray, wrong: np.ndarray) -> float:
    sums = by_tenths(claims, wrong)
    return expected_calibration_error(((sums["claimed"] - sums["wrong"]) / len(claims)).to_numpy())


def test_ece_by_hand() -> None:
    """The example of the file; 0.2 and 1.0 are in the tenths that they begin and end."""
    claims, wrong = np.array([0.1, 0.15, 0.2, 0.8, 0.9]), np.array([0, 0, 1, 1, 1])
    sums = by_tenths(claims, wrong)
    assert sums["prompts"].tolist() == [0, 2, 1, 0, 0, 0, 0, 0, 1, 1]
    assert sums["wrong"].tolist() == [0, 0, 1, 0, 0, 0, 0, 0, 1, 1]
    assert ece(claims, wrong) == pytest.approx(0.27)
    assert by_tenths([0.3, 0.7, 1.0, 0.0], [1, 1, 1, 0])["prompts"].tolist() == [1, 0, 0, 1, 0, 0, 0, 1, 0, 1]


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_the_truth_and_the_base_rate_have_no_error(labels: list[bool]) -> None:
    """Who claims the truth is never off; who always claims the share of the wrong is not off either, and tells nothing
    apart."""
    wrong = np.array(labels)
    assert ece(wrong.astype(float), wrong) == 0.0
    constant = np.full(len(wrong), wrong.mean())
    assert ece(constant, wrong) == pytest.approx(0.0, abs=1e-12)
    assert np.isnan(auc(constant, wrong)) if wrong.all() or not wrong.any() else auc(constant, wrong) == 0.5


@given(CLAIMS)
def test_the_error_is_a_share_and_the_order_of_prompts_changes_nothing(pairs: list[tuple[float, bool]]) -> None:
    claims, wrong = np.array([c for c, _ in pairs]), np.array([w for _, w in pairs])
    assert -1e-12 <= ece(claims, wrong) <= 1 + 1e-12
    assert ece(claims[::-1], wrong[::-1]) == pytest.approx(ece(claims, wrong))
    assert ece(claims, wrong) >= abs(claims.mean() - wrong.mean()) - 1e-12


@given(CLAIMS, CLAIMS)
def test_rows_of_users_add_up_to_the_error_of_all(
    one: list[tuple[float, bool]], other: list[tuple[float, bool]]
) -> None:
    """Written as rows and read again; and the mean of users' gaps, weighed by their prompts, is that of all."""
    users = {"a": np.array(one, dtype=float), "b": np.array(other, dtype=float)}
    rows = [
        Subject(3, name, "test", "global").row(row, *pair)
        for name, own in users.items()
        for row, pair in claim_rows(own[:, 0], own[:, 1]).items()
    ]
    assert {row.name for row in rows} <= set(ROWS)
    sums = from_rows(rows_frame(rows))
    together = np.vstack(list(users.values()))
    whole = by_tenths(together[:, 0], together[:, 1])
    pd.testing.assert_frame_equal(of_all(sums), whole, check_dtype=False, check_index_type=False)
    gaps = gaps_of_users(sums).loc[["a", "b"]].to_numpy()  # (2, 10)
    mean = np.average(gaps, axis=0, weights=[len(one), len(other)])  # (10,)
    assert expected_calibration_error(mean) == pytest.approx(ece(together[:, 0], together[:, 1]))


def test_no_claims_are_no_users() -> None:
    sums = from_rows(rows_frame([]))
    assert sums.empty
    assert gaps_of_users(sums).empty
    assert of_all(sums)["prompts"].sum() == 0
