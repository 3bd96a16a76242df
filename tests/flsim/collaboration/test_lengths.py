"""Draft lengths: where an unsure device stops, and a bandit that finds the best length of a link."""

import random

import pytest

from flsim.collaboration.lengths import SURE, Bandit, until_unsure
from flsim.collaboration.worth import Pace


def test_an_unsure_device_stops_after_the_token() -> None:
    assert until_unsure([0.9, 0.5, 0.3, 0.8, 0.4], SURE) == 3
    assert until_unsure([0.9, 0.4], SURE) == 2
    assert until_unsure([0.1, 0.9], 0.0) == 2
    assert until_unsure([], SURE) == 0


def test_a_bandit_plays_every_length_first_then_the_quickest() -> None:
    """By hand: lengths 1 and 2 take 3 and 1 seconds per token, once each; the next is 2, whose bound is lower."""
    new = Bandit.new(2)
    assert new.choose() == 2
    one = new.seen(2, 4, 4.0)
    assert one.choose() == 1
    both = one.seen(1, 2, 6.0)
    assert both == Bandit((1, 1), (2, 4), (6.0, 4.0))
    assert both.choose() == 2
    assert Bandit.of(both.numbers) == both
    assert both.numbers == (1, 1, 2, 4, 6.0, 4.0)


def test_an_unlucky_length_is_tried_again() -> None:
    """By hand: after 100 plays of length 2 at 1 s and one of length 1 at 1.5 s, luck may be .5 sqrt(2 ln 101) = 1.52 s
    for the one and .152 s for the other: -.02 is less than .85."""
    assert Bandit((1, 100), (1, 100), (1.5, 100.0)).choose() == 1


@pytest.mark.parametrize("rtt", [0.01, 0.2])
def test_a_bandit_finds_the_length_of_its_link(rtt: float) -> None:
    """With a = 0.8 and 20 and 30 ms; it plays most within a twentieth of the least seconds per token."""
    pace, rng, known, played = Pace(0.02, 0.03, rtt), random.Random(1), Bandit.new(8), []
    for _ in range(3000):
        length = known.choose()
        tokens = next((k for k in range(length) if rng.random() >= 0.8), length) + 1
        known = known.seen(length, tokens, length * 0.02 + 0.03 + rtt)
        played.append(length)
    best = pace.per_token(0.8, pace.best_length(0.8, 8))
    late = [pace.per_token(0.8, length) <= 1.05 * best for length in played[1500:]]
    assert sum(late) / len(late) > 0.6
    assert sum(known.played) == 3000
