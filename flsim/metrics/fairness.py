"""How unequally a measure is spread over users, and who is worse off than before."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from flsim.metrics.users import weighted_mean, worst_decile_mean


def gini(values: ArrayLike) -> float:
    """Gini coefficient `sum_ij |x_i - x_j| / (2 n^2 mean)`: 0 if all are equal, towards 1 if one has all.

    Args:
        values: of users, at least 0; accuracies near 1 hide differences, so take the error or a benefit then.

    Raises:
        ValueError: for no users, or negative values.
    """
    x = np.sort(_users(values))
    if not x.sum() > 0:
        return 0.0
    ranks = np.arange(1, len(x) + 1)
    return float((2 * ranks - len(x) - 1) @ x / (len(x) * x.sum()))


def jain(values: ArrayLike) -> float:
    """Jain's index `(sum x)^2 / (n sum x^2)`: 1 if all are equal, 1 / n if one has all (Jain et al. 1984)."""
    x = _users(values)
    squares = float(x @ x)
    return float(x.sum() ** 2 / (len(x) * squares)) if squares > 0 else 1.0


def harm_rate(after: pd.Series, before: pd.Series, *, tolerance: float = 0.0) -> float:
    """Share of users, among those in both, whose value fell by more than `tolerance`.

    Raises:
        ValueError: if no user is in both.
    """
    shared = after.index.intersection(before.index)
    if shared.empty:
        raise ValueError("no user is in both; compare runs on the same fleet")
    fell = before.loc[shared].to_numpy(dtype=float) - after.loc[shared].to_numpy(dtype=float) > tolerance + 1e-12
    return float(fell.mean())


@dataclass(frozen=True)
class UserAuc:
    """User-level weighted AUC, also called GAUC (Zhou et al. 2018, arXiv 1706.06978, section 5.2)."""

    value: float
    """`sum_u w_u AUC_u / sum_u w_u` over users with both classes; nan if there is none."""
    dropped: float
    """Share of the weight of users with one class only, for whom there is no AUC."""


def auc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Chance that a positive scores above a negative, ties counting half (Mann-Whitney); nan with one class only."""
    s, y = np.asarray(scores, dtype=float), np.asarray(labels, dtype=bool)
    positive, negative = s[y], s[~y]
    if not len(positive) or not len(negative):
        return float("nan")
    ranks = pd.Series(np.concatenate([positive, negative])).rank().to_numpy()
    wins = ranks[: len(positive)].sum() - len(positive) * (len(positive) + 1) / 2
    return float(wins / (len(positive) * len(negative)))


def user_auc(answers: pd.DataFrame) -> UserAuc:
    """User-level weighted AUC.

    Args:
        answers: a line per scored item, with the columns `device`, `score`, `label` (0 or 1) and, if items do not count
            alike, `weight`; a user's weight is the sum of its items'.
    """
    values, weights = [], []
    for _, own in answers.groupby("device", sort=True):
        values.append(auc(own["score"], own["label"]))
        weights.append(float(own["weight"].sum()) if "weight" in own else float(len(own)))
    return over_users(values, weights)


def over_users(values: ArrayLike, weights: ArrayLike) -> UserAuc:
    """User-level weighted AUC from AUCs that users have taken themselves.

    Args:
        values: AUC of each user; nan for a user with one class.
        weights: of each user, such as its number of items.
    """
    value, weight = np.asarray(values, dtype=float), np.asarray(weights, dtype=float)  # (U,), (U,)
    known = ~np.isnan(value)
    total = weight.sum()
    mean = float(np.average(value[known], weights=weight[known])) if weight[known].sum() > 0 else float("nan")
    return UserAuc(mean, float(weight[~known].sum() / total) if total > 0 else 0.0)


def _users(values: ArrayLike) -> np.ndarray:
    x = np.asarray(values, dtype=float)
    if not len(x) or (x < 0).any():
        raise ValueError("values must be of at least one user and at least 0; take errors or benefits that are")
    return x


# FOLDED flsim/metrics/fairness.py
# How a method's accuracy is spread over users: whose mean it is, who is worst off, how unequal, and who is
# harmed.

NAMES = (
    *("example_mean", "request_mean", "user_mean", "p10", "p50", "p90", "worst_decile_mean"),
    *("gini_of_error", "jain", "harm_rate", "weighted_auc", "weighted_auc_dropped"),
    *("weighted_task_auc", "weighted_task_auc_dropped"),
)


def spread(tables: Sequence[pd.DataFrame], before: Sequence[pd.Series]) -> dict[str, float]:
    """Mean over seeds of what each seed's users say.

    Args:
        tables: the users of each seed, with `accuracy`, `test_prompts`, `requests`, `asking_auc`, `task_auc` and
            `scored_prompts` (nan: not measured).
        before: what each user of the same seeds would have alone.

    Returns:
        By the names of `NAMES`; nan where it was not measured.
    """
    lines = [_of_seed(table, alone) for table, alone in zip(tables, before, strict=True)]
    return {name: _mean([line[name] for line in lines]) for name in NAMES}


def _of_seed(users: pd.DataFrame, alone: pd.Series) -> dict[str, float]:
    accuracy = users["accuracy"].dropna()
    if accuracy.empty:
        return dict.fromkeys(NAMES, float("nan"))
    values = accuracy.to_numpy(dtype=float)  # (U,)
    p10, p50, p90 = (float(value) for value in np.quantile(values, [0.1, 0.5, 0.9]))
    asking = _auc(users["asking_auc"], users["test_prompts"])
    task = _auc(users["task_auc"], users["scored_prompts"])
    return {
        "example_mean": _weighted(accuracy, users["test_prompts"]),
        "request_mean": _weighted(accuracy, users["requests"]),
        "user_mean": float(values.mean()),
        "p10": p10,
        "p50": p50,
        "p90": p90,
        "worst_decile_mean": worst_decile_mean(values),
        "gini_of_error": gini(np.maximum(1.0 - values, 0.0)),
        "jain": jain(values),
        "harm_rate": _or_nan(lambda: harm_rate(accuracy, alone.dropna())),
        "weighted_auc": asking.value,
        "weighted_auc_dropped": asking.dropped,
        "weighted_task_auc": task.value,
        "weighted_task_auc_dropped": task.dropped,
    }


def _auc(values: pd.Series, weights: pd.Series) -> UserAuc:
    """Over users; all nan where nobody has one."""
    return over_users(values, weights.fillna(0.0)) if values.notna().any() else UserAuc(float("nan"), float("nan"))


def _weighted(values: pd.Series, weights: pd.Series) -> float:
    given = {str(device): float(weight) for device, weight in weights.fillna(0.0).items()}
    return _or_nan(lambda: weighted_mean(values, given))


def _or_nan(take: Callable[[], float]) -> float:
    """Nan where a measure has nothing to stand on: no requests at all, or no user in common."""
    try:
        return take()
    except ValueError:
        return float("nan")


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
