"""Dips, recoveries and the mean all along, each against a number derived by hand."""

import pandas as pd
import pytest

from flsim.metrics.switches import anytime, dip, recovery_rounds


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
