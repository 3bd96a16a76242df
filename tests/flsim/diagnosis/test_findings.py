"""Each finding on made-up rows: it fires just beyond its threshold, and is silent just within."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from flsim.diagnosis.finding import FAULT, NOTE, SEVERITIES, WARNING, Query
from flsim.diagnosis.limits import LIMITS
from flsim.diagnosis.seen import Facts, Seen, streaks
from flsim.diagnosis.table import KINDS, findings_of, lines_of_findings, lines_of_limits
from flsim.metrics.rows import USER, Row, fleet_row, rows_frame
from tests.flsim.diagnosis.made_up import DEVICES, FACTS, ROUNDS, TWO, device, measured, trained

Made = Callable[[float], list[Row]]
ALL = range(1, ROUNDS + 1)
ENDS = (0, 6, 12)
EVERY_TWO = range(0, ROUNDS + 1, 2)


def of_fleet(name: str, value: float, weight: float = 1.0) -> list[Row]:
    return [fleet_row(r, name, value * weight, weight) for r in ALL]


def set_aside(devices: float, rounds: range) -> list[Row]:
    """So many of those that were asked came too late."""
    words = [(r, device(index)) for r in rounds for index in range(int(devices))]
    late = [Row(r, name, "late", "train", "own", "set_aside", 1.0, 1.0) for r, name in words]
    return [*trained("downlink_bytes", 1.0), *late]


def one_device(usual: float, other: float, *, who: int = 1) -> Callable[[int, int], float]:
    """`other` on the first `who` devices."""
    return lambda index, _: other if index < who else usual


def for_rounds(count: float, value: float, usual: float) -> Callable[[int, int], float]:
    """`value` in the first `count` rounds."""
    return lambda _, round_: value if round_ <= count else usual


def curve(start: float, early: float, middle: float, late: float) -> Callable[[int, int], float]:
    """Accuracy that rises by `early` a round to round 4, lies at `middle` at 6, and rises by `late` from 8 on."""
    return lambda _, r: start + early * r if r <= 4 else middle + late * max(0, r - 8)


def gap(x: float) -> list[Row]:
    return [*measured("own", "alone_accuracy", 0.5 + x, (12,)), *measured("global", "alone_accuracy", 0.5, (0, 12))]


def left_behind(x: float) -> list[Row]:
    """Task `a` of the first phase, at the last round of the second, on devices' own models."""
    return [*measured("own", "alone_accuracy", 0.5 - x, (12,)), *measured("global", "alone_accuracy", 0.5, ENDS)]


def over_time(x: float) -> list[Row]:
    return measured("global", "alone_accuracy", lambda _, r: 0.5 * (1 - x) if r == 12 else 0.5, ENDS)


def slows(x: float) -> list[Row]:
    """A first third of 5 points a round."""
    rows = measured("global", "accuracy", curve(0.5, 0.05, 0.72, 0.05 * x), EVERY_TWO)
    return rows + measured("cloud", "accuracy", 0.95, (0,))


def never_gains(x: float) -> list[Row]:
    """24 points in 12 rounds would have reached the cloud: 2 a round."""
    rows = measured("global", "accuracy", curve(0.7, 0.0, 0.7, 0.02 * x), EVERY_TWO)
    return rows + measured("cloud", "accuracy", 0.94, (0,))


def refused(x: float) -> list[Row]:
    return [*trained("cloud_refused", 100 * x), *trained("cloud_calls", 100 * (1 - x))]


def price(value: float, usage: float) -> Made:
    """Lambda there for so many rounds."""
    return lambda n: [*trained("dual_variable", for_rounds(n, value, 0.5)), *trained("cloud_requests", usage, 80)]


def groups(reward: float, rounds: int = ROUNDS) -> Made:
    return lambda x: [
        *trained("unanimous_groups", 0.5, 10),
        *trained("effective_groups", for_rounds(rounds, 10 * (1 - x), 10)),
        *trained("reward", reward, 80),
    ]


def busiest(rounds_of_others: float) -> list[Row]:
    """Four of twelve devices come in all rounds of 20, the others in fewer: 80 of 80 + 8 n updates are theirs."""
    few, many = range(1, round(rounds_of_others) + 1), range(1, 21)
    return [
        *trained("aggregation_share", 0.1, rounds=many, devices=range(4)),
        *trained("aggregation_share", 0.1, rounds=few, devices=range(4, DEVICES)),
    ]


