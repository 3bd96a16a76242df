"""Samplers: a sorted, non-empty part of the cohort, the same for the same seed and round."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsim.flower.messages import Measures
from strategies.parts.samplers import Everyone, Observes, RandomShare, Sampler, WorstOff

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
    samplers: list[Sampler] = [Everyone(), RandomShare(share), WorstOff(share), informed]
    for sampler in samplers:
        chosen = sampler.choose(cohort, round_, seed)
        assert chosen == sorted(set(chosen))
        assert set(chosen) <= set(cohort)
        assert len(chosen) == (len(cohort) if isinstance(sampler, Everyone) else max(1, round(share * len(cohort))))
        assert all(type(device) is int for device in chosen)
        assert chosen == pickle.loads(pickle.dumps(sampler)).choose(cohort[::-1], round_, seed)


@pytest.mark.parametrize("sampler", [RandomShare(0.5), WorstOff(0.5)])
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


def test_only_those_that_go_by_the_past_are_told() -> None:
    assert [isinstance(sampler, Observes) for sampler in (Everyone(), RandomShare(), WorstOff())] == [
        False,
        False,
        True,
    ]


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, float("nan")])
@pytest.mark.parametrize("kind", [RandomShare, WorstOff])
def test_a_share_of_nobody_or_of_more_than_all_is_refused(kind: type[RandomShare | WorstOff], share: float) -> None:
    with pytest.raises(ValueError, match=rf"share={share} must be above 0 and at most 1"):
        kind(share)
