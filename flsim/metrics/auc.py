"""AUC of one user, of two classes and of more, and over users: GAUC, with what users of one class leave out.

By hand, three users with 10, 20 and 70 items:

    user  items  AUC              by examples  (10 * 1.0 + 20 * 0.7) / 30 = 0.8
    a        10  1.0              uniform      (1.0 + 0.7) / 2            = 0.85
    b        20  0.7              left out     1 user of one class, with 70 / 100 of the items
    c        70  one class only
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class UserAuc:
    """User-level weighted AUC, also called GAUC (Zhou et al. 2018, arXiv 1706.06978, section 5.2)."""

    value: float
    """`sum_u w_u AUC_u / sum_u w_u` over users with both classes; nan if there is none, or their weights are not
    known."""
    dropped: float
    """Share of the weight of users with one class only, for whom there is no AUC; nan if weights are not known."""
    users: int
    """Users with an AUC."""
    one_class: int
    """Users with weight and without an AUC."""


def auc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Chance that a positive scores above a negative, ties counting half (Mann-Whitney); nan with one class only."""
    s, y = np.asarray(scores, dtype=float), np.asarray(labels, dtype=bool)
    positive, negative = s[y], s[~y]
    if not len(positive) or not len(negative):
        return float("nan")
    ranks = _ranks(np.concatenate([positive, negative]))
    wins = ranks[: len(positive)].sum() - len(positive) * (len(positive) + 1) / 2
    return float(wins / (len(positive) * len(negative)))


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """From 1 for the least, equal ones with the mean of theirs, `(n,)`; pandas has it, which no worker loads."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    found: NDArray[np.float64] = (counts.cumsum() - (counts - 1) / 2)[places]
    return found


def class_auc(chances: ArrayLike, labels: ArrayLike) -> float:
    """AUC of several classes: the mean over pairs of classes (Hand and Till 2001, their M; scikit-learn's ovo, macro).

    For classes i and j it is the mean of two AUCs among their items alone: how well the chance of i tells i from j, and
    that of j. How frequent a class is changes nothing, so users with other mixtures of classes compare. Pairs of which
    the user lacks a class are left out.

    Args:
        chances: of each class, `(N, C)`.
        labels: the classes, `(N,)`, in 0 to C - 1.

    Returns:
        nan with one class only.
    """
    p, y = np.asarray(chances, dtype=float), np.asarray(labels, dtype=int)  # (N, C), (N,)
    found = []
    for i, j in combinations(np.unique(y).tolist(), 2):
        of_both = (y == i) | (y == j)  # (N,)
        found.append((auc(p[of_both, i], y[of_both] == i) + auc(p[of_both, j], y[of_both] == j)) / 2)
    return float(np.mean(found)) if found else float("nan")


def over_users(values: ArrayLike, weights: ArrayLike) -> UserAuc:
    """User-level weighted AUC from AUCs that users have taken themselves.

    Laws: equal weights give the plain mean; one factor on all weights changes nothing.

    Args:
        values: AUC of each user; nan for a user with one class.
        weights: of each user, such as its number of items; users with weight 0 do not count at all, and nan is a
            weight that is not known.
    """
    value, weight = np.asarray(values, dtype=float), np.asarray(weights, dtype=float)  # (U,), (U,)
    known, counts = ~np.isnan(value), ~(weight == 0)
    total = weight.sum()
    mean = float(np.average(value[known], weights=weight[known])) if weight[known].sum() > 0 else float("nan")
    dropped = float(weight[~known].sum() / total) if total != 0 else 0.0
    return UserAuc(mean, dropped, int((known & counts).sum()), int((~known & counts).sum()))