def classes(x: float) -> list[Row]:
    marks = [Row(0, device(k), "all", USER, USER, "class_low" if k < 6 else "class_high", 1, 1) for k in range(DEVICES)]
    return [*marks, *measured("global", "accuracy", one_device(0.6, 0.6 - x, who=6), (12,))]


def worst(prompts: float) -> Made:
    """Two of twelve users lie x below; their 10th percentile then lies 0.733 x below the mean."""
    return lambda x: measured("global", "accuracy", one_device(0.8, 0.8 - x, who=2), (12,), prompts=prompts)


def harmed(x: float) -> list[Row]:
    """Three of twelve users have lost x, of tests of 100 prompts: 1.645 sqrt(0.5 / 100) = 0.116."""
    now = measured("global", "accuracy", one_device(0.5, 0.5 - x / 2, who=3), (12,), prompts=100)
    return [*now, *measured("random", "accuracy", one_device(0.5, 0.5 + x / 2, who=3), (0,), prompts=100)]


def by_chance(x: float) -> list[Row]:
    """Half of the users gain x and half lose 0.1."""
    now = measured("global", "accuracy", lambda k, _: 0.5 + x if k % 2 else 0.4, (12,))
    return [*now, *measured("random", "accuracy", 0.5, (0,))]


def never_met(x: float) -> list[Row]:
    """Of 12 devices the first x; a system is there."""
    return [*trained("downlink_bytes", 1e6, devices=range(int(x))), *of_fleet("virtual_seconds", 9.0)]


CASES: tuple[tuple[str, str, Made, float, float, Facts], ...] = (
    ("local_global_gap", WARNING, gap, 0.051, 0.049, FACTS),
    ("forgetting_in_local_steps", WARNING, left_behind, 0.051, 0.049, replace(FACTS, phases=TWO)),
    ("forgetting_over_time", WARNING, over_time, 0.21, 0.19, replace(FACTS, phases=TWO)),
    ("slow_convergence", NOTE, slows, 0.09, 0.11, FACTS),
    ("slow_convergence", WARNING, never_gains, 0.09, 0.11, FACTS),
    (
        *("communication_bound", WARNING),
        lambda x: [*trained("link_seconds", 10 * x), *trained("round_seconds", 10)],
        *(0.51, 0.49, FACTS),
    ),
    ("budget", WARNING, lambda x: trained("cloud_requests", 0.3 + x, 80), 0.051, 0.049, FACTS),
    ("budget", NOTE, lambda x: trained("cloud_requests", 0.3 * x, 80), 0.49, 0.51, FACTS),
    ("budget", WARNING, refused, 0.21, 0.19, FACTS),
    ("dual_stuck", WARNING, price(1.0, 0.5), 6, 5, FACTS),
    ("dual_stuck", NOTE, price(0.0, 0.2), 6, 5, FACTS),
    ("dead_adapter", WARNING, lambda x: trained("update_norm", one_device(1.0, x)), 0.009, 0.011, FACTS),
    ("dead_adapter", FAULT, lambda x: trained("update_norm", one_device(1.0, x, who=2)), 0.009, 0.011, FACTS),
    ("dead_adapter", FAULT, lambda x: trained("update_norm", x), 0.9e-6, 1.1e-6, FACTS),
    ("dead_adapter", FAULT, lambda x: trained("learned_tokens", x), 0, 1, FACTS),
    ("dead_adapter", WARNING, lambda n: trained("update_norm", for_rounds(n, 0.0, 1.0)), 3, 2, FACTS),
    ("reward_collapse", FAULT, groups(0.5), 0.91, 0.89, FACTS),
    ("reward_collapse", WARNING, groups(0.5, 3), 0.91, 0.89, FACTS),
    ("reward_collapse", NOTE, groups(0.95), 0.91, 0.89, FACTS),
    ("asks_always_or_never", FAULT, lambda x: trained("cloud_requests", x, 80), 0.0059, 0.0061, FACTS),
    ("asks_always_or_never", FAULT, lambda x: trained("cloud_requests", x, 80), 0.987, 0.985, FACTS),
    (
        *("asks_always_or_never", WARNING),
        lambda n: trained("cloud_requests", for_rounds(n, 0.0, 0.3), 80),
        *(3, 2, FACTS),
    ),
    ("length_collapse", WARNING, lambda x: trained("cut_responses", x, 80), 0.51, 0.49, FACTS),
    ("length_collapse", WARNING, lambda x: trained("sampled_tokens", x, 80), 1.9, 2.1, FACTS),
    (
        *("length_collapse", WARNING),
        lambda x: [*trained("sampled_tokens", 8, 80), *trained("helped_drawn", 80 * (8 - x))],
        *(1.9, 2.1, FACTS),
    ),
    ("poor_help", NOTE, lambda x: trained("accepted_tokens", x, 10), 0.29, 0.31, FACTS),
    ("poor_help", NOTE, lambda n: trained("accepted_tokens", 0.1, n), 2.2, 2.0, FACTS),
    ("poor_help", WARNING, lambda x: trained("help_share", x), 1.01, 0.99, FACTS),
    ("aggregation_loses", WARNING, lambda x: of_fleet("aggregation_bias", x), 0.51, 0.49, FACTS),
    ("aggregation_loses", WARNING, lambda x: of_fleet("cut_energy", x), 0.11, 0.09, FACTS),
    (
        *("aggregation_loses", NOTE),
        lambda x: [*of_fleet("effective_devices", 12 * x), *trained("aggregation_share", 0.1)],
        *(0.33, 0.34, FACTS),
    ),
    ("nobody_counts", FAULT, lambda n: set_aside(n, ALL), DEVICES, DEVICES - 1, FACTS),
    ("nobody_counts", WARNING, lambda n: set_aside(DEVICES, range(1, int(n) + 1)), 3, 2, FACTS),
    ("stragglers", WARNING, lambda x: trained("round_seconds", one_device(10, 10 * x)), 3.1, 2.9, FACTS),
    ("stragglers", WARNING, lambda x: of_fleet("wasted_joules", x, 50), 0.21, 0.19, FACTS),
    ("stale", WARNING, lambda x: trained("staleness", x), 5, 4, replace(FACTS, max_staleness=5)),
    (
        *("stale", WARNING),
        lambda x: [*trained("staleness", 1), *of_fleet("dropped", x, 12)],
        *(0.051, 0.049, FACTS),
    ),
    ("participation_bias", WARNING, busiest, 6, 7, FACTS),
    ("participation_bias", WARNING, classes, 0.051, 0.049, FACTS),
    ("absent", WARNING, lambda x: trained("battery", one_device(1, x), 12), 0.0009, 0.0011, FACTS),
    ("absent", NOTE, never_met, 11, 12, FACTS),
    ("worst_off", WARNING, worst(1000), 0.21, 0.20, FACTS),
    ("worst_off", WARNING, harmed, 0.13, 0.10, FACTS),
    ("cannot_tell", NOTE, by_chance, 0.1, 0.5, FACTS),
)
"""Name and severity, rows by a number, the number with which it fires and one with which it is silent, and facts."""


