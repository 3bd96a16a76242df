"""AUC of a user and over users: laws, numbers by hand, and what scikit-learn says of each user."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from flsim.metrics.auc import auc, class_auc, over_users

USERS = st.lists(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), min_size=1, max_size=15), min_size=1, max_size=5
)
"""Items of users: a score with many ties, and a class."""


def test_auc_by_hand() -> None:
    """Positives 0.9 and 0.4, negatives 0.5 and 0.4: pairs won 1, 1, 0 and half: 2.5 of 4."""
    assert auc([0.9, 0.4, 0.5, 0.4], [1, 1, 0, 0]) == pytest.approx(0.625)
    assert np.isnan(auc([0.1, 0.2], [1, 1]))


@given(USERS)
def test_each_user_has_the_auc_of_scikit_learn_and_so_has_the_mean(users: list[list[tuple[int, int]]]) -> None:
    """GAUC is the mean of scikit-learn's by impressions; users of one class, which it refuses, are counted."""
    found, expected, items = [], [], []
    for own in users:
        scores, labels = [score for score, _ in own], [label > 0 for _, label in own]
        found.append(auc(scores, labels))
        items.append(len(own))
        expected.append(roc_auc_score(labels, scores) if len(set(labels)) == 2 else np.nan)
    assert found == pytest.approx(expected, nan_ok=True)
    whole, both = over_users(found, items), ~np.isnan(expected)
    assert (whole.users, whole.one_class) == (both.sum(), (~both).sum())
    assert whole.dropped == pytest.approx(np.array(items)[~both].sum() / sum(items))
    mean = np.average(np.array(expected)[both], weights=np.array(items)[both]) if both.any() else np.nan
    assert whole.value == pytest.approx(mean, nan_ok=True)


@given(st.integers(0, 1000), st.integers(6, 30))
def test_several_classes_are_as_scikit_learn_has_them(seed: int, items: int) -> None:
    """Rounded chances bring ties; scikit-learn needs every class, which the first three items see to."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([[0, 1, 2], rng.integers(0, 3, items - 3)])  # (N,)
    chances = rng.multinomial(10, [1 / 3] * 3, size=items) / 10  # (N, 3)
    assert class_auc(chances, labels) == pytest.approx(
        roc_auc_score(labels, chances, multi_class="ovo", average="macro")
    )


@given(st.integers(0, 1000))
def test_a_class_that_a_user_lacks_or_has_twice_as_often_changes_nothing(seed: int) -> None:
    """Of two classes left, the mean of both AUCs among them; copies of all items of a class move no pair."""
    rng = np.random.default_rng(seed)
    labels, chances = np.array([0, 0, 2, 2, 2]), rng.dirichlet([1, 1, 1], size=5)  # (N,), (N, 3)
    both = [roc_auc_score(labels == c, chances[:, c]) for c in (0, 2)]
    assert class_auc(chances, labels) == pytest.approx(np.mean(both))
    twice = np.concatenate([np.arange(5), [0, 1]])
    assert class_auc(chances[twice], labels[twice]) == pytest.approx(class_auc(chances, labels))


def test_user_auc_weighs_users_and_drops_those_of_one_class() -> None:
    """a: 4 items, AUC 1; b: 2 items, AUC 0; c: 2 items of one class. (4 * 1 + 2 * 0) / 6, and 2 of 8 dropped.

    Pooled over users it would be another number: scores of two users are not on one scale.
    """
    items = pd.DataFrame(
        {
            "device": list("aaaabbcc"),
            "score": [0.9, 0.8, 0.2, 0.1, 0.1, 0.9, 0.5, 0.6],
            "label": [1, 1, 0, 0, 1, 0, 1, 1],
        }
    )
    aucs = [auc(own["score"], own["label"]) for _, own in items.groupby("device")]
    found = over_users(aucs, [4, 2, 2])
    assert [found.value, found.dropped] == pytest.approx([4 / 6, 2 / 8])
    assert (found.users, found.one_class) == (2, 1)
    heavier = over_users(aucs, [4, 8, 4])
    assert [heavier.value, heavier.dropped] == pytest.approx([4 / 12, 4 / 16])


def test_the_page_s_numbers_by_hand() -> None:
    """10, 20 and 70 items with AUC 1, 0.7 and none: 0.8 by examples, 0.85 uniform; unknown weights give nan."""
    aucs = [1.0, 0.7, np.nan]
    assert over_users(aucs, [10, 20, 70]).value == pytest.approx(0.8)
    assert over_users(aucs, [10, 20, 70]).dropped == pytest.approx(0.7)
    assert over_users(aucs, [1, 1, 1]).value == pytest.approx(0.85)
    unknown = over_users(aucs, [np.nan] * 3)
    assert (np.isnan(unknown.value), np.isnan(unknown.dropped)) == (True, True)
    assert np.isnan(over_users([np.nan], [3]).value)
