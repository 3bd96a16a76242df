"""How a method's accuracy is spread over users: whose mean it is, who is worst off, how unequal, and who is harmed."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from flsim.metrics.fairness import UserAuc, gini, harm_rate, jain, over_users
from flsim.metrics.users import weighted_mean, worst_decile_mean

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