def found(name: str, rows: list[Row], facts: Facts) -> list[str]:
    """The severities of the findings of that name."""
    return [one.severity for one in KINDS[name].of(Seen(rows_frame(rows), facts))]


@pytest.mark.parametrize(
    ("name", "severity", "made", "fires", "silent", "facts"),
    CASES,
    ids=[f"{place}-{case[0]}" for place, case in enumerate(CASES)],
)
def test_it_fires_beyond_its_threshold_and_is_silent_within(
    name: str, severity: str, made: Made, fires: float, silent: float, facts: Facts
) -> None:
    """And stands on rows that there are, which the query that it names finds again."""
    rows = rows_frame(made(fires))
    (one,) = KINDS[name].of(Seen(rows, facts))
    assert one.severity == severity
    assert one.sentence.endswith(".")
    assert one.mend.endswith(".")
    queries = [query for query in one.rows if len(query.of(rows))]
    assert queries
    for query in queries:
        pd.testing.assert_frame_equal(rows.query(str(query)), query.of(rows))
    assert found(name, made(silent), facts) == []


def test_every_finding_and_severity_of_the_table_has_a_case() -> None:
    told = {name: {case[1] for case in CASES if case[0] == name} for name in KINDS}
    assert told == {name: set(kind.severities) for name, kind in KINDS.items()}


