"""What switches of the stream do to a curve over rounds: how deep it dips, when it is back, and its mean all along."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd


def anytime(curve: pd.DataFrame, taught: Callable[[int], Sequence[str]]) -> float:
    """Mean over measured rounds of the mean accuracy over the tasks that were taught so far (Caccia et al. 2022).

    Args:
        curve: a line per measured round after 0, a column per task.
        taught: by round, the tasks that were taught up to it.

    Returns:
        nan if nothing was measured.
    """
    place = {name: column for column, name in enumerate(curve.columns)}
    means = []
    for round_, line in zip(curve.index, curve.to_numpy(dtype=float), strict=True):
        known = [line[place[name]] for name in taught(round_) if name in place and not np.isnan(line[place[name]])]
        if known:
            means.append(float(np.mean(known)))
    return float(np.mean(means)) if means else float("nan")


def dip(curve: pd.Series, switch: int, end: int) -> float:
    """How deep accuracy falls after a switch: the last value before it minus the least up to `end`, at least 0.

    Args:
        curve: accuracy on one task by measured round.
        switch: the first round of the new phase; there must be a value before it and one from it on.
        end: the last round that counts.

    Raises:
        ValueError: if nothing was measured on one of the two sides.
    """
    before, after = _around(curve, switch, end)
    return max(0.0, before - float(after.min()))


def recovery_rounds(curve: pd.Series, switch: int, end: int, *, tolerance: float = 0.02) -> int | None:
    """Rounds from a switch until accuracy is back for good, within `tolerance` of what it was before.

    Args:
        curve: accuracy on one task by measured round.
        switch: the first round of the new phase.
        end: the last round that counts.
        tolerance: in accuracy.

    Returns:
        0 if it never fell; None if it was not back at `end`.

    Raises:
        ValueError: as for `dip`.
    """
    before, after = _around(curve, switch, end)
    low = after[after < before - tolerance]
    if low.empty:
        return 0
    later = after[after.index > low.index[-1]]
    return None if later.empty else int(later.index[0]) - switch + 1


def _around(curve: pd.Series, switch: int, end: int) -> tuple[float, pd.Series]:
    earlier, after = curve[curve.index < switch], curve[(curve.index >= switch) & (curve.index <= end)]
    if earlier.empty or after.empty:
        raise ValueError(f"a switch at round {switch} needs a measurement before it and one up to round {end}")
    return float(earlier.iloc[-1]), after
