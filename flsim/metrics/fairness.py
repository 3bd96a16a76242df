"""How unequally a measure is spread over users, and who is worse off than before."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike


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


def _users(values: ArrayLike) -> np.ndarray:
    x = np.asarray(values, dtype=float)
    if not len(x) or (x < 0).any():
        raise ValueError("values must be of at least one user and at least 0; take errors or benefits that are")
    return x
