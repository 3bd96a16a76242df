"""Samplers: a sorted, non-empty part of the cohort, the same for the same seed and round."""

import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsim.config.load import load_config
from flsim.config.ranges import ConfigError
from flsim.flower.messages import Measures
from flsim.system.availability import HOUR
from strategies.parts.samplers import Everyone, FairShare, LeastAvailable, Observes, RandomShare, Sampler, WorstOff

COHORTS = st.lists(st.integers(0, 99), min_size=1, max_size=20, unique=True)
SHARES = st.floats(0.01, 1.0)


def told(device: int, reward: float) -> Measures:
    return Measures(device, 4, 4, reward)


@given(cohort=COHORTS, share=SHARES, round_=st.integers(1, 50), seed=st.integers(0, 50))
def test_every_sampler_takes_a_sorted_part_of_the_cohort(
    cohort: list[int], share: float, round_: int, seed: int
) -> None:
    informed = WorstOff(share)
    informed.observe([told(device, device / 100) for device in cohort[::2]])
    fair = FairShare(share)
    fair.observe([told(device, 0.5) for device in cohort[::3]])
    samplers: list[Sampler] = [Everyone(), RandomShare(share), WorstOff(share), informed, fair]
    for sampler in samplers:
        chosen = sampler.choose(cohort, round_, seed)
        assert chosen == sorted(set(chosen))
        assert set(chosen) <= set(cohort)
        assert len(chosen) == (len(cohort) if isinstance(sampler, Everyone) else max(1, round(share * len(cohort))))
        assert all(type(device) is int for device in chosen)
        assert chosen == pickle.loads(pickle.dumps(sampler)).choose(cohort[::-1], round_, seed)


@pytest.mark.parametrize("sampler", [RandomShare(0.5), WorstOff(0.5), FairShare(0.5)])
def test_rounds_and_seeds_draw_apart(sampler: Sampler) -> None:
    cohort = list(range(40))
    drawn = [tuple(sampler.choose(cohort, round_, seed)) for round_ in (1, 2) for seed in (0, 1)]
    assert len(set(drawn)) == 4


def test_every_device_has_its_turn() -> None:
    taken = [device for round_ in range(200) for device in RandomShare(0.25).choose(range(8), round_, 0)]
    assert [35 < taken.count(device) < 65 for device in range(8)] == [True] * 8  # 50 on average


def test_the_worst_off_by_hand() -> None:
    """Rewards 0.9, 0.1, 0.5 of three, and one that never learned: half of four is that one and the one with 0.1."""
    sampler = WorstOff(0.5)
    sampler.observe([told(0, 0.9), told(1, 0.1), told(2, 0.5)])
    assert sampler.choose([0, 1, 2, 3], 5, 0) == [1, 3]
    sampler.observe([told(3, 0.8), told(1, 0.95)])  # the latest counts
    assert sampler.choose([0, 1, 2, 3], 6, 0) == [2, 3]
    assert sampler.choose([0], 7, 0) == [0]


def test_a_fair_share_by_hand() -> None:
    """Of counts 2, 1, 0, 1 the lowest half are device 2 and one of 1 and 3; over rounds nobody is two ahead."""
    sampler = FairShare(0.5)
    for devices in ((0, 1), (0, 3)):
        sampler.observe([told(device, 0.5) for device in devices])
    assert {tuple(sampler.choose(range(4), round_, 0)) for round_ in range(20)} == {(1, 2), (2, 3)}
    for round_ in range(10):
        sampler.observe([told(device, 0.5) for device in sampler.choose(range(4), round_, 0)])
        assert max(sampler.counts.values()) - min(sampler.counts.get(device, 0) for device in range(4)) <= 2
    assert sorted(sampler.counts.values()) == [6, 6, 6, 6]


def least_available(folder: Path, rows: str) -> LeastAvailable:
    """A sampler of one in two that has met a run with this trace."""
    (folder / "trace.csv").write_text(f"device,from_s,until_s\n{rows}")
    sampler = LeastAvailable(0.5, round_s=3600)
    sampler.begin(load_config(None, ["system.availability.kind=file", f"system.availability.path={folder}/trace.csv"]))
    return sampler


def test_the_least_available_by_hand(tmp_path: Path) -> None:
    """Rounds of an hour: from one to two hours from now 0 is there for all of it, 1 for half, 2 and 3 not at all."""
    sampler = least_available(tmp_path, "0,0,14400\n1,0,5400\n2,0,3600\n3,0,3000\n")
    sampler.tell(0)
    assert sampler.choose(range(4), 1, 0) == [2, 3]
    assert sampler.choose([0, 1, 3], 1, 0) == [1, 3]
    assert sampler.choose([0, 1], 1, 0) == [1]
    sampler.tell(HOUR)  # the trace comes again after four hours, so for all the last of them is 0's alone
    assert {tuple(sampler.choose(range(4), round_, 0)) for round_ in range(30)} == {(1, 2), (1, 3), (2, 3)}


def test_the_next_round_is_as_long_as_rounds_were(tmp_path: Path) -> None:
    """A round whose longest took 400 s after one of 3,600: 3600 - 0.75 (3600 - 400) = 1200 s."""
    sampler = least_available(tmp_path, "0,0,14400\n")
    sampler.observe([Measures(0, 4, 4, 0.5, seconds=100.0), Measures(1, 4, 4, 0.5, seconds=400.0)])
    assert sampler.round_s == 1200
    kept = pickle.loads(pickle.dumps(sampler))
    assert kept.round_s == 1200
    assert len(pickle.dumps(kept)) < 500  # the trace is not in it


def test_the_least_available_need_a_run_with_a_system() -> None:
    sampler = LeastAvailable()
    with pytest.raises(ConfigError, match=r"LeastAvailable goes by when devices are there, and there is no system"):
        sampler.begin(load_config(None))
    with pytest.raises(ConfigError, match=r"was not told when devices are there or what time it is"):
        sampler.choose([0, 1], 1, 0)
    with pytest.raises(ConfigError, match=r"the reply of device 1 does not say so"):
        sampler.observe([told(1, 0.5)])


def test_only_those_that_go_by_the_past_are_told() -> None:
    assert [isinstance(sampler, Observes) for sampler in (Everyone(), RandomShare(), WorstOff())] == [
        False,
        False,
        True,
    ]


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, float("nan")])
@pytest.mark.parametrize("kind", [RandomShare, WorstOff, FairShare, LeastAvailable])
def test_a_share_of_nobody_or_of_more_than_all_is_refused(kind: type[RandomShare | WorstOff], share: float) -> None:
    with pytest.raises(ValueError, match=rf"share={share} must be above 0 and at most 1"):
        kind(share)
