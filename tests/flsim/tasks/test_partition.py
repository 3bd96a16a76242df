"""Laws of splits, partitions and sources; then numbers by hand; then real data."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from flsim.config.schema import ConfigError
from flsim.problems.problem import SPLITS, split_of
from flsim.tasks.item import Item, key_of
from flsim.tasks.load import load
from flsim.tasks.partition import (
    Assignment,
    apportioned,
    by_user,
    dirichlet,
    dirichlet_shares,
    evenly,
    lognormal_shares,
)
from flsim.tasks.sets import DataSource
from flsim.tasks.splits import DROPPED, split_items

INF = float("inf")
ALPHAS = st.sampled_from([0.0, 1e-9, 1e-5, 0.01, 0.3, 1.0, 10.0, INF])


def some(counts: list[int], *, users: int = 3) -> list[Item]:
    """Items of as many labels as there are counts, all questions different."""
    return [
        Item(f"question {label}.{n}", str(n), user=f"u{n % users}", label=f"l{label}", level=label)
        for label, count in enumerate(counts)
        for n in range(count)
    ]


ITEMS = st.lists(st.integers(1, 60), min_size=1, max_size=6).map(some)


def held(items: list[Item], assignment: Assignment, split: str) -> list[Counter[str | None]]:
    """Labels of each device's items."""
    return [
        Counter(items[index].label for index in assignment.own(device, split)) for device in range(assignment.devices)
    ]


def owners_by_question(items: list[Item], assignment: Assignment) -> dict[str, tuple[int, int]]:
    pairs = zip(assignment.device.tolist(), assignment.split.tolist(), strict=True)
    return {item.question: pair for item, pair in zip(items, pairs, strict=True)}


@given(ITEMS, st.integers(1, 9), ALPHAS, st.integers(0, 5))
def test_no_item_goes_to_two_devices(items: list[Item], devices: int, alpha: float, seed: int) -> None:
    splits = split_items(items)
    for assignment in (
        dirichlet(items, splits, devices=devices, alpha=alpha, seed=seed),
        evenly(items, splits, devices=devices, seed=seed),
        by_user(items, splits, users_per_device=1, seed=seed),
    ):
        own = [assignment.own(device, split) for device in range(assignment.devices) for split in SPLITS]
        dealt = np.concatenate(own)
        assert len(dealt) == len(set(dealt.tolist()))
        assert assignment.device.max() < assignment.devices
        assert (assignment.split == splits).all()


