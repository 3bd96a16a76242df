"""User-level weighting: its laws, then numbers derived by hand."""

import math

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flsim.metrics.rows import Row, rows_frame
from flsim.metrics.users import over_rounds, paired_difference, per_user, summarise

MEANS = ("user_mean", "p10", "p50", "p90", "worst_decile_mean")
COUNTS = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 20)), min_size=1, max_size=25)


def frame_of(pairs: list[tuple[float, float]], *, round_: int = 1) -> pd.DataFrame:
    """One row per device, in order."""
    return rows_frame(
        Row(round_, f"device-{n:03d}", "arithmetic", "test", "global", "accuracy", *pair)
        for n, pair in enumerate(pairs)
    )


HAND = frame_of([(9, 10), (1, 2), (0, 8)])


@settings(deadline=None, max_examples=40)
@given(COUNTS, st.randoms(use_true_random=False))
def test_order_and_splitting_change_nothing(pairs: list[tuple[float, float]], random) -> None:  # type: ignore[no-untyped-def]
    whole = frame_of(pairs)
    halves = pd.concat([frame_of([(t / 2, w / 2) for t, w in pairs])] * 2)
    order = random.sample(range(len(halves)), len(halves))
    assert summarise(halves.iloc[order]) == summarise(whole)


@settings(deadline=None, max_examples=40)
@given(COUNTS, st.lists(st.sampled_from([0.25, 0.5, 2.0, 8.0]), min_size=25, max_size=25))
def test_weights_scale_away_user_by_user(pairs: list[tuple[float, float]], factors: list[float]) -> None:
    """Powers of two, so that floats stay exact; the example mean alone follows the factors."""
    scaled = frame_of([(t * f, w * f) for (t, w), f in zip(pairs, factors, strict=False)])
    pd.testing.assert_series_equal(per_user(scaled), per_user(frame_of(pairs)))
    together = summarise(frame_of([(t * 4, w * 4) for t, w in pairs]))
    assert together == summarise(frame_of(pairs))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 8), st.lists(st.integers(1, 9), min_size=1, max_size=25))
def test_equal_users_have_that_value_everywhere(eighths: int, weights: list[int]) -> None:
    value = eighths / 8
    summary = summarise(frame_of([(value * weight, float(weight)) for weight in weights]))
    assert [getattr(summary, name) for name in MEANS] == pytest.approx([value] * len(MEANS))
    assert summary.example_mean == pytest.approx(value)
    assert summary.users == len(weights)


def test_summary_by_hand() -> None:
    """Values 0.9, 0.5, 0.0: example mean 10/20, user mean 1.4/3; p10 = 0 + 0.2 * 0.5, p90 = 0.5 + 0.8 * 0.4."""
    summary = summarise(HAND)
    assert summary.example_mean == 0.5
    assert summary.user_mean == pytest.approx(1.4 / 3)
    assert (summary.p10, summary.p50, summary.p90) == pytest.approx((0.1, 0.5, 0.82))
    assert summary.worst_decile_mean == 0.0
    assert summarise(HAND, higher_is_better=False).worst_decile_mean == 0.9


@pytest.mark.parametrize(("users", "worst"), [(10, 0.0), (11, 0.5), (20, 0.5), (21, 1.0), (30, 1.0)])
def test_the_worst_tenth_is_rounded_up(users: int, worst: float) -> None:
    """Values 0, 1, 2, ...: 11 users have a worst tenth of 2, with the mean (0 + 1) / 2; 30 users of exactly 3."""
    assert summarise(frame_of([(float(n), 1.0) for n in range(users)])).worst_decile_mean == worst


def test_users_without_weight_are_left_out_and_nothing_at_all_is_refused() -> None:
    assert summarise(frame_of([(1, 2), (0, 0)])).users == 1
    with pytest.raises(ValueError, match="cannot summarise rows without weight"):
        summarise(frame_of([(0, 0)]))


def test_paired_difference_by_hand() -> None:
    """0.9, 0.5, 0.4 against 0.6, 0.5, 0.5: gaps 0.3, 0.0, -0.1, sample variance 0.13 / 3."""
    first = pd.Series([0.9, 0.5, 0.4, 1.0], index=["a", "b", "c", "only here"])
    second = pd.Series([0.5, 0.6, 0.5], index=["c", "a", "b"])
    gap = paired_difference(first, second)
    assert gap is not None
    assert gap.mean == pytest.approx(0.2 / 3)
    assert gap.standard_error == pytest.approx(math.sqrt(0.13 / 3 / 3))
    assert (gap.higher, gap.lower, gap.users) == (1, 1, 3)
    assert paired_difference(first, pd.Series([0.1], index=["nobody"])) is None


def test_rounds_are_followed_user_by_user() -> None:
    """Round 1: values 1.0 (of 10 prompts) and 0.0 (of 1): user mean 0.5, though 10 of 11 prompts are right."""
    curve = over_rounds(pd.concat([frame_of([(10, 10), (0, 1)]), frame_of([(1, 4), (0, 0)], round_=3)]))
    assert curve.index.tolist() == [1, 3]
    assert curve["mean"].tolist() == [0.5, 0.25]
    assert curve[["p10", "p90"]].to_numpy()[0].tolist() == pytest.approx([0.1, 0.9])
    assert curve["users"].tolist() == [2, 1]
