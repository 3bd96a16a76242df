"""Accuracy matrix, forgetting, transfer and the measures of each user, all on numbers derived by hand."""

import numpy as np
import pandas as pd
import pytest

from flsim.metrics.continual import (
    accuracy_matrix,
    backward_transfer,
    by_user,
    continual,
    forgetting,
    lost_by_aggregation,
)
from flsim.metrics.rows import Row, rows_frame
from flsim.tasks.stream import Phase

# After rounds 2, 4 and 6; the phases taught arithmetic, strings and arithmetic.
MATRIX = pd.DataFrame([[0.6, 0.2], [0.4, 0.7], [0.5, 0.8]], index=[2, 4, 6], columns=["arithmetic", "strings"])


def cell(round_: int, device: str, task: str, total: float, weight: float) -> Row:
    return Row(round_, device, task, "test", "global", "accuracy", total, weight)


def test_matrix_counts_users_not_prompts_and_leaves_gaps() -> None:
    """Arithmetic after round 2: 9/10 and 1/2 give (0.9 + 0.5) / 2 = 0.7, not 10/12; strings were not measured then."""
    rows = rows_frame(
        [
            cell(2, "device-000", "arithmetic", 9, 10),
            cell(2, "device-001", "arithmetic", 1, 2),
            cell(3, "device-000", "arithmetic", 0, 10),
            cell(4, "device-000", "strings", 1, 4),
            cell(4, "device-000", "arithmetic", 6, 10),
        ]
    )
    matrix = accuracy_matrix(rows, [2, 4], tasks=["strings", "arithmetic"])
    assert matrix.columns.tolist() == ["strings", "arithmetic"]
    assert matrix.index.tolist() == [2, 4]
    assert matrix.to_numpy() == pytest.approx(np.array([[np.nan, 0.7], [0.25, 0.6]]), nan_ok=True)
    assert accuracy_matrix(rows, [2]).columns.tolist() == ["arithmetic", "strings"]


def test_forgetting_by_hand() -> None:
    """Arithmetic: max(0.6, 0.4) - 0.5 = 0.1; strings: max(0.2, 0.7) - 0.8 = -0.1."""
    assert forgetting(MATRIX).to_dict() == pytest.approx({"arithmetic": 0.1, "strings": -0.1})
    assert forgetting(MATRIX.iloc[:2]).to_dict() == pytest.approx({"arithmetic": 0.2, "strings": -0.5})


def test_forgetting_needs_a_past_and_a_present() -> None:
    assert forgetting(MATRIX.iloc[:1]).empty
    gaps = MATRIX.copy()
    gaps.loc[6, "strings"] = np.nan
    assert forgetting(gaps).index.tolist() == ["arithmetic"]


def test_backward_transfer_by_hand() -> None:
    """Arithmetic: 0.5 - 0.6 = -0.1; strings: 0.8 - 0.7 = 0.1; a group first taught in the last stage does not count."""
    transfer = backward_transfer(MATRIX, {"arithmetic": 2, "strings": 4})
    assert transfer.to_dict() == pytest.approx({"arithmetic": -0.1, "strings": 0.1})
    assert backward_transfer(MATRIX, {"arithmetic": 2, "strings": 6}).index.tolist() == ["arithmetic"]


def test_nothing_changes_without_learning() -> None:
    still = pd.DataFrame(0.3, index=[2, 4, 6], columns=["arithmetic", "strings"])
    assert forgetting(still).to_dict() == {"arithmetic": 0.0, "strings": 0.0}
    assert backward_transfer(still, {"arithmetic": 2, "strings": 4}).to_dict() == {"arithmetic": 0.0, "strings": 0.0}


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


def test_lost_by_aggregation_by_hand() -> None:
    """Math 0.8 - 0.7 in stage 1, code 0.6 - 0.7 in stage 2; math in stage 2 is not its own, stage 3 has no local."""
    merged = pd.DataFrame([[0.7, 0.0], [0.0, 0.7], [0.5, 0.5]], columns=["math", "code"])
    local = pd.DataFrame([[0.8, 0.9], [0.9, 0.6], [np.nan, 0.0]], columns=["math", "code"])
    assert lost_by_aggregation(local, merged, TAUGHT) == pytest.approx(0.0)
    assert lost_by_aggregation(local.iloc[:1], merged.iloc[:1], TAUGHT[:1]) == pytest.approx(0.1)
    assert np.isnan(lost_by_aggregation(local.iloc[2:], merged.iloc[2:], TAUGHT[2:]))