@given(ITEMS, st.integers(1, 9), ALPHAS, st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(items: list[Item], devices: int, alpha: float, rng: Random) -> None:
    """Stronger than a law in distribution: each question keeps its device and split however the rows are permuted."""
    shuffled = rng.sample(items, len(items))

    def deals(rows: list[Item]) -> list[dict[str, tuple[int, int]]]:
        splits, shares = split_items(rows), lognormal_shares(devices, sigma=1.0)
        return [
            owners_by_question(rows, dirichlet(rows, splits, devices=devices, alpha=alpha)),
            owners_by_question(rows, evenly(rows, splits, devices=devices, shares=shares)),
            owners_by_question(rows, by_user(rows, splits, users_per_device=1)),
        ]

    assert deals(items) == deals(shuffled)


@given(ITEMS, st.integers(1, 9), ALPHAS)
def test_other_questions_of_a_label_give_the_same_counts(items: list[Item], devices: int, alpha: float) -> None:
    """How many items of a label a device gets depends on how many there are, not on which."""
    others = [replace(item, question=f"another {item.question}") for item in items]
    splits = split_items(items)
    counts = [held(items, dirichlet(rows, splits, devices=devices, alpha=alpha), "train") for rows in (items, others)]
    assert counts[0] == counts[1]


@given(ITEMS, st.integers(1, 9))
def test_alpha_inf_gives_equal_shares_of_every_label(items: list[Item], devices: int) -> None:
    splits = split_items(items)
    assignment = dirichlet(items, splits, devices=devices, alpha=INF)
    for split in SPLITS:
        there = Counter(item.label for item, own in zip(items, splits, strict=True) if own == SPLITS.index(split))
        for own in held(items, assignment, split):
            for label, count in there.items():
                assert abs(own[label] - count / devices) < 2


def test_alpha_inf_serves_more_devices_than_a_label_has_items() -> None:
    """57 labels of 10 items, 100 devices: 5.7 items each, of labels that differ from device to device."""
    items = some([10] * 57)
    splits: NDArray[np.int8] = np.zeros(len(items), dtype=np.int8)
    assignment = dirichlet(items, splits, devices=100, alpha=INF)
    assert (assignment.device >= 0).mean() > 0.95
    assert {len(assignment.own(device, "train")) for device in range(100)} <= {4, 5, 6}


@given(ITEMS, st.integers(1, 9), st.sampled_from([0.0, 1e-9, 1e-5]), st.integers(0, 5))
def test_alpha_zero_gives_one_label_each(items: list[Item], devices: int, alpha: float, seed: int) -> None:
    assignment = dirichlet(items, split_items(items), devices=devices, alpha=alpha, seed=seed)
    for device in range(devices):
        labels = {items[index].label for index in np.flatnonzero(assignment.device == device)}
        assert len(labels) <= 1


@given(st.lists(st.floats(0, 20), min_size=1, max_size=12), st.integers(0, 1000))
def test_apportioning_rounds_to_a_neighbour_and_keeps_the_sum(quotas: list[float], seed: int) -> None:
    whole = np.array([*quotas, np.ceil(sum(quotas)) - sum(quotas)])
    counts = apportioned(whole, np.random.default_rng(seed))
    assert (np.abs(counts - whole) < 1 + 1e-6).all()
    assert counts.sum() == round(whole.sum())


def test_apportioning_is_fair() -> None:
    """Quotas 0.25, 0.5, 2.25 over 4,000 seeds: the mean is the quota within 4 standard errors of 0.5 / sqrt(4000)."""
    quotas = np.array([0.25, 0.5, 2.25])
    mean = np.mean([apportioned(quotas, np.random.default_rng(seed)) for seed in range(4000)], axis=0)
    assert mean == pytest.approx(quotas, abs=4 * 0.5 / 4000**0.5)


@given(st.integers(1, 40), st.floats(0, 2), st.integers(0, 5))
def test_quantities_sum_to_one(devices: int, spread: float, seed: int) -> None:
    for shares in (
        lognormal_shares(devices, sigma=spread, seed=seed),
        dirichlet_shares(devices, alpha=spread + 0.1, seed=seed),
    ):
        assert len(shares) == devices
        assert sum(shares) == pytest.approx(1)
        assert min(shares) >= 0


def test_equal_quantities_are_the_limits() -> None:
    assert lognormal_shares(4, sigma=0.0) == (0.25,) * 4
    assert dirichlet_shares(4, alpha=INF) == (0.25,) * 4


def test_sizes_follow_the_shares() -> None:
    """100 train items by hand: shares 0.5, 0.3, 0.2 deal 50, 30 and 20; equal ones 34, 33, 33 in some order."""
    items = some([100])
    splits: NDArray[np.int8] = np.zeros(100, dtype=np.int8)
    for deal in (evenly, lambda *a, **k: dirichlet(*a, **k, alpha=INF)):
        dealt = deal(items, splits, devices=3, shares=(0.5, 0.3, 0.2))
        assert [len(dealt.own(device, "train")) for device in range(3)] == [50, 30, 20]
    assert sorted(len(evenly(items, splits, devices=3).own(device, "train")) for device in range(3)) == [33, 33, 34]


def test_a_label_in_too_much_demand_is_shared_and_nobody_gets_another() -> None:
    """Labels of 90 and 10 items, ten devices, alpha 0: each wants 10 of its one label.

    Who wants the label of 90 gets its 10, as at most 9 devices can be served, or 90 / 10 if all want it; those w who
    want the label of 10 get 10 / w. What is not wanted stays.
    """
    items = some([90, 10])
    splits: NDArray[np.int8] = np.zeros(100, dtype=np.int8)
    seen = set()
    for seed in range(12):
        own = held(items, dirichlet(items, splits, devices=10, alpha=0.0, seed=seed), "train")
        rare = [counts["l1"] for counts in own if counts["l1"]]
        common = [counts["l0"] for counts in own if counts["l0"]]
        seen.add(len(rare))
        assert sum(rare) == (10 if rare else 0)
        assert len(rare) <= 1 or max(rare) - min(rare) <= 1
        assert set(common) == {9 if len(common) == 10 else 10}
    assert len(seen) > 1  # some seeds have more than one such device, or none


def test_users_keep_their_items() -> None:
    items = some([40, 20], users=5)
    splits = split_items(items)
    assert by_user(items, splits).names == tuple(f"device-{n:03d}" for n in range(5))
    alone = by_user(items, splits, keep_user_ids=True)
    assert alone.names == ("u0", "u1", "u2", "u3", "u4")
    assert all(items[i].user == alone.names[device] for i, device in enumerate(alone.device))
    shared = by_user(items, splits, devices=2, keep_user_ids=True)
    assert sorted(shared.names) == ["2 users", "3 users"]
    homes = {(item.user, int(device)) for item, device in zip(items, shared.device, strict=True)}
    assert len(homes) == 5  # each user lives in one place
    assert (shared.device >= 0).all()
    drawn = by_user(items, splits, devices=2, users_per_device=1, keep_user_ids=True)
    assert len(drawn.names) == 2
    assert {items[i].user for i in np.flatnonzero(drawn.device >= 0)} == set(drawn.names)


def test_users_with_too_little_are_left_out() -> None:
    items = [Item(f"{user} {n}", "x", user=user, split=SPLITS[n % 3]) for user, count in (("a", 9), ("b", 2))
             for n in range(count)]  # fmt: skip
    assert by_user(items, split_items(items), least=3, keep_user_ids=True).names == ("a",)
    assert by_user(items, split_items(items), least=1, keep_user_ids=True).names == ("a",)  # b has no test item
    assert by_user(items, split_items(items), keep_user_ids=True).names == ("a", "b")
    with pytest.raises(
        ConfigError, match=r"2 devices of 1 user\(s\) each, but there are 1 users with at least 1 items"
    ):
        by_user(items, split_items(items), devices=2, least=1)


@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from([None, *SPLITS])), min_size=1, max_size=60))
def test_no_question_is_in_two_splits(rows: list[tuple[int, str | None]]) -> None:
    """Copies may differ in white space, and in their official split; the most held-out one decides."""
    items = [Item("what  is" if n % 2 else "what is" + f" {n // 2}?", "x", split=split) for n, split in rows]
    for rule in ("official", "hash"):
        splits = split_items(items, rule)
        seen: dict[str, set[int]] = {}
        for item, split in zip(items, splits.tolist(), strict=True):
            seen.setdefault(key_of(item.question), set()).add(split)
        assert all(len(found - {DROPPED}) == 1 for found in seen.values())
        if rule == "hash":
            assert DROPPED not in splits


