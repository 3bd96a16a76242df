"""What it takes to get to an accuracy: laws, numbers by hand, censored runs; and who took part."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsim.metrics.measured import measure
from flsim.metrics.rows import Row, fleet_row, rows_frame
from flsim.metrics.run_rows import RunRows
from flsim.metrics.systems import lorenz, share_of_busiest, work_of
from flsim.metrics.time_to import accuracy_at, area_under, cost_to, course_of, median_cost, speed_up
from flsim.tasks.stream import Phase
from tests.flsim.metrics.system_rows import system_rows

BY_HAND = pd.DataFrame({"seconds": [0.0, 3600.0, 10800.0], "uniform": [0.2, 0.5, 0.7]}, index=[0, 2, 4])
HOUR = 3600.0
PHASES = (Phase("A", ("arithmetic", "lists"), 1, 6),)


def run_of(rows: list[Row]) -> RunRows:
    return RunRows(rows_frame(rows), PHASES, 0.3)


def test_by_hand() -> None:
    """The numbers of the module's first lines; a target that is met exactly is met."""
    assert [cost_to(BY_HAND, "seconds", target) for target in (0.1, 0.5, 0.6, 0.8)] == [0.0, HOUR, 3 * HOUR, None]
    assert accuracy_at(BY_HAND, "seconds", 2 * HOUR) == 0.5
    assert accuracy_at(BY_HAND, "seconds", 3 * HOUR) == 0.7
    assert area_under(BY_HAND, "seconds", 4 * HOUR) == pytest.approx(0.475)
    assert np.isnan(area_under(BY_HAND, "seconds", 0.0))
    assert cost_to(BY_HAND * [1, 0.1 + 0.2], "seconds", 0.15) == HOUR  # 0.5 of a float that is not quite 0.3


@given(factor=st.floats(1e-3, 1e3), target=st.floats(0.01, 1.0))
def test_costs_scale_and_harder_targets_take_no_less(factor: float, target: float) -> None:
    larger = BY_HAND.assign(seconds=factor * BY_HAND["seconds"])
    one, other = cost_to(BY_HAND, "seconds", target), cost_to(larger, "seconds", target)
    assert (one is None) == (other is None)
    assert one is None or other == pytest.approx(factor * one)
    assert area_under(larger, "seconds", factor * HOUR) == pytest.approx(area_under(BY_HAND, "seconds", HOUR))
    harder = cost_to(BY_HAND, "seconds", min(1.0, target + 0.1))
    assert harder is None or (one is not None and harder >= one)


def test_over_seeds_those_that_do_not_get_there_count_as_infinite() -> None:
    assert (median_cost([1.0, 3.0, None]), median_cost([1.0, None])) == (3.0, np.inf)
    gain = speed_up([4.0, 6.0, None], [2.0, 3.0, 9.0])
    back = speed_up([2.0, 3.0, 9.0], [4.0, 6.0, None])
    assert gain is not None
    assert back is not None
    assert (gain.mean, gain.low) == (2.0, 2.0)
    assert back.mean == 0.5
    never, always = speed_up([None, None], [1.0, 2.0]), speed_up([1.0, 2.0], [None, None])
    assert never is not None
    assert always is not None
    assert (never.mean, always.mean, speed_up([None], [None]), speed_up([0.0], [0.0])) == (np.inf, 0.0, None, None)
    twice = speed_up([8.0, 12.0, None], [2.0, 3.0, 9.0])
    assert twice is not None
    assert (twice.mean, twice.low, twice.high) == (2 * gain.mean, 2 * gain.low, 2 * gain.high)


def test_a_course_adds_up_what_rows_say_and_weighs_users() -> None:
    """Two users at 8 and 2 of 10, the second with three times the traffic; money also of warm-up and stage."""
    rows = [Row(r, d, "lists", "test", "global", "accuracy", t, 10.0) for r in (0, 2) for d, t in (("a", 8), ("b", 2))]
    rows += [Row(0, d, "all", "user", "user", "traffic", t, 1.0) for d, t in (("a", 10.0), ("b", 30.0))]
    for round_ in (1, 2):
        rows += [fleet_row(round_, "virtual_seconds", 50.0 * round_)]
        for name, each in (("uplink_bytes", 3.0), ("cloud_up_bytes", 1.0), ("radio_joules", 2.0), ("cloud_money", 0.5)):
            rows += [Row(round_, d, "all", "train", "own", name, each, 1.0) for d in "ab"]
    rows += [Row(0, "", "all", "warmup", "warmup", "cloud_money", 4.0, 1.0)]
    rows += [Row(2, "", "all", "stage", "fleet", "cloud_money", 1.0, 1.0)]
    course = course_of(run_of(rows))
    assert course.index.tolist() == [0, 2]
    end = course.loc[2].to_dict()
    assert end == pytest.approx(
        {"seconds": 100.0, "bytes": 16.0, "joules": 8.0, "money": 7.0, "examples": 0.5, "traffic": 0.35, "uniform": 0.5}
    )
    assert course.loc[0, "money"] == 4.0
    assert not {"grams", "requests"} & set(course)


