"""Intervals over users and seeds: laws, numbers by hand, and how often they hold what they should."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsim.metrics.intervals import Interval, of_columns, of_mean_user, over_users_and_seeds, paired_over_users

VALUES = st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=6), min_size=1, max_size=3)


def arrays(values: list[list[float]]) -> list[np.ndarray]:
    return [np.array(of_seed) for of_seed in values]


@given(values=VALUES)
def test_the_mean_lies_in_its_interval_and_the_interval_in_the_range(values: list[list[float]]) -> None:
    found = over_users_and_seeds(arrays(values), draws=200)
    flat = [value for of_seed in values for value in of_seed]
    assert min(flat) - 1e-12 <= found.low <= found.high <= max(flat) + 1e-12
    assert found.mean == pytest.approx(np.mean([np.mean(of_seed) for of_seed in values]))


@given(values=VALUES, shift=st.floats(-2, 2))
def test_a_constant_shifts_all_three(values: list[list[float]], shift: float) -> None:
    one = over_users_and_seeds(arrays(values), draws=100)
    other = over_users_and_seeds([of_seed + shift for of_seed in arrays(values)], draws=100)
    assert (other.mean, other.low, other.high) == pytest.approx((one.mean + shift, one.low + shift, one.high + shift))


def test_equal_values_leave_no_doubt() -> None:
    assert over_users_and_seeds([np.full(4, 0.25), np.full(7, 0.25)]) == Interval(0.25, 0.25, 0.25)


def test_seeds_count_the_same_however_many_users_they_have() -> None:
    """Means 1 of three users and 0 of one: 0.5 by seeds, 0.75 by users."""
    assert over_users_and_seeds([np.ones(3), np.zeros(1)]).mean == 0.5


def test_the_bootstrap_over_two_seeds_by_hand() -> None:
    """Seeds of 0 and 1 throughout: a draw of two has mean 0, 1/2 or 1, a quarter, half and a quarter of the time."""
    found = over_users_and_seeds([np.zeros(5), np.ones(5)])
    assert (found.low, found.mean, found.high) == (0.0, 0.5, 1.0)


def test_of_one_seed_it_is_the_usual_interval_of_a_mean() -> None:
    """1.96 standard errors on each side, for many users."""
    users = np.random.default_rng(0).normal(size=400)
    found = over_users_and_seeds([users])
    error = users.std() / np.sqrt(400)
    assert found.high - found.mean == pytest.approx(1.96 * error, rel=0.1)
    assert found.mean - found.low == pytest.approx(1.96 * error, rel=0.1)


def test_pairs_are_of_one_user_and_seed() -> None:
    """Users differ by far, each gains 0.1: paired there is no doubt. A user that one of them lacks is left out."""
    first = [pd.Series({"a": 0.9, "b": 0.2, "c": 0.5})]
    second = [pd.Series({"b": 0.1, "a": 0.8, "d": 0.7})]
    found = paired_over_users(first, second)
    assert (found.low, found.mean, found.high) == pytest.approx((0.1, 0.1, 0.1))
    assert found.excludes_zero
    assert not Interval(0.1, -0.1, 0.3).excludes_zero


def test_nothing_to_average_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one seed, and at least one user in each"):
        over_users_and_seeds([np.ones(2), np.zeros(0)])
    with pytest.raises(ValueError, match="at least one seed"):
        over_users_and_seeds([])


def test_many_columns_are_as_each_alone_and_leave_out_who_has_none() -> None:
    """b: 0.4 and 0.6 of the first seed, nobody of the second; c: nobody at all."""
    one = pd.DataFrame({"a": [0.1, 0.2, 0.9], "b": [0.4, np.nan, 0.6], "c": [np.nan] * 3})
    other = pd.DataFrame({"a": [0.3, 0.5], "b": [np.nan] * 2, "c": [np.nan] * 2})
    found = of_columns([one, other])
    alone = over_users_and_seeds([one["a"].to_numpy(), other["a"].to_numpy()])
    assert (found["a"].mean, found["a"].low, found["a"].high) == pytest.approx((alone.mean, alone.low, alone.high))
    assert (found["b"].low, found["b"].mean, found["b"].high) == pytest.approx((0.4, 0.5, 0.6))
    assert set(found) == {"a", "b"}


def test_a_ratio_is_of_the_means_and_not_the_mean_of_ratios() -> None:
    """(1 + 3) / (2 + 2) is 1; a user drawn twice gives 1/2 or 3/2, each a quarter of the time."""
    users = pd.DataFrame({"right": [1.0, 3.0], "asked": [2.0, 2.0]})
    found = of_mean_user([users], lambda mean: float(mean[0] / mean[1]))
    assert found == Interval(1.0, 0.5, 1.5)
    assert of_mean_user([users], lambda mean: float("nan")) is None


def test_a_ratio_that_is_infinite_has_no_bounds() -> None:
    """Money per right answer where nobody is ever right; pytest turns NumPy's warning into an error."""
    found = of_mean_user([pd.DataFrame({"money": [1.0, 2.0], "right": [0.0, 0.0]})], lambda v: float("inf"))
    assert found is not None
    assert (found.mean, np.isnan(found.low), np.isnan(found.high)) == (float("inf"), True, True)