def test_official_splits_are_kept_and_what_is_lacking_comes_by_hash() -> None:
    items = [Item(f"q{n}", "x", split="train" if n < 300 else "test") for n in range(400)]
    splits = split_items(items)
    assert (splits[300:] == SPLITS.index("test")).all()
    by_hash = [SPLITS[split] for split in splits[:300].tolist()]
    assert by_hash == ["validation" if split_of(f"q{n}") == "validation" else "train" for n in range(300)]
    only_test = [replace(item, split="test") for item in items]
    assert set(split_items(only_test).tolist()) == {SPLITS.index("test")}
    assert set(split_items(only_test, "hash").tolist()) == {0, 1, 2}


def test_a_copy_in_training_of_a_test_question_is_dropped() -> None:
    items = [Item("a b", "x", split="train"), Item("a\n b", "x", split="test"), Item("c", "x", split="train")]
    assert split_items([*items, Item("d", "x", split="validation")]).tolist() == [DROPPED, 2, 0, 1]


def test_a_seed_gives_the_same_deal_in_every_process() -> None:
    code = (
        "from tests.flsim.tasks.test_partition import some; from flsim.tasks.partition import dirichlet;"
        "from flsim.tasks.splits import split_items; items = some([30, 20, 10]);"
        "print(dirichlet(items, split_items(items), devices=4, alpha=0.5, seed=7).device.tolist())"
    )
    items = some([30, 20, 10])
    here = dirichlet(items, split_items(items), devices=4, alpha=0.5, seed=7).device.tolist()
    root = Path(__file__).resolve().parents[3]
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    there = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, check=True)
    assert there.stdout.decode().strip() == str(here)
    assert here != dirichlet(items, split_items(items), devices=4, alpha=0.5, seed=8).device.tolist()