@pytest.mark.parametrize(
    ("name", "rows", "facts"),
    [
        # tests of ten prompts scatter as far as that; a few users, or prompts, say nothing of the mean user
        ("worst_off", worst(10)(0.21), FACTS),
        ("local_global_gap", [row for row in gap(0.3) if row.device < device(4)], FACTS),
        ("local_global_gap", [replace(row, total=row.total / 1000, weight=1.0) for row in gap(0.3)], FACTS),
        # who asks has said little more than its request
        ("length_collapse", [*trained("sampled_tokens", 1.9, 80), *trained("cloud_requests", 0.5, 80)], FACTS),
        # nor has a device whose mode of help drafts much said more for that
        ("length_collapse", [*trained("sampled_tokens", 9.0, 80), *trained("helped_drawn", 500)], FACTS),
        # who asks everywhere for help that takes little keeps the budget
        ("asks_always_or_never", [*trained("cloud_requests", 1.0, 80), *trained("weighed_requests", 0.3, 80)], FACTS),
        ("budget", [*trained("cloud_requests", 1.0, 80), *trained("weighed_requests", 0.3, 80)], FACTS),
        # nobody can ask, or nobody is to, or a price that is fixed
        ("asks_always_or_never", trained("cloud_requests", 0.0, 80), replace(FACTS, learns_to_ask=False)),
        ("asks_always_or_never", trained("cloud_requests", 0.0, 80), replace(FACTS, tau=0.0)),
        ("dual_stuck", price(0.0, 0.2)(12), replace(FACTS, highest_price=None)),
        # averaged factors are made up for; a module has no product whose norm could be told
        ("aggregation_loses", of_fleet("aggregation_bias", 0.9), replace(FACTS, carries_rest=True)),
        ("dead_adapter", [*trained("update_norm", 0.0), *trained("loss", 1.0)], FACTS),
        ("stragglers", trained("round_seconds", one_device(10, 99)), replace(FACTS, waits_for_all=False)),
    ],
)
def test_what_chance_or_the_settings_explain_is_no_finding(name: str, rows: list[Row], facts: Facts) -> None:
    assert found(name, rows, facts) == []


EVERYTHING = rows_frame([row for case in CASES for row in case[2](case[3])]).drop_duplicates(
    ["round", "device", "task", "split", "model", "name"]
)


@pytest.mark.parametrize("kept", range(5))
def test_rows_that_a_run_lacks_are_no_error_and_their_order_is_nothing(kept: int) -> None:
    """Every fifth name alone; of a round that is all there is; and with other facts, of which nothing is known."""
    names = sorted(EVERYTHING["name"].unique())[kept::5]
    rows = EVERYTHING[EVERYTHING["name"].isin(names)]
    shuffled = rows.sample(frac=1.0, random_state=7, ignore_index=True)
    assert findings_of(shuffled, FACTS) == findings_of(rows, FACTS)
    findings_of(rows[rows["round"] == rows["round"].max()], Facts())


def test_the_worst_comes_first_and_rows_are_named_as_pandas_takes_them() -> None:
    everything = findings_of(EVERYTHING, FACTS)
    assert len(everything) >= 8
    order = [SEVERITIES.index(one.severity) for one in everything]
    assert order == sorted(order, reverse=True)
    assert str(Query(("a",), "train", "own", 3, 7)) == (
        "split == 'train' and model == 'own' and name in ['a'] and 3 <= round <= 7"
    )


def test_a_streak_is_counted_in_rounds_that_a_device_took_part_in() -> None:
    """Of rounds 1, 2, 4, 5, 6 with the flags 0, 1, 1, 1, 0 it is 2 to 5; two in a row are none; another lasts."""
    flags = {("a", 1): 0, ("a", 2): 1, ("a", 4): 1, ("a", 5): 1, ("a", 6): 0, ("b", 1): 1, ("b", 2): 1}
    flags |= {("c", n): 1 for n in (3, 5, 9)}
    series = pd.Series(flags).astype(bool).rename_axis(["device", "round"])
    assert streaks(series).to_dict("index") == {
        "a": {"first": 2, "last": 5, "lasts": False},
        "c": {"first": 3, "last": 9, "lasts": True},
    }


def test_every_threshold_is_used_and_says_what_it_is() -> None:
    written = " ".join(kind.when for kind in KINDS.values())
    assert {name for name in LIMITS if f"{{{name}}}" not in written} == {"prompts"}


def test_the_page_has_the_tables() -> None:
    page = (Path(__file__).parents[3] / "docs" / "diagnoses.md").read_text().splitlines()
    assert [line for line in (*lines_of_findings(), *lines_of_limits()) if line not in page] == []