WEIGHED = st.lists(st.tuples(st.floats(0, 1), st.integers(1, 5)), min_size=1, max_size=6)


@given(users=WEIGHED, factor=st.sampled_from([0.5, 1.0, 8.0]))
def test_equal_weights_are_none_and_their_scale_does_not_matter(users: list[tuple[float, int]], factor: float) -> None:
    values, weights = np.array([value for value, _ in users]), np.array([float(weight) for _, weight in users])
    plain = over_users_and_seeds([values], draws=100)
    assert over_users_and_seeds([values], weights=[np.full(len(users), factor)], draws=100) == plain
    one, other = (over_users_and_seeds([values], weights=[w], draws=100) for w in (weights, factor * weights))
    assert (other.mean, other.low, other.high) == pytest.approx((one.mean, one.low, one.high))
    assert one.mean == pytest.approx(np.average(values, weights=weights))


def test_who_weighs_nothing_is_left_out_of_the_mean_and_of_its_doubt() -> None:
    """Of values 0.2 and 0.8 with weights 3 and 1: 0.35; a draw of one user twice is 0.2 or 0.8, each a quarter."""
    found = over_users_and_seeds([np.array([0.2, 0.8, 0.9])], weights=[np.array([3.0, 1.0, 0.0])])
    assert found.mean == pytest.approx(0.35)
    assert (found.low, found.high) == pytest.approx((0.2, 0.8))


def test_each_measure_may_have_weights_of_its_own_and_none_that_nobody_weighs() -> None:
    table = pd.DataFrame({"a": [0.0, 1.0], "b": [0.0, 1.0], "c": [0.5, 0.5], "d": [np.nan, 1.0]})
    weights = pd.DataFrame({"a": [1.0, 3.0], "b": [3.0, 1.0], "c": [0.0, 0.0], "d": [5.0, 1.0]})
    found = of_columns([table], [weights])
    assert {name: interval.mean for name, interval in found.items()} == {"a": 0.75, "b": 0.25, "d": 1.0}


def test_a_ratio_of_the_weighed_mean_user() -> None:
    """(3 * 1 + 1 * 3) / 4 over (3 * 2 + 1 * 2) / 4 is 0.75."""
    users = pd.DataFrame({"right": [1.0, 3.0], "asked": [2.0, 2.0]})
    found = of_mean_user([users], lambda mean: float(mean[0] / mean[1]), [pd.Series([3.0, 1.0])])
    assert found is not None
    assert (found.mean, found.low, found.high) == (0.75, 0.5, 1.5)
