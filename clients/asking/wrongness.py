"""Learn from a few dozen labelled texts how likely a device is to be wrong: character n-grams, logistic regression."""

from collections.abc import Callable, Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from clients.asking.rule import Flags, Scores

Wrongness = Callable[[Sequence[str], Scores], Scores]
"""The chance `(N,)` that a device is wrong, from N texts and F numbers beside each, `(N, F)`."""


def learn_wrongness(texts: Sequence[str], numbers: Scores, wrong: Flags, *, c: float) -> Wrongness:
    """Fit TF-IDF of 1- to 3-grams and standardised numbers; labels all alike give their share as a constant.

    Args:
        texts: N of them.
        numbers: beside each text, `(N, F)`; F may be 0.
        wrong: the labels, `(N,)`.
        c: inverse weight of the ridge penalty (scikit-learn's `C`).
    """
    if len(set(wrong.tolist())) < 2:
        share = float(wrong.mean()) if len(wrong) else 0.0
        return lambda texts, numbers: np.full(len(texts), share)
    grams = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), lowercase=False).fit(texts)
    scale = StandardScaler().fit(numbers) if numbers.shape[1] else None

    def features(texts: Sequence[str], numbers: Scores) -> Scores:
        beside = numbers if scale is None else scale.transform(numbers)  # (N, F)
        return np.hstack([grams.transform(texts).toarray(), beside])  # (N, grams + F)

    model = LogisticRegression(C=c, max_iter=1000).fit(features(texts, numbers), wrong)

    def chance(texts: Sequence[str], numbers: Scores) -> Scores:
        found: Scores = model.predict_proba(features(texts, numbers))[:, 1]  # (N,)
        return found

    return chance


def positive(c: float) -> None:
    """Refuse a penalty that cannot be fitted.

    Raises:
        ValueError: unless `c` is a finite number above 0.
    """
    if not (isinstance(c, int | float) and 0 < c < np.inf):
        raise ValueError(f"c={c!r} must be above 0 and finite: the smaller, the stronger the penalty; 1 is usual")
