"""Who is tested and on what: a panel of the fleet, and smaller tests where no phase ends."""

from collections import Counter
from itertools import combinations, pairwise

import numpy as np
import pandas as pd
import pytest

import flsim
from flsim.config.schema import STRATA, Config, ConfigError, EvaluationConfig, FleetConfig, StreamConfig
from flsim.devices import device_name
from flsim.loop.checks import check_settings
from flsim.loop.rounds import evaluated
from flsim.metrics.rows import Row, evaluation, read_rows, rows_frame, without_timing
from flsim.metrics.weighting import mean_by
from flsim.tasks.stream import TaskStream
from flsim.tasks.testing import is_tested, milestones, panel, set_of_tests
from tests.tiny import TinyRun

TINY = ("rounds=4", "fleet.devices=5", "stream.phases=[[arithmetic],[lists]]", "evaluation.prompts_per_task=3")


def test_every_panel_of_a_size_is_as_likely_and_part_of_the_larger_ones() -> None:
    """Each of the 15 pairs of 6 devices comes 60 times of 900 seeds, give or take 4 standard deviations of 7.5."""
    found = Counter(tuple(panel(2, 6, seed)) for seed in range(900))
    assert set(found) == set(combinations(range(6), 2))
    assert all(abs(times - 60) < 30 for times in found.values())
    sets = [set(panel(part, 40, 3)) for part in (1, 0.07, 0.5, 23, None)]
    assert [len(own) for own in sets] == [1, 3, 20, 23, 40]
    assert all(small < large for small, large in pairwise(sets))


def config_of(devices: int, part: float, strata: str, seed: int) -> Config:
    phases, fleet = (("arithmetic", "lists"),), FleetConfig(devices=devices, ranks=(1, 1, 1, 2, 2, 4))
    tests = EvaluationConfig(devices=part, strata=strata)
    return Config(rounds=2, fleet=fleet, stream=StreamConfig(phases, seed=seed), evaluation=tests)


def test_a_panel_over_strata_has_their_shares_and_takes_each_device_as_likely() -> None:
    """Of ranks 1, 1, 1, 2, 2, 4 in turn 600 seeds take 8 of 12 devices: each 400 times, give or take 4 x 11.5."""
    panels = [evaluated(config_of(12, 8, "rank", seed)) for seed in range(600)]
    for own in panels:
        assert sorted(set(own)) == list(own)
        ranks = Counter((1, 1, 1, 2, 2, 4)[device % 6] for device in own)
        assert (ranks[1], ranks[2] in (2, 3), ranks[4] in (1, 2)) == (4, True, True)
    times = Counter(device for own in panels for device in own)
    assert all(abs(times[device] - 400) < 47 for device in range(12))


@pytest.mark.parametrize("strata", STRATA)
def test_a_panel_over_strata_of_a_large_fleet_is_near_to_it(strata: str) -> None:
    """200 of a million: half of them of rank 1; most have about as much traffic as the fleet has; tasks halve it."""
    config = config_of(1_000_000, 200, strata, 5)
    own, stream = evaluated(config), TaskStream(config.stream, 2)
    assert len(set(own)) == 200
    assert all(
        is_tested(config.evaluation, config.fleet, stream, device) == (device in own)
        for device in (*own[:3], 0, 999_999)
    )
    if strata == "rank":
        assert abs(sum(device % 6 < 3 for device in own) - 100) <= 6
    if strata == "traffic":  # log-normal with mean 1 and sigma 0.3
        assert np.median([stream.quantity(device_name(device)) for device in own]) == pytest.approx(0.956, abs=0.02)
    if strata == "task":
        more = [stream.mixture(device_name(device), 1)["lists"] > 0.5 for device in own]
        assert sum(more) == pytest.approx(100, abs=6)


def test_over_all_panels_the_mean_user_is_that_of_the_fleet_and_weighed_means_are_nearly() -> None:
    """All 56 panels of 5 of 8 users; a weighed mean is a ratio of two, whose bias is at most its standard error times

    the coefficient of variation of the panel's mean weight (Hartley and Ross 1954).
    """
    values = pd.Series([0.9, 0.5, 0.0, 0.3, 0.8, 1.0, 0.2, 0.6])
    weights = pd.Series([300.0, 7.0, 20.0, 90.0, 50.0, 10.0, 120.0, 60.0])
    panels = [list(own) for own in combinations(range(8), 5)]
    assert np.mean([values[own].mean() for own in panels]) == pytest.approx(values.mean())
    ratios = np.array([mean_by(values[own], weights) for own in panels], dtype=float)  # (56,)
    masses = np.array([weights[own].mean() for own in panels])  # (56,)
    bias = abs(ratios.mean() - np.average(values, weights=weights))
    assert 0 < bias <= ratios.std() * masses.std() / weights.mean()


