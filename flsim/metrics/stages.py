"""Continual-learning measures of one learner, from the matrix R of its accuracies; every name says what it compares.

`R.loc[i, j]` is the accuracy on task group j at the end of stage i, a phase of the stream, and `before[j]` that before
the first stage. Stage i teaches the groups `taught[i]`. All measures are means over the (stage, group) pairs that they
need; nan if there are none. For a fleet take them user by user (`by_user`), then weigh users (`metrics/users.py`).

    stage  teaches    math  code        during_task          mean of 0.6 (math, stage 1) and 0.7 (code, stage 2)
        1  math        0.6   0.2        post_switch          0.4: math at the end of stage 2
        2  code        0.4   0.7        forgetting_relative  (0.6 - 0.4) / 0.6
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd

from flsim.tasks.stream import Phase


@dataclass(frozen=True)
class Continual:
    """All of them."""

    during_task: float
    """Accuracy on a stage's own groups at its end: mean of R[i, j], j in taught[i] (DA-GRPO's during-task accuracy)."""
    post_switch: float
    """Accuracy on the groups of a stage at the end of the next, where that does not teach them (DA-GRPO's)."""
    forgetting_max: float
    """Best earlier end of a stage minus the last: mean over groups of max_{i<T} R[i, j] - R[T, j] (Chaudhry 2018)."""
    forgetting_learned: float
    """When first taught minus the last: mean of R[k_j, j] - R[T, j], minus backward transfer (Avalanche's)."""
    forgetting_relative: float
    """Share of it lost by the next stage: mean of (R[i, j] - R[i+1, j]) / R[i, j], j taught in i and not in i+1
    (DA-GRPO's); pairs with R[i, j] = 0 are left out."""
    backward_transfer: float
    """Mean of R[T, j] - R[k_j, j] over groups first taught before the last stage (Lopez-Paz and Ranzato 2017)."""
    forward_transfer: float
    """What earlier stages did to a group not taught yet: mean of R[k_j - 1, j] - before[j] (the same)."""
    plasticity: float
    """What a stage adds to its own groups: mean of R[i, j] - R[i-1, j], R[0] being `before`."""


def continual(matrix: pd.DataFrame, taught: Sequence[Sequence[str]], before: pd.Series) -> Continual:
    """The measures of one learner.

    Args:
        matrix: R, a line per stage in order, a column per task group; nan where nothing was measured.
        taught: the groups that each stage teaches.
        before: accuracy by group before the first stage.
    """
    r = np.vstack([before.reindex(matrix.columns).to_numpy(dtype=float), matrix.to_numpy(dtype=float)])  # (S + 1, J)
    stages, last = range(1, len(r)), len(r) - 1
    own = [(i, j) for i in stages for j, name in enumerate(matrix.columns) if name in taught[i - 1]]
    left = [(i, j) for i, j in own if i < last and matrix.columns[j] not in taught[i]]
    first = {j: min(i for i, other in own if other == j) for j in {j for _, j in own}}
    old = [(k, j) for j, k in first.items() if k < last]
    return Continual(
        during_task=_mean(r[i, j] for i, j in own),
        post_switch=_mean(r[i + 1, j] for i, j in left),
        forgetting_max=_mean(max(r[1:last, j]) - r[last, j] for j in range(r.shape[1]) if last > 1),
        forgetting_learned=_mean(r[k, j] - r[last, j] for k, j in old),
        forgetting_relative=_mean((r[i, j] - r[i + 1, j]) / r[i, j] for i, j in left if r[i, j] > 0),
        backward_transfer=_mean(r[last, j] - r[k, j] for k, j in old),
        forward_transfer=_mean(r[k - 1, j] - r[0, j] for j, k in first.items() if k > 1),
        plasticity=_mean(r[i, j] - r[i - 1, j] for i, j in own),
    )


def by_user(rows: pd.DataFrame, phases: Sequence[Phase]) -> pd.DataFrame:
    """The measures of every device.

    Args:
        rows: evaluation rows of one model and one name, such as `evaluation(rows, model="global", name="accuracy")`;
            rounds that end no phase are not looked at, round 0 is before the first.
        phases: of the stream.

    Returns:
        A line per device, a column per measure.
    """
    ends = [phase.last_round for phase in phases]
    taught = [phase.tasks for phase in phases]
    lines = {}
    for device, own in rows[rows["round"].isin([0, *ends])].groupby("device", sort=True):
        sums = own.groupby(["round", "task"])[["total", "weight"]].sum()
        values = (sums["total"] / sums["weight"].where(sums["weight"] > 0)).unstack("task")
        found = continual(values.reindex(ends), taught, values.reindex([0]).iloc[0])
        lines[device] = {field.name: getattr(found, field.name) for field in fields(found)}
    return pd.DataFrame.from_dict(lines, orient="index", columns=[field.name for field in fields(Continual)])


def anytime(curve: pd.DataFrame, taught: Callable[[int], Sequence[str]]) -> float:
    """Mean over measured rounds of the mean accuracy over the groups that were taught so far (Caccia et al. 2022).

    Args:
        curve: a line per measured round after 0, a column per group.
        taught: by round, the groups that were taught up to it.
    """
    return _mean(curve.loc[round_, list(taught(round_))].mean() for round_ in curve.index)


def dip(curve: pd.Series, switch: int, end: int) -> float:
    """How deep accuracy falls after a switch: the last value before it minus the least up to `end`, at least 0.

    Args:
        curve: accuracy on one group by measured round.
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
        curve: accuracy on one group by measured round.
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


def _mean(values: object) -> float:
    known = [float(value) for value in values if not np.isnan(value)]  # type: ignore[attr-defined]
    return float(np.mean(known)) if known else float("nan")