@pytest.mark.parametrize(
    ("deal", "message"),
    [
        (lambda i, s: dirichlet(i, s, devices=2, alpha=-1.0), "alpha is -1.0; it must be 0 or more"),
        (lambda i, s: dirichlet(i, s, devices=2, alpha=float("nan")), "alpha is nan"),
        (lambda i, s: dirichlet(i, s, devices=0, alpha=1.0), "devices is 0"),
        (lambda i, s: dirichlet(i, s, devices=2, alpha=1.0, over="topic"), "over='topic' is not known"),
        (lambda i, s: dirichlet(i, s, devices=2, alpha=1.0), r"item 0 \('q'\) has no label; it has: level"),
        (lambda i, s: by_user(i, s), "has no user; it has: level. Map a column to user, or deal evenly"),
        (lambda i, s: evenly(i, s, devices=2, shares=(0.5, 0.6)), "must be 2 numbers of at least 0 that sum to 1"),
        (lambda i, s: split_items(i, "random"), "splits='random' is not known"),
        (lambda i, s: lognormal_shares(2, sigma=-1.0), "sigma is -1.0"),
        (lambda i, s: dirichlet_shares(2, alpha=0.0), "alpha is 0.0; it must be above 0"),
    ],
)
def test_settings_out_of_range_are_named(deal: Callable[[object, object], object], message: str) -> None:
    items = [Item("q", "a", level=1)]
    with pytest.raises(ConfigError, match=message):
        deal(items, split_items(items))


def test_a_source_draws_a_devices_own_items_by_the_generator_alone() -> None:
    items = some([200, 100])
    assignment = dirichlet(items, split_items(items), devices=3, alpha=1.0)
    source = DataSource(items, assignment, "exact")
    for device in range(3):
        own = {items[index] for index in assignment.own(device, "train")}
        assert source.size(device, "train") == len(own)
        assert set(source.all(device, "train")) == own
        drawn = [source.draw(device, "train", Random(seed)) for seed in range(300)]
        assert set(drawn) <= own
        assert drawn == [source.draw(device, "train", Random(seed)) for seed in range(300)]
        assert len(set(drawn)) > len(own) / 2  # all are likely


def test_a_device_without_items_is_named_before_the_run() -> None:
    items = [Item(f"{user}{n}", "x", user=user, split="train" if user == "a" or n else "test") for user in "abc"
             for n in range(4)]  # fmt: skip
    assignment = by_user(items, split_items(items))
    with pytest.raises(
        ConfigError, match=r"1 of 3 devices have no test item: device-000; the data set has 2. Use fewer"
    ):
        DataSource(items, assignment, "exact")
    source = DataSource(items, assignment, "exact", needs=("train",))
    with pytest.raises(ConfigError, match=r"device-000 has no test item"):
        source.draw(0, "test", Random(0))
    with pytest.raises(ConfigError, match="11 items and 12 assignments"):
        DataSource(items[1:], assignment, "exact")


@pytest.mark.data
def test_real_data_are_dealt_in_full(real: Callable[[str], Path]) -> None:
    """GSM8K keeps its 1,319 test questions; at alpha = inf 16 devices hold 82 or 83 of them, and all is dealt."""
    items = load("gsm8k", real("gsm8k"))
    splits = split_items(items)
    assert Counter(splits.tolist())[SPLITS.index("test")] == 1319
    assignment = dirichlet(items, splits, devices=16, alpha=INF, over="level")
    assert (assignment.device >= 0).mean() > 0.999
    assert {len(assignment.own(device, "test")) for device in range(16)} <= {82, 83}


@pytest.mark.data
def test_real_users_are_dealt(real: Callable[[str], Path]) -> None:
    items = load("leaf", real("fedprox_synthetic_1_1"), files={"all": "mytest.json"})
    splits = split_items(items)
    everyone = by_user(items, splits)
    assert everyone.devices == 30
    assert (everyone.device >= 0).all()
    with pytest.raises(ConfigError, match="of 30 devices have no test item: "):
        DataSource(items, everyone, "exact")
    fit = by_user(items, splits, least=1)
    assert DataSource(items, fit, "exact").size(0, "test") >= 1


def test_mixtures_are_those_of_the_paper() -> None:
    """Dir(alpha p) has mean p and variance p (1 - p) / (alpha + 1); two equal labels, alpha 1: 1/2 and 1/8.

    Each of 40 devices wants 20 of 800 items; over 200 seeds, 8,000 mixtures: the mean within 5 standard errors of
    sqrt(1 / 8 / 8000), the variance within 10 %, since rounding and the cut of a wanted label move it a little.
    """
    items = some([400, 400])
    splits: NDArray[np.int8] = np.zeros(800, dtype=np.int8)
    shares = []
    for seed in range(200):
        own = held(items, dirichlet(items, splits, devices=40, alpha=1.0, seed=seed), "train")
        shares += [counts["l0"] / sum(counts.values()) for counts in own]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.02)
    assert np.var(shares) == pytest.approx(1 / 8, rel=0.1)
