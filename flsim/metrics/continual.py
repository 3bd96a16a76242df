"""Continual-learning measures, all read from the accuracy matrix R; every name says what it compares.

`R.loc[i, j]` is the accuracy on task j at the end of phase i, a phase of the stream, named by its last round, and
`before[j]` that before the first phase (Lopez-Paz and Ranzato 2017, arXiv 1706.08840). Phase i teaches the tasks
`taught[i]`. R is of the mean user (`accuracy_matrix`) or of one user (`by_user`). By hand:

    round  teaches        math  code    during_task          mean of 0.6 (math, phase 1) and 0.7 (code, phase 2)
        6  math            0.6   0.2    post_switch          0.4: math at the end of phase 2
       12  code            0.4   0.7    forgetting           math 0.6 - 0.4, code 0.2 - 0.7
                                        forgetting_relative  (0.6 - 0.4) / 0.6
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd

from flsim.metrics.users import per_user
from flsim.tasks.stream import Phase


@dataclass(frozen=True)
class Continual:
    """The measures of one learner: each a mean over the (phase, task) pairs that it needs, nan if there are none."""

    during_task: float
    """Accuracy on a phase's own tasks at its end: mean of R[i, j], j in taught[i] (DA-GRPO's during-task accuracy)."""
    post_switch: float
    """Accuracy on the tasks of a phase at the end of the next, where that does not teach them (DA-GRPO's)."""
    forgetting_max: float
    """Best earlier end of a phase minus the last: mean of `forgetting` over tasks (Chaudhry 2018)."""
    forgetting_learned: float
    """When first taught minus the last: minus backward transfer (Avalanche's forgetting)."""
    forgetting_relative: float
    """Share of it lost by the next phase: mean of (R[i, j] - R[i+1, j]) / R[i, j], j taught in i and not in i+1
    (DA-GRPO's); pairs with R[i, j] = 0 are left out."""
    backward_transfer: float
    """What later phases did to a task: mean of `backward_transfer` over tasks (Lopez-Paz and Ranzato 2017)."""
    forward_transfer: float
    """What earlier phases did to a task not taught yet: mean of R[k_j - 1, j] - before[j] (the same)."""
    plasticity: float
    """What a phase adds to its own tasks: mean of R[i, j] - R[i-1, j], R[0] being `before`."""


def accuracy_matrix(rows: pd.DataFrame, phases: Sequence[int], *, tasks: Sequence[str] | None = None) -> pd.DataFrame:
    """Build R of the mean user from the evaluation rows of one model and one name.

    Args:
        rows: such as `evaluation(rows, model="global", name="accuracy")`.
        phases: the rounds that ended the phases, in order; round 0 may stand first as the start.
        tasks: tasks, in the order of the columns; None takes all in `rows`, sorted.

    Returns:
        User means, one line per phase and one column per task; NaN where nothing was measured.
    """
    columns = sorted(rows["task"].unique()) if tasks is None else list(tasks)
    matrix = pd.DataFrame(np.nan, index=pd.Index(list(phases), name="round"), columns=columns, dtype=float)
    for (phase, task), cell in rows[rows["round"].isin(phases)].groupby(["round", "task"]):
        if task in columns:
            matrix.loc[phase, task] = float(per_user(cell).mean())
    return matrix


def user_matrices(rows: pd.DataFrame, phases: Sequence[int]) -> dict[str, pd.DataFrame]:
    """R of every device, from the same rows: a line per phase, a column per task, nan where nothing was measured.

    Args:
        rows: as for `accuracy_matrix`.
        phases: as for `accuracy_matrix`; other rounds are not looked at.
    """
    sums = rows[rows["round"].isin(phases)].groupby(["device", "round", "task"])[["total", "weight"]].sum()
    values = (sums["total"] / sums["weight"].where(sums["weight"] > 0)).unstack("task")
    devices, index = values.index.unique("device"), pd.Index(list(phases), name="round")
    lines = values.reindex(pd.MultiIndex.from_product([devices, index])).to_numpy(dtype=float)
    of_all = lines.reshape(len(devices), len(index), len(values.columns))  # (U, S, J)
    return {str(name): pd.DataFrame(r, index, values.columns) for name, r in zip(devices, of_all, strict=True)}


def forgetting(matrix: pd.DataFrame) -> pd.Series:
    """How far each task has fallen from its best: `max_{l < T} R[l, j] - R[T, j]` (Chaudhry 2018, arXiv 1801.10112).

    By hand: the values 0.6, 0.4, 0.5 give max(0.6, 0.4) - 0.5 = 0.1; 0.2, 0.7, 0.8 give 0.7 - 0.8 = -0.1 (it grew).

    Args:
        matrix: phases `(S, J)`, without the untrained start unless it is to count as a phase; T is the last.

    Returns:
        Forgetting by task; its mean is the usual single number. Tasks that miss the last phase or all before
        it are left out, so one phase alone gives an empty series.
    """
    best = matrix.iloc[:-1].max(axis=0).to_numpy(dtype=float)  # (J,)
    final = matrix.iloc[-1].to_numpy(dtype=float)  # (J,)
    return pd.Series(best - final, index=matrix.columns).dropna()


def backward_transfer(matrix: pd.DataFrame, learned: Mapping[str, int]) -> pd.Series:
    """What later phases did to each task: `R[T, j] - R[k_j, j]`, with k_j the phase that first taught j.

    By hand: arithmetic first taught at phase 6 with 0.6 and at 0.5 in the end gives -0.1.

    Args:
        matrix: phases `(S, J)`.
        learned: task -> the round that ended the phase that first taught it; one of the matrix' lines.

    Returns:
        Backward transfer by task; its mean is BWT. Tasks first taught in the last phase, never taught or not
        measured are left out.
    """
    last = matrix.index[-1]
    taught = [task for task in matrix.columns if task in learned and learned[task] != last]
    values = matrix.T.to_dict()  # phase -> task -> value
    changes = {task: values[last][task] - values[learned[task]][task] for task in taught}
    return pd.Series(changes, dtype=float).dropna()


def continual(matrix: pd.DataFrame, taught: Sequence[Sequence[str]], before: pd.Series) -> Continual:
    """The measures of one learner.

    Args:
        matrix: R, a line per phase in order, a column per task; nan where nothing was measured.
        taught: the tasks that each phase teaches.
        before: accuracy by task before the first phase.
    """
    r = np.vstack([before.reindex(matrix.columns).to_numpy(dtype=float), matrix.to_numpy(dtype=float)])  # (S + 1, J)
    phases, last = range(1, len(r)), len(r) - 1
    own = [(i, j) for i in phases for j, name in enumerate(matrix.columns) if name in taught[i - 1]]
    left = [(i, j) for i, j in own if i < last and matrix.columns[j] not in taught[i]]
    first = {j: min(i for i, other in own if other == j) for j in {j for _, j in own}}
    learned = {str(matrix.columns[j]): matrix.index[i - 1] for j, i in first.items()}
    transfer = _mean(backward_transfer(matrix, learned))
    return Continual(
        during_task=_mean(r[i, j] for i, j in own),
        post_switch=_mean(r[i + 1, j] for i, j in left),
        forgetting_max=_mean(forgetting(matrix)),
        forgetting_learned=-transfer,
        forgetting_relative=_mean((r[i, j] - r[i + 1, j]) / r[i, j] for i, j in left if r[i, j] > 0),
        backward_transfer=transfer,
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
    taught = [phase.tasks for phase in phases]
    lines = {}
    for device, matrix in user_matrices(rows, [0, *(phase.last_round for phase in phases)]).items():
        found = continual(matrix.iloc[1:], taught, matrix.iloc[0])
        lines[device] = {field.name: getattr(found, field.name) for field in fields(found)}
    return pd.DataFrame.from_dict(lines, orient="index", columns=[field.name for field in fields(Continual)])


def lost_by_aggregation(own: pd.DataFrame, merged: pd.DataFrame, taught: Sequence[Sequence[str]]) -> float:
    """What the server's aggregation takes of what a device has just learned, beside what is forgotten over time.

    Mean of `L[i, j] - G[i, j]` over phases i and their own tasks j: L is R of the device's own adapter after its
    steps, G that of the adapter it is sent right after, both on the same tests in the same round. Negative if the
    others' updates help. What is forgotten over time is `forgetting` of the global adapter. By hand: 0.8 before the
    merge and 0.7 after it in phase 1, 0.6 and 0.7 in phase 2, give (0.1 - 0.1) / 2 = 0.

    Args:
        own: L, a line per phase, a column per task; nan where the device was not in the phase's last cohort.
        merged: G, with the same lines.
        taught: the tasks that each phase teaches.

    Returns:
        nan if no pair was measured.
    """
    if not own.columns.equals(merged.columns):
        own, merged = own.align(merged, axis=1)
    gaps = own.to_numpy(dtype=float) - merged.to_numpy(dtype=float)  # (S, J)
    place = {name: j for j, name in enumerate(own.columns)}
    return _mean(gaps[i, place[name]] for i, names in enumerate(taught[: len(gaps)]) for name in names if name in place)


def _mean(values: Iterable[float]) -> float:
    known = [float(value) for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
