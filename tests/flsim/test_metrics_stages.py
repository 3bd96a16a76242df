"""Continual-learning measures, each against a number derived by hand."""

import numpy as np
import pandas as pd
import pytest

from flsim.metrics.rows import Row, rows_frame
from flsim.metrics.stages import anytime, by_user, continual, dip, recovery_rounds
from flsim.tasks.stream import Phase

# stage 1 teaches math, stage 2 code, stage 3 math again
R = pd.DataFrame([[0.6, 0.2], [0.4, 0.7], [0.5, 0.8]], columns=["math", "code"])
TAUGHT = [("math",), ("code",), ("math",)]
BEFORE = pd.Series({"math": 0.3, "code": 0.1})


def test_all_measures_by_hand() -> None:
    found = continual(R, TAUGHT, BEFORE)
    assert found.during_task == pytest.approx((0.6 + 0.7 + 0.5) / 3)
    assert found.post_switch == pytest.approx((0.4 + 0.8) / 2)  # math after stage 2, code after stage 3
    assert found.forgetting_max == pytest.approx(((0.6 - 0.5) + (0.7 - 0.8)) / 2)
    assert found.forgetting_learned == pytest.approx(((0.6 - 0.5) + (0.7 - 0.8)) / 2)
    assert found.forgetting_relative == pytest.approx(((0.6 - 0.4) / 0.6 + (0.7 - 0.8) / 0.7) / 2)
    assert found.backward_transfer == pytest.approx(((0.5 - 0.6) + (0.8 - 0.7)) / 2)
    assert found.forward_transfer == pytest.approx(0.2 - 0.1)  # code before stage 2, against the start
    assert found.plasticity == pytest.approx(((0.6 - 0.3) + (0.7 - 0.2) + (0.5 - 0.4)) / 3)


def test_the_best_and_the_first_differ() -> None:
    """Math 0.5 when taught, 0.9 later, 0.6 in the end: 0.3 below its best, 0.1 above when it was taught."""
    r = pd.DataFrame([[0.5, 0.0], [0.9, 0.5], [0.6, 0.5]], columns=["math", "code"])
    found = continual(r, [("math",), ("code",), ("code",)], BEFORE)
    assert found.forgetting_max == pytest.approx((0.3 + 0.0) / 2)
    assert found.forgetting_learned == pytest.approx((-0.1 + 0.0) / 2)


def test_one_stage_has_nothing_to_forget() -> None:
    found = continual(R.iloc[:1], TAUGHT[:1], BEFORE)
    assert found.during_task == 0.6
    assert all(np.isnan(value) for value in (found.post_switch, found.forgetting_max, found.backward_transfer))


def test_what_was_zero_has_no_relative_loss() -> None:
    r = pd.DataFrame([[0.0, 0.2], [0.0, 0.7]], columns=["math", "code"])
    assert np.isnan(continual(r, [("math",), ("code",)], BEFORE).forgetting_relative)


def test_measures_are_of_each_user() -> None:
    """User a is R, user b learns nothing and forgets nothing; round 5 ends no phase."""
    phases = [Phase(n, t, first, first + 1) for n, t, first in zip("ABA", TAUGHT, (1, 3, 5), strict=True)]
    rows = []
    for round_, line in zip((0, 2, 4, 6), ([0.3, 0.1], *R.to_numpy().tolist()), strict=True):
        for task, value in zip(R.columns, line, strict=True):
            rows.append(Row(round_, "a", task, "test", "global", "accuracy", value * 20, 20.0))
            rows.append(Row(round_, "b", task, "test", "global", "accuracy", 2.0, 4.0))
    rows.append(Row(5, "a", "math", "test", "global", "accuracy", 0.0, 20.0))
    found = by_user(rows_frame(rows), phases)
    assert found.loc["a", "during_task"] == pytest.approx(0.6)
    assert found.loc["a", "forward_transfer"] == pytest.approx(0.1)
    assert found.loc["b", ["during_task", "forgetting_max", "plasticity"]].to_numpy().tolist() == [0.5, 0.0, 0.0]


def test_anytime_by_hand() -> None:
    """Only math so far in rounds 1 and 2, both in round 3: (0.4 + 0.6 + (0.5 + 0.7) / 2) / 3."""
    curve = pd.DataFrame({"math": [0.4, 0.6, 0.5], "code": [0.1, 0.2, 0.7]}, index=[1, 2, 3])
    found = anytime(curve, lambda round_: ["math"] if round_ < 3 else ["math", "code"])
    assert found == pytest.approx((0.4 + 0.6 + 0.6) / 3)


CURVE = pd.Series([0.7, 0.8, 0.5, 0.6, 0.79, 0.9], index=[2, 4, 6, 8, 10, 12])


def test_a_dip_by_hand() -> None:
    """0.8 before the switch in round 5, 0.5 at worst."""
    assert dip(CURVE, 5, 12) == pytest.approx(0.3)
    assert dip(CURVE, 11, 12) == 0.0
    with pytest.raises(ValueError, match="needs a measurement before it"):
        dip(CURVE, 2, 12)


def test_a_recovery_by_hand() -> None:
    """Within 0.02 of 0.8 from round 10 on, which is the sixth round of the phase; up to round 8 it is not back."""
    assert recovery_rounds(CURVE, 5, 12) == 6
    assert recovery_rounds(CURVE, 5, 12, tolerance=0.001) == 8
    assert recovery_rounds(CURVE, 5, 8) is None
    assert recovery_rounds(CURVE, 11, 12) == 0
