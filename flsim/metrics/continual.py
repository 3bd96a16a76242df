"""Continual-learning measures, all read from the accuracy matrix R.

`R[i, j]` is the mean user's value on task group j after stage i (Lopez-Paz and Ranzato 2017, arXiv 1706.08840;
forgetting: Chaudhry et al. 2018, arXiv 1801.10112). A stage is named by the round that ended it:

    round  arithmetic  strings
        6        0.60     0.20     after a phase on arithmetic
       12        0.40     0.70     after a phase on strings: arithmetic forgot 0.20
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from flsim.metrics.users import per_user


def accuracy_matrix(rows: pd.DataFrame, stages: Sequence[int], *, tasks: Sequence[str] | None = None) -> pd.DataFrame:
    """Build R from the evaluation rows of one model and one name.

    Args:
        rows: such as `evaluation(rows, model="global", name="accuracy")`.
        stages: the rounds that ended the stages, in order; round 0 may stand first as the start.
        tasks: task groups, in the order of the columns; None takes all in `rows`, sorted.

    Returns:
        User means, one line per stage and one column per task group; NaN where nothing was measured.
    """
    columns = sorted(rows["task"].unique()) if tasks is None else list(tasks)
    matrix = pd.DataFrame(np.nan, index=pd.Index(list(stages), name="round"), columns=columns, dtype=float)
    for (stage, task), cell in rows[rows["round"].isin(stages)].groupby(["round", "task"]):
        if task in columns:
            matrix.loc[stage, task] = float(per_user(cell).mean())
    return matrix


def forgetting(matrix: pd.DataFrame) -> pd.Series:
    """How far each task group has fallen from its best: `max_{l < T} R[l, j] - R[T, j]`, T the last stage.

    By hand: the values 0.6, 0.4, 0.5 give max(0.6, 0.4) - 0.5 = 0.1; 0.2, 0.7, 0.8 give 0.7 - 0.8 = -0.1 (it grew).

    Args:
        matrix: stages `(S, J)`, without the untrained start unless it is to count as a stage.

    Returns:
        Forgetting by task group; its mean is the usual single number. Groups that miss the last stage or all before
        it are left out, so one stage alone gives an empty series.
    """
    best = matrix.iloc[:-1].max(axis=0).to_numpy(dtype=float)  # (J,)
    final = matrix.iloc[-1].to_numpy(dtype=float)  # (J,)
    return pd.Series(best - final, index=matrix.columns).dropna()


def backward_transfer(matrix: pd.DataFrame, learned: Mapping[str, int]) -> pd.Series:
    """What later stages did to each task group: `R[T, j] - R[k_j, j]`, with k_j the stage that first taught j.

    By hand: arithmetic first taught at stage 6 with 0.6 and at 0.5 in the end gives -0.1.

    Args:
        matrix: stages `(S, J)`.
        learned: task group -> the round that ended the stage that first taught it; one of the matrix' lines.

    Returns:
        Backward transfer by task group; its mean is BWT. Groups first taught in the last stage, never taught or not
        measured are left out.
    """
    last = matrix.index[-1]
    taught = [task for task in matrix.columns if task in learned and learned[task] != last]
    values = matrix.T.to_dict()  # stage -> task group -> value
    changes = {task: values[last][task] - values[learned[task]][task] for task in taught}
    return pd.Series(changes, dtype=float).dropna()
