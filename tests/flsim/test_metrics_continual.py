"""Accuracy matrix, forgetting and backward transfer, each on numbers derived by hand."""

import numpy as np
import pandas as pd
import pytest

from flsim.metrics.continual import accuracy_matrix, backward_transfer, forgetting
from flsim.metrics.rows import Row, rows_frame

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
