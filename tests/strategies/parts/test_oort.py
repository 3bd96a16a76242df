"""Oort: scores by hand, whom it explores, how its pacer moves, and what it refuses."""

import math
import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsim.config.load import load_config
from flsim.config.ranges import ConfigError
from flsim.flower.messages import Measures
from strategies.parts.oort import Oort, slowed, utility
from strategies.parts.samplers import RandomShare


def told(device: int, reward: float, seconds: float, examples: int = 4) -> Measures:
    return Measures(device, examples, examples, reward, seconds=seconds)


@given(
    cohort=st.lists(st.integers(0, 99), min_size=1, max_size=20, unique=True),
    share=st.floats(0.01, 1.0),
    known=st.dictionaries(st.integers(0, 99), st.tuples(st.floats(-1, 2), st.floats(0.1, 1e4)), max_size=30),
)
def test_a_sorted_part_of_the_cohort_whatever_is_known(
    cohort: list[int], share: float, known: dict[int, tuple[float, float]]
) -> None:
    oort = Oort(share)
    for device, (reward, seconds) in known.items():
        oort.observe([told(device, reward, seconds)])
    chosen = oort.choose(cohort, 5, 1)
    assert chosen == sorted(set(chosen) & set(cohort))
    assert len(chosen) == max(1, round(share * len(cohort)))
    assert all(type(device) is int for device in chosen)
    assert chosen == pickle.loads(pickle.dumps(oort)).choose(cohort[::-1], 5, 1)


def test_a_slow_device_by_hand() -> None:
    """t = 4 and T = 2: a quarter; up to T nothing is lost."""
    assert [slowed(4, 2), slowed(2, 2), slowed(1, 2), slowed(4, 2, 1.0)] == [0.25, 1, 1, 0.5]


def test_what_data_teach_by_hand() -> None:
    """16 examples, three in four right: 16 sqrt(1/4) = 8; all right, or better, is nothing more to learn."""
    assert [utility(told(0, reward, 1.0, 16)) for reward in (0.75, 0.0, 1.0, 1.5, -0.5)] == [8, 16, 0, 0, 16]


def test_a_score_by_hand() -> None:
    """Utilities 8, 4 and 0 of one round with times 4, 2 and 1 s; T is the one at 0.3 x 3, the least: 1 s.

    In the second round the bonus is sqrt(0.1 ln 2 / 1) for all, and 8 counts as itself, since 3 x 0.9 is its place.
    """
    oort = Oort(1.0)
    oort.observe([told(0, 0.75, 4.0, 16), told(1, 0.75, 2.0, 8), told(2, 1.0, 1.0)])
    bonus = math.sqrt(0.1 * math.log(2))
    assert oort.preferred() == 1
    assert oort.scores([0, 1, 2]) == {0: (1 + bonus) / 16, 1: (0.5 + bonus) / 4, 2: bonus}
    assert Oort.scores(oort, [1]) == {1: (0 + bonus) / 4}


def test_who_is_new_and_who_is_good() -> None:
    """Of 10 chosen from 40 in round 2: int(10 x 0.9 x 0.98^2) = 8 that are new, and 2 known ones that are best."""
    oort = Oort(0.25)
    oort.observe([told(device, 0.0 if device < 3 else 1.0, 1.0) for device in range(20)])
    drawn = Counter(device for round_ in range(300) for device in oort.choose(range(40), round_, 0))
    assert sum(drawn[device] for device in range(20, 40)) == 300 * 8
    assert sum(drawn[device] for device in range(3)) == 300 * 2
    assert all(150 < drawn[device] < 250 for device in range(3))
    assert all(60 < drawn[device] < 180 for device in range(20, 40))
    assert len(oort.choose(range(20), 2, 0)) == 5  # nobody is new, and all five are known


def test_the_pacer_widens_where_utility_stalls_and_narrows_where_it_leaps() -> None:
    oort = Oort(1.0, pace=2)
    for reward in (0.5, 0.5, 0.5, 0.5, 0.5):
        oort.observe([told(0, reward, 1.0)])
    assert oort.percentile == 30  # the first round had nobody that was known: 0 + 2.8 against 5.7 is no stall
    oort.observe([told(0, 0.5, 1.0)])
    assert oort.percentile == 35
    for examples in (100, 100):
        oort.observe([told(0, 0.5, 1.0, examples)])
    assert oort.percentile == 30
    assert len(oort.gains) == 4


def test_oort_needs_to_know_how_long_devices_take() -> None:
    with pytest.raises(ConfigError, match=r"strategy.sampler Oort goes by how long devices take, .* no system"):
        Oort().begin(load_config(None))
    Oort().begin(load_config(None, ["system.jitter=0"]))
    with pytest.raises(ConfigError, match=r"the reply of device 3 does not say so"):
        Oort().observe([Measures(3, 4, 4, 0.5)])
    with pytest.raises(ValueError, match=r"clip=1.5 of Oort must be in \[0, 1\]"):
        Oort(clip=1.5)


def test_rounds_of_a_heavy_tailed_fleet_are_shorter_than_those_of_random_devices() -> None:
    """Of 64 devices with Pareto(1) durations 8 are asked; once all are known the slowest hold up few rounds.

    Oort still asks new devices while there are any, so the first rounds are left out.
    """
    took = np.random.default_rng(3).pareto(1.0, 64) + 1  # (64,)

    def longest(sampler: Oort | RandomShare) -> float:
        rounds = []
        for round_ in range(1, 61):
            chosen = sampler.choose(range(64), round_, 0)
            rounds.append(max(took[device] for device in chosen))
            if isinstance(sampler, Oort):
                sampler.observe([told(device, 0.5, float(took[device])) for device in chosen])
        return float(np.mean(rounds[20:]))

    assert longest(Oort(0.125)) < 0.5 * longest(RandomShare(0.125))