def test_a_small_test_is_the_beginning_of_the_large_one() -> None:
    stream = TaskStream(StreamConfig(phases=(("arithmetic", "lists"), ("strings",))), 6)
    settings = EvaluationConfig(prompts_per_task=8, prompts_between=3)
    assert milestones(stream) == {0, 3, 6}
    large, small = (set_of_tests(stream, settings, "device-002", round_) for round_ in (3, 4))
    assert large == set_of_tests(stream, EvaluationConfig(prompts_per_task=8), "device-002", 4)
    for task in stream.tasks:
        asked = [[problem.question for problem in own if problem.task == task] for own in (small, large)]
        assert (len(asked[0]), len(asked[1])) == (3, 8)
        assert asked[0] == asked[1][:3]


def test_a_small_test_stands_for_all_items_too() -> None:
    """Of 300 and 7 items 20 and 7 are tested before training, 5 and 5 in round 2: both times 307 are stood for."""
    rows = []
    for round_, tested in ((0, (20, 7)), (2, (5, 5))):
        for device, held, count in zip("ab", (300, 7), tested, strict=True):
            rows.append(Row(round_, device, "films", "user", "user", "test_items", held, count))
            rows.append(Row(round_, device, "films", "test", "global", "accuracy", 1.0, count))
    found = evaluation(rows_frame(rows), model="global", name="accuracy")
    assert found["weight"].tolist() == pytest.approx([300, 7, 300, 7])
    assert (found["total"] / found["weight"]).tolist() == pytest.approx([1 / 20, 1 / 7, 1 / 5, 1 / 5])


@pytest.mark.usefixtures("no_report")
def test_a_run_with_a_panel_learns_the_same_and_measures_the_same_of_those_it_tests(tiny_run: TinyRun) -> None:
    """Five devices, two of them tested; in round 1 on one prompt of three, and their own models at ends of phases."""
    every = ("evaluation.every_rounds=1",)
    whole = tiny_run("whole", *every)
    part = tiny_run("part", *every, "evaluation.devices=0.4", "evaluation.prompts_between=1", "evaluation.own=phases")
    for config in (whole, part):
        flsim.run(config, progress=False)
    every_row, rows = (without_timing(read_rows(config.folder)) for config in (whole, part))
    names = [device_name(device) for device in panel(0.4, 5, part.stream.seed)]
    own = rows[rows["split"] == "test"]
    assert set(own["device"]) == set(names)
    assert set(own.loc[own["model"] == "own", "round"]) == {2, 4}
    between = own[(own["round"] == 1) & (own["name"] == "accuracy")]
    assert between["weight"].tolist() == [1.0] * 4  # two devices with two tasks
    kept = own[own["round"].isin([0, 2, 4])]
    same = every_row[every_row["device"].isin(names) & every_row["round"].isin([0, 2, 4])]
    pd.testing.assert_frame_equal(
        kept.reset_index(drop=True), same[same["split"] == "test"].reset_index(drop=True), rtol=1e-6
    )
    one, other = (found[found["split"] == "train"].reset_index(drop=True) for found in (every_row, rows))
    pd.testing.assert_frame_equal(one, other)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("evaluation.devices=6", "evaluation.devices=6 is more than fleet.devices=5"),
        ("evaluation.devices=1.5", "a share above 0 and below 1, or a whole number of at least 1"),
        ("evaluation.strata=rank", "spreads a panel, and all devices are tested; set evaluation.devices=50"),
        (("evaluation.strata=rank", "evaluation.devices=2"), "has no effect where all devices have one rank"),
        ("evaluation.prompts_between=4", "is a part of the 3 of evaluation.prompts_per_task"),
    ],
)
def test_tests_that_cannot_be_are_refused(tiny_run: TinyRun, more: str | tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_settings(tiny_run("none", *((more,) if isinstance(more, str) else more)))