def test_twice_the_seconds_double_time_and_change_no_bytes() -> None:
    one, other = (course_of(run_of(system_rows(seconds=seconds))) for seconds in (60.0, 120.0))
    np.testing.assert_allclose(other["seconds"], 2 * one["seconds"])
    np.testing.assert_allclose(other["bytes"], one["bytes"])
    assert one["seconds"].is_monotonic_increasing
    target = float(one["uniform"].iloc[2])
    there = cost_to(one, "seconds", target)
    assert there is not None
    assert cost_to(other, "seconds", target) == pytest.approx(2 * there)


def test_names_and_the_order_of_devices_change_nothing() -> None:
    rows = rows_frame(system_rows(end="first"))
    names = sorted(set(rows["device"]) - {""})
    other = rows.assign(device=rows["device"].replace(dict(zip(names, reversed(names), strict=True))))
    one, turned = (measure(RunRows(r, PHASES, 0.3)) for r in (rows, other.sample(frac=1.0, random_state=1)))
    assert turned.facts == pytest.approx(one.facts, nan_ok=True)
    assert dict(turned.users.mean()) == pytest.approx(dict(one.users.mean()), nan_ok=True)
    pd.testing.assert_frame_equal(turned.course, one.course)


def test_who_took_part_by_hand() -> None:
    """Work 6, 3, 1 of three devices; a fourth was always late, and a fifth never invited: Gini 0.6 * ... by ranks."""
    rows = [Row(0, d, "all", "user", "user", "class_low", 1.0, 1.0) for d in "abcde"]
    for device, done in (("a", 6.0), ("b", 3.0), ("c", 1.0), ("d", 9.0)):
        rows += [Row(1, device, "all", "train", "own", "sampled_tokens", done, 1.0)]
    rows += [Row(1, "d", "late", "train", "own", "set_aside", 1.0, 1.0), fleet_row(1, "virtual_seconds", 1.0)]
    rows += [Row(1, d, "lists", "test", "global", "accuracy", 1.0, 2.0) for d in "abc"]
    work = work_of(rows_frame(rows))
    assert work.to_dict() == {"a": 6.0, "b": 3.0, "c": 1.0, "d": 0.0, "e": 0.0}
    np.testing.assert_allclose(lorenz(work)[1], [0, 0.6, 0.9, 1, 1, 1])
    assert share_of_busiest(work) == pytest.approx(0.6 + 0.3 / 2)  # halfway from one device to two
    facts = measure(run_of(rows)).facts
    assert facts["busiest_share"] == pytest.approx(0.75)
    assert facts["work_gini"] == pytest.approx((4 * 6 + 2 * 3 + 0 * 1) / (5 * 10))


def test_measures_of_a_system_by_hand() -> None:
    """Two rounds of two devices, one of them stale by 3; 20 of 80 joules are wasted; questions take 2 s for 0.5."""
    rows = [fleet_row(1, "virtual_seconds", 10.0), fleet_row(2, "virtual_seconds", 30.0)]
    rows += [fleet_row(1, "wasted_joules", 20.0, 50.0), fleet_row(2, "wasted_joules", 0.0, 30.0)]
    for device, stale, joules in (("a", 0.0, 5.0), ("b", 3.0, 15.0)):
        rows += [Row(0, device, "all", "user", "user", "class_low" if stale else "class_high", 1.0, 1.0)]
        rows += [Row(2, device, "all", "train", "own", "staleness", stale, 1.0)]
        rows += [Row(r, device, "all", "train", "own", "joules", joules, 1.0) for r in (1, 2)]
        rows += [Row(1, device, "lists", "train", "own", "sampled_tokens", 60.0, 12.0)]
        rows += [Row(1, device, "lists", "train", "own", "cut_responses", 3.0, 12.0)]
        right = 3.0 if stale else 7.0
        for name, total in (("accuracy", right), ("question_seconds", 20.0), ("right_within_2s", right - 1)):
            rows += [Row(2, device, "lists", "test", "global", name, total, 10.0)]
    found = measure(run_of(rows))
    facts, users = found.facts, found.users.mean()
    assert (facts["virtual_end"], facts["round_length"], facts["waste_share"]) == (30.0, 15.0, 0.25)
    assert (facts["staleness"], facts["staleness_p95"]) == pytest.approx((1.5, 2.85))
    assert (facts["class_gap"], users["device_joules"]) == pytest.approx((0.4, 10.0))
    assert (users["response_length"], users["cut_share"]) == (5.0, 0.25)
    assert (users["question_seconds"], users["right_within_2s"]) == pytest.approx((2.0, 0.4))
