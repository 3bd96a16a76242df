"""Weightings of users: laws, then numbers by hand, and that a sample stands for all that a user has."""

from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flsim.config.schema import ConfigError
from flsim.metrics.formulas import auc_over_users
from flsim.metrics.measured import measure
from flsim.metrics.rows import USER, Row, evaluation, rows_frame
from flsim.metrics.run_rows import RunRows
from flsim.metrics.users import per_user, summarise
from flsim.metrics.weighting import EXAMPLES, REQUESTS, TRAFFIC, UNIFORM, WEIGHTINGS, mean_by, weighting_of
from flsim.tasks.stream import Phase

PHASES = (Phase("A", ("films",), 1, 2),)
USERS = st.lists(st.tuples(st.integers(0, 8), st.integers(1, 9)), min_size=1, max_size=12)
"""Eighths of accuracy, and a weight."""


def verdicts(device: str, name: str, total: float, weight: float, *, task: str = "films") -> Row:
    return Row(2, device, task, "test", "global", name, total, weight)


def held(device: str, items: float, of: float, *, task: str = "films") -> Row:
    return Row(0, device, task, USER, USER, "test_items", items, of)


def brought(device: str, prompts: float) -> Row:
    return Row(0, device, "all", USER, USER, "traffic", prompts, 2.0)


def asked(device: str, calls: float) -> Row:
    return Row(1, device, "all", "train", "own", "cloud_calls", calls, 1.0)


def run_of(*rows: Row) -> RunRows:
    return RunRows(rows_frame(rows), PHASES, tau=0.3)


HAND = run_of(
    *(held("a", 300, 20), held("b", 7, 7), held("c", 20, 20)),
    *(verdicts("a", "accuracy", 18, 20), verdicts("b", "accuracy", 3.5, 7), verdicts("c", "accuracy", 0, 20)),
    *(brought("a", 100), brought("b", 50), brought("c", 50)),
    *(asked("a", 0), asked("b", 30), asked("c", 10)),
)
"""The example that opens `flsim/metrics/weighting.py`."""


def test_the_example_of_the_file_by_hand() -> None:
    """273.5 of 327, 115 of 200, 15 of 40 and 1.4 of 3; percentiles are of users, whatever they weigh."""
    rows = evaluation(HAND.rows, model="global", name="accuracy")
    found = summarise(rows, traffic=HAND.traffic, requests=HAND.requests)
    means = [found.example_mean, found.traffic_mean, found.request_mean, found.user_mean]
    assert means == pytest.approx([273.5 / 327, 0.575, 0.375, 1.4 / 3])
    assert (found.p50, found.worst_decile_mean) == (0.5, 0.0)
    facts = measure(HAND).facts
    assert [facts[f"{kind}_mean"] for kind in ("example", "traffic", "request", "user")] == pytest.approx(means)


def test_a_table_says_how_many_items_a_user_has_and_how_many_are_tested() -> None:
    users = measure(HAND).users
    assert users["test_items"].tolist() == [300, 7, 20]
    assert users["test_prompts"].tolist() == [20, 7, 20]
    assert users["traffic"].tolist() == [100, 50, 50]


@settings(deadline=None, max_examples=40)
@given(USERS)
def test_with_equal_weights_all_weightings_agree(users: list[tuple[int, int]]) -> None:
    """Whatever the common weight, and however few of the items are tested."""
    rows = []
    for number, (eighths, _) in enumerate(users):
        name = f"device-{number:03d}"
        rows += [held(name, 40, 8), verdicts(name, "accuracy", eighths, 8), brought(name, 9), asked(name, 3)]
    run = run_of(*rows)
    means = [mean_by(run.accuracy, run.user_weights(weighting)) for weighting in WEIGHTINGS.values()]
    assert means == pytest.approx([run.accuracy.mean()] * 4)


@settings(deadline=None, max_examples=40)
@given(USERS, st.sampled_from([0.25, 2.0, 64.0]))
def test_scaling_all_weights_or_splitting_a_users_rows_changes_nothing(
    users: list[tuple[int, int]], factor: float
) -> None:
    values = pd.Series([eighths / 8 for eighths, _ in users])
    weights = pd.Series([float(weight) for _, weight in users])
    assert mean_by(values, factor * weights) == pytest.approx(mean_by(values, weights))
    whole, parts = [], []
    for number, (eighths, weight) in enumerate(users):
        name = f"device-{number:03d}"
        whole += [held(name, 8 * weight, 8), verdicts(name, "accuracy", eighths, 8)]
        parts += [held(name, 8 * weight, 8), *[verdicts(name, "accuracy", eighths / 2, 4)] * 2]
    one, other = (evaluation(rows_frame(rows), model="global", name="accuracy") for rows in (whole, parts))
    assert vars(summarise(one)) == pytest.approx(vars(summarise(other)), nan_ok=True)


@settings(deadline=None, max_examples=40)
@given(USERS)
def test_means_by_a_weight_are_those_of_copies(users: list[tuple[int, int]]) -> None:
    """A user of weight 3 counts as three users of weight 1 do."""
    copies = [eighths / 8 for eighths, weight in users for _ in range(weight)]
    values, weights = pd.Series([eighths / 8 for eighths, _ in users]), pd.Series([float(w) for _, w in users])
    assert mean_by(values, weights) == pytest.approx(np.mean(copies))


