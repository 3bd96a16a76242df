"""Pairs by user: laws, numbers by hand; and the Pareto front of accuracy against spend."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flsim.comparison.figures import front_of
from flsim.comparison.pairing import Hurt, Pair, differences, pair
from flsim.metrics.measured import measure
from flsim.metrics.rows import Row, rows_frame
from flsim.metrics.run_rows import RunRows

SEEDS = [(0, 0), (1, 1)]
VALUES = st.lists(st.integers(0, 10), min_size=8, max_size=8)


def table(values: list[float], names: str = "abcd") -> pd.DataFrame:
    return pd.DataFrame({"accuracy": values}, index=list(names)[: len(values)])


def paired(one: list[pd.DataFrame], other: list[pd.DataFrame]) -> Pair:
    found = pair(("new", "old"), one, other, SEEDS, measure="accuracy")
    assert found is not None
    return found


@settings(max_examples=15)
@given(first=VALUES, second=VALUES)
def test_the_other_way_round_all_is_reversed(first: list[int], second: list[int]) -> None:
    one, other = ([table([n / 10 for n in half]) for half in (v[:4], v[4:])] for v in (first, second))
    there, back = paired(one, other), paired(other, one)
    assert back.difference.mean == pytest.approx(-there.difference.mean)
    assert (back.difference.low, back.difference.high) == pytest.approx((-there.difference.high, -there.difference.low))
    assert there.win_rate + back.win_rate == pytest.approx(1.0)
    ties = there.pairs - len(there.hurt) - len(back.hurt)
    assert ties == sum(x == y for x, y in zip(first, second, strict=True))
    assert there.win_rate == pytest.approx((len(back.hurt) + ties / 2) / 8)


def test_by_hand() -> None:
    """Seed 0: +0.2, 0, -0.1; seed 1: b is in one table only, a has lost 0.3, c is not known."""
    one = [table([0.6, 0.5, 0.2]), pd.DataFrame({"accuracy": [0.4, np.nan]}, index=["a", "c"])]
    other = [table([0.4, 0.5, 0.3]), table([0.7, 0.1, 0.2])]
    found = paired(one, other)
    assert found.hurt == (Hurt((1, 1), "a", 0.4, 0.7), Hurt((0, 0), "c", 0.2, 0.3))
    assert (found.pairs, found.win_rate) == (4, 1.5 / 4)
    assert found.difference.mean == pytest.approx((0.1 / 3 - 0.3) / 2)
    assert differences(one, other)["accuracy"] == found.difference
    unknown = [table([np.nan] * 3)] * 2
    assert pair(("new", "old"), unknown, other, SEEDS, measure="accuracy") is None


def test_no_user_in_common_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one user in each"):
        differences([table([0.1], "a")], [table([0.1], "b")])


def test_the_front_holds_what_none_beats_for_as_little() -> None:
    assert front_of([(3, 0.7), (2, 0.4), (1, 0.5), (2, 0.7), (5, 0.9)]) == [(1, 0.5), (2, 0.7), (5, 0.9)]
    assert front_of([]) == []


def facts_of(calls: float, aucs: dict[str, float], before: dict[str, float]) -> dict[str, float]:
    """a is right on 9 of 10 prompts, b on 15 of 30; b alone asks, and `aucs` are their own AUCs."""
    rows = [Row(1, "a", "arithmetic", "test", "global", "accuracy", 9.0, 10.0)]
    rows += [Row(1, "b", "arithmetic", "test", "global", "accuracy", 15.0, 30.0)]
    rows += [Row(1, "a", "all", "train", "own", "cloud_calls", 0.0, 1.0)]
    rows += [Row(1, "b", "all", "train", "own", "cloud_calls", calls, 1.0)]
    rows += [Row(1, device, "all", "test", "global", "asking_auc", value, 1.0) for device, value in aucs.items()]
    return measure(RunRows(rows_frame(rows), (), 0.3, pd.Series(before, dtype=float))).facts


def test_weights_of_users_by_hand() -> None:
    """0.9 of 10 prompts and 0.5 of 30: 0.7 by users, 0.6 by examples; all requests are of the second."""
    found = facts_of(4, {"b": 0.75}, {"a": 0.95, "b": 0.5})
    assert [found[f"{name}_mean"] for name in ("user", "example", "request")] == pytest.approx([0.7, 0.6, 0.5])
    assert (found["harm_rate"], found["weighted_auc"], found["weighted_auc_dropped"]) == (0.5, 0.75, 0.25)
    both = facts_of(4, {"a": 0.55, "b": 0.75}, {"a": 0.9, "b": 0.5})
    assert both["weighted_auc"] == pytest.approx((10 * 0.55 + 30 * 0.75) / 40)
    found = facts_of(0, {}, {})
    assert all(np.isnan(found[name]) for name in ("request_mean", "harm_rate", "weighted_auc", "weighted_auc_dropped"))
