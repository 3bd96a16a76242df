"""Exits: p-values by hand and in fractions, the guarantee by simulation, and which states go up when."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest

from flsim.collaboration.exits import (
    GRID,
    NEVER,
    binomial_p,
    calibrated,
    hoeffding_bentkus_p,
    last_doubt,
    uploads,
)


def test_the_chance_of_so_few_errors() -> None:
    """Of 3 coins of 0.5: no head in 1 of 8, at most one in 4 of 8."""
    assert binomial_p(0, 3, 0.5) == pytest.approx(1 / 8)
    assert binomial_p(1, 3, 0.5) == pytest.approx(1 / 2)
    assert binomial_p(3, 3, 0.5) == pytest.approx(1.0)
    assert binomial_p(0, 28, 0.1) == pytest.approx(0.9**28)
    assert binomial_p(0, 28, 0.1) > 0.05 > binomial_p(0, 29, 0.1)


@pytest.mark.parametrize(("errors", "count", "risk"), [(7, 100, 0.1), (40, 1000, 0.05), (3, 5000, 0.001)])
def test_the_chance_in_exact_numbers(errors: int, count: int, risk: float) -> None:
    """In fractions, which know no rounding."""
    p = Fraction(risk).limit_denominator(1000)
    exact = sum(comb(count, k) * p**k * (1 - p) ** (count - k) for k in range(errors + 1))
    assert binomial_p(errors, count, risk) == pytest.approx(float(exact), rel=1e-9)


def test_the_bound_for_any_losses() -> None:
    """Hoeffding's part by hand: n = 100, mean 0 at risk 0.1 is 0.9^100; it grows with the loss, and ends at 1."""
    assert hoeffding_bentkus_p(0.0, 100, 0.1) == pytest.approx(0.9**100)
    falls = [hoeffding_bentkus_p(loss, 100, 0.1) for loss in (0.0, 0.02, 0.05, 0.08, 0.1, 0.5)]
    assert falls == sorted(falls)
    assert falls[-2:] == [1.0, 1.0]
    for errors in range(11):  # of losses that are 0 or 1 the exact test is never weaker
        assert binomial_p(errors, 100, 0.1) <= hoeffding_bentkus_p(errors / 100, 100, 0.1) + 1e-12


def test_a_doubt_is_the_largest_confidence_of_a_wrong_token() -> None:
    assert last_doubt([0.9, 0.6, 0.8], [True, False, False]) == 0.8
    assert last_doubt([0.9, 0.6], [True, True]) == 0.0
    assert last_doubt([], []) == 0.0


def test_calibration_by_hand() -> None:
    """100 questions, 4 with doubts at 0.7 and 6 more at 0.5: 4 errors have a p-value of 0.024, 10 of 0.58."""
    doubts = np.array([0.7] * 4 + [0.5] * 6 + [0.0] * 90)
    assert binomial_p(4, 100, 0.1) < 0.05 < binomial_p(10, 100, 0.1)
    assert calibrated(doubts, 0.1, 0.05) == 0.5
    assert calibrated(doubts, 0.2, 0.05) == 0.0
    assert calibrated(doubts, 0.01, 0.05) == NEVER  # 100 questions without any error do not show that
    assert calibrated(np.zeros(28), 0.1, 0.05) == NEVER
    assert calibrated(np.zeros(29), 0.1, 0.05) == 0.0


def test_a_row_of_tests_ends_at_the_first_that_is_not_rejected() -> None:
    """However good a lower threshold may look: doubts only grow in number."""
    doubts = np.array([0.99] * 50 + [0.0] * 50)
    assert calibrated(doubts, 0.1, 0.05, grid=(0.995, 0.9)) == 0.995
    assert calibrated(doubts, 0.1, 0.05, grid=(0.9, 0.995)) == NEVER


def test_the_risk_is_kept_as_often_as_promised() -> None:
    """Doubts uniform in [0, 1]: the share above a threshold is 1 minus it, so that a threshold below 0.9 breaks 0.1.

    In 2,000 calibrations of 100 questions that happens in 4.6 % at most, and in some.
    """
    rng = np.random.default_rng(0)
    broken = np.mean([calibrated(rng.random(100), 0.1, 0.05) < 0.9 - 1e-9 for _ in range(2000)])
    assert 0 < broken <= 0.05
    assert GRID[0] < NEVER


@pytest.mark.parametrize(
    ("decided", "sent"),
    [
        ([False, False, False], (7, 1, 1)),
        ([True, True, True], ()),
        ([True, False, False], (8, 1)),
        ([False, True, True, False], (7, 3)),
        ([False, True], (7,)),
        ([], ()),
    ],
)
def test_states_of_decided_tokens_go_up_with_the_next_undecided_one(decided: list[bool], sent: tuple[int, ...]) -> None:
    """A prompt of 7 tokens; the state of the token before must have come, so all up to it."""
    assert uploads(7, decided) == sent
    undecided = [place for place, alone in enumerate(decided) if not alone]
    assert sum(sent) == (7 + undecided[-1] if undecided else 0)
