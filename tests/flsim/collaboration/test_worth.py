"""When drafting pays and what it takes, by the closed forms, by hand, and by turns that are played out."""

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsim.collaboration.worth import Pace, Turn, billed, expected_tokens, fewest_accepted, room_for

MS = 1e-3
FOUR_TURNS = [Turn(4, 4, 1)] * 4


def test_expected_tokens_by_hand() -> None:
    assert [round(expected_tokens(0.8, k), 4) for k in range(1, 6)] == [1.8, 2.44, 2.952, 3.3616, 3.6893]
    assert expected_tokens(1.0, 4) == 5
    assert expected_tokens(0.0, 4) == 1


@given(st.floats(0, 0.99), st.integers(0, 20))
def test_expected_tokens_is_the_closed_form(acceptance: float, drafted: int) -> None:
    assert expected_tokens(acceptance, drafted) == pytest.approx((1 - acceptance ** (drafted + 1)) / (1 - acceptance))


def test_expected_tokens_are_those_of_turns_that_are_played() -> None:
    rng = random.Random(0)
    gained = sum(next((k for k in range(4) if rng.random() >= 0.8), 4) + 1 for _ in range(20_000))
    assert gained / 20_000 == pytest.approx(expected_tokens(0.8, 4), rel=0.01)


@pytest.mark.parametrize(
    ("acceptance", "verify_ms", "drafted", "longest_ms"), [(0.8, 30, 1, 4), (0.8, 100, 7, 176), (0.6, 100, 3, 58)]
)
def test_the_trip_up_to_which_drafting_pays(
    acceptance: float, verify_ms: float, drafted: int, longest_ms: float
) -> None:
    """And no other length has a longer one."""
    pace = Pace(20 * MS, verify_ms * MS, 0.0)
    assert round(pace.longest_rtt(acceptance, drafted) / MS) == longest_ms
    assert max(range(1, 30), key=lambda k: pace.longest_rtt(acceptance, k)) == drafted
    at_it = Pace(20 * MS, verify_ms * MS, pace.longest_rtt(acceptance, drafted))
    assert at_it.per_token(acceptance, drafted) == pytest.approx(verify_ms * MS)  # as fast as a stream
    assert not at_it.pays(acceptance, drafted)
    assert Pace(20 * MS, verify_ms * MS, at_it.rtt_s - 1e-9).pays(acceptance, drafted)


@pytest.mark.parametrize(
    ("rtt_ms", "best", "per_token_ms"), [(10, 2, 32.8), (50, 3, 47.4), (100, 5, 62.3), (200, 6, 88.6)]
)
def test_the_best_length_grows_slowly(rtt_ms: float, best: int, per_token_ms: float) -> None:
    pace = Pace(20 * MS, 30 * MS, rtt_ms * MS)
    assert pace.best_length(0.8, 20) == best
    assert round(pace.per_token(0.8, best) / MS, 1) == per_token_ms


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.001, 0.1), st.floats(0.001, 0.2))
def test_the_best_length_never_falls_with_the_trip(a: float, rtt: float, draft: float, verify: float) -> None:
    lengths = [Pace(draft, verify, rtt * factor).best_length(a, 12) for factor in (0.5, 1, 2)]
    assert lengths == sorted(lengths)


def test_what_is_sent_shortens_the_trip_that_pays() -> None:
    """1,000 bytes at 1 Mbit/s are 8 ms."""
    assert Pace(20 * MS, 100 * MS, 0, 8 * MS).longest_rtt(0.8, 7) == pytest.approx(
        Pace(20 * MS, 100 * MS, 0).longest_rtt(0.8, 7) - 8 * MS
    )


def test_billing_by_hand() -> None:
    """A prompt of 100, 20 tokens, k = 4, all accepted; 0.27 and 1.10 per million tokens."""
    session, stateless = billed(100, FOUR_TURNS, stateless=False), billed(100, FOUR_TURNS, stateless=True)
    assert session == (116, 4)
    assert stateless == (446, 4)
    money = [0.27 * read + 1.10 * said for read, said in (session, stateless, (100, 20))]
    assert [round(one, 1) for one in money] == [35.7, 124.8, 49.0]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=8), st.integers(1, 200))
def test_a_session_is_never_dearer(turns: list[tuple[int, int]], prompt: int) -> None:
    played = [Turn(drafted, min(drafted, accepted), 1) for drafted, accepted in turns]
    session, stateless = billed(prompt, played, stateless=False), billed(prompt, played, stateless=True)
    assert session[0] == prompt + sum(turn.drafted for turn in played)
    assert session[0] <= stateless[0]
    assert session[1] == stateless[1] == len(played)
    assert billed(prompt, played[:1], stateless=True) == billed(prompt, played[:1], stateless=False)


def test_without_drafts_it_is_the_stream() -> None:
    assert billed(100, fewest_accepted(20, 0), stateless=False) == (100, 20)


@given(st.integers(1, 20), st.integers(0, 6), st.randoms(use_true_random=False), st.booleans())
def test_no_exchange_takes_more_than_one_without_acceptance(
    longest: int, most: int, rng: random.Random, stateless: bool
) -> None:
    turns: list[Turn] = []
    while (said := sum(turn.gained for turn in turns)) < longest:
        drafted = room_for(longest, said, most)
        turns.append(Turn(drafted, rng.randint(0, drafted), 1))
    assert said == longest
    worst = fewest_accepted(longest, most)
    assert len(turns) <= len(worst)
    assert sum(turn.drafted for turn in turns) <= sum(turn.drafted for turn in worst)
    assert all(
        took <= top
        for took, top in zip(
            billed(50, turns, stateless=stateless), billed(50, worst, stateless=stateless), strict=True
        )
    )


def test_seconds_grow_about_as_the_logarithm_of_the_trip() -> None:
    """From trip to trip, each ten times as long, k grows by as much again, not ten times."""
    lengths = [Pace(20 * MS, 30 * MS, rtt).best_length(0.8, 100) for rtt in (0.1, 1.0, 10.0, 100.0)]
    steps = [later - before for before, later in itertools.pairwise(lengths)]
    assert max(steps) <= math.log(10) / -math.log(0.8) + 1