def test_what_nobody_knows_has_no_mean() -> None:
    values = pd.Series({"a": 0.5, "b": 1.0})
    assert mean_by(values, None) is None
    assert mean_by(values, pd.Series({"a": 0.0, "b": 0.0})) is None
    assert mean_by(values, pd.Series({"b": 2.0})) == 1.0
    old = run_of(verdicts("a", "accuracy", 1, 2), verdicts("b", "accuracy", 3, 4))
    assert (old.user_weights(TRAFFIC), old.user_weights(REQUESTS)) == (None, None)
    assert mean_by(old.accuracy, old.user_weights(EXAMPLES)) == pytest.approx(4 / 6)
    facts = measure(old).facts
    assert (facts["example_mean"], facts["user_mean"]) == pytest.approx((4 / 6, 0.625))
    assert np.isnan(facts["traffic_mean"])


def test_a_sample_that_keeps_the_true_weights_is_unbiased() -> None:
    """Over all pairs of a's 4 items and all of b's 3 that could be drawn: the mean by examples is that of all items.

    a is right on 3 of 4 and b on 1 of 3: 4 of 7. Without the weights it would not be: (3/4 * 2 + 1/3 * 1) / 3.
    """
    values, bare = [], []
    for some, one in product(combinations((1, 1, 0, 1), 2), (0, 1, 0)):
        rows = rows_frame(
            [
                *(held("a", 4, 2), held("b", 3, 1)),
                *(verdicts("a", "accuracy", sum(some), 2), verdicts("b", "accuracy", one, 1)),
            ]
        )
        found = evaluation(rows, model="global", name="accuracy")
        assert found["weight"].tolist() == [4.0, 3.0]
        values.append([summarise(found).example_mean, *per_user(found)])
        bare.append(rows.loc[rows["name"] == "accuracy", "total"].sum() / 3)
    assert np.mean(values, axis=0) == pytest.approx([4 / 7, 3 / 4, 1 / 3])
    assert np.mean(bare) == pytest.approx((1.5 + 1 / 3) / 3)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2), st.integers(1, 5), st.integers(1, 5)), min_size=1))
def test_what_a_sample_stands_for_changes_no_users_own_value(users: list[tuple[int, int, int, int]]) -> None:
    """A user weighs its tasks as it is tested on them, 4 of films and 2 of lists; its weight is of all its items."""
    rows = []
    for number, (films, lists, times, more) in enumerate(users):
        name = f"device-{number:03d}"
        rows += [held(name, 4 * times, 4), held(name, 2 * more, 2, task="lists")]
        rows += [verdicts(name, "accuracy", films, 4), verdicts(name, "accuracy", lists, 2, task="lists")]
    frame = rows_frame(rows)
    found = evaluation(frame, model="global", name="accuracy")
    assert per_user(found).tolist() == pytest.approx([(films + lists) / 6 for films, lists, *_ in users])
    weights = found.groupby("device")["weight"].sum()
    assert weights.tolist() == pytest.approx([4 * times + 2 * more for *_, times, more in users])


def test_what_is_measured_of_one_task_stands_for_its_items_alone() -> None:
    """2 of 10 films and all 5 of lists are tested: 15 items in all, 10 where only films are scored."""
    run = run_of(
        *(held("a", 10, 2), held("a", 5, 5, task="lists")),
        *(verdicts("a", "accuracy", 1, 2), verdicts("a", "accuracy", 1, 5, task="lists")),
        *(verdicts("a", "positives", 1, 2), verdicts("a", "asking_auc", 7, 7, task="all")),
    )
    found = [run.weights(name)["a"] for name in ("accuracy", "positives", "asking_auc")]
    assert found == pytest.approx([15, 10, 15])


def test_gauc_weighs_by_impressions_and_tells_who_has_none() -> None:
    """Tested are 2 of a's 10 items, all 20 of b, 7 of c's 70, who has one label only; d has no scored item at all."""
    run = run_of(
        *(held("a", 10, 2), held("b", 20, 20), held("c", 70, 7), held("d", 5, 5, task="lists")),
        *(verdicts("a", "task_auc", 2, 2), verdicts("b", "task_auc", 14, 20), verdicts("c", "task_auc", 0, 0)),
        *(verdicts("a", "positives", 1, 2), verdicts("b", "positives", 5, 20), verdicts("c", "positives", 0, 7)),
        *(verdicts(name, "accuracy", 1, 2) for name in "abc"),
        verdicts("d", "accuracy", 1, 5, task="lists"),
        *(brought("a", 3), brought("b", 1), brought("c", 4), brought("d", 9)),
    )
    found = {weighting: auc_over_users(run, "task_auc", weighting) for weighting in WEIGHTINGS.values()}
    values = {weighting: None if one is None else one.value for weighting, one in found.items()}
    assert values[EXAMPLES] == pytest.approx((10 * 1.0 + 20 * 0.7) / 30)
    assert values[TRAFFIC] == pytest.approx((3 * 1.0 + 1 * 0.7) / 4)
    assert values[UNIFORM] == pytest.approx(0.85)
    assert np.isnan(values[REQUESTS])  # type: ignore[arg-type]
    main = found[EXAMPLES]
    assert main is not None
    assert (main.users, main.one_class, main.dropped) == (2, 1, 0.7)
    assert auc_over_users(run, "class_auc") is None
    facts = measure(run).facts
    assert facts["weighted_task_auc"] == values[EXAMPLES]
    assert (facts["weighted_task_auc_dropped"], facts["weighted_task_auc_one_class"]) == (0.7, 1)
    assert np.isnan(facts["weighted_class_auc"])


def test_a_weighting_that_there_is_not_is_refused() -> None:
    assert weighting_of("traffic") is TRAFFIC
    assert weighting_of(UNIFORM) is UNIFORM
    with pytest.raises(ConfigError, match="weighting='trafic' is not known; did you mean traffic"):
        weighting_of("trafic")
    with pytest.raises(ConfigError, match="one of examples, traffic, requests, uniform"):
        weighting_of("quux")
