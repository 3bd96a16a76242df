"""The fleet's budget: laws of sharing and booking, numbers by hand, and a bandit whose devices gain unequally."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsim.budget.division import below, even, split_exact, split_whole, whole_part
from flsim.budget.fleet import (
    Allotment,
    FleetState,
    Habit,
    Report,
    allot,
    book,
    caps_of_run,
    first_state,
    narrowed,
    taus_of_tests,
)
from flsim.config.schema import DIVISIONS, BudgetConfig, Config, FleetBudgetConfig, FleetConfig

DEVICES = 6


def config_of(tau: float = 0.3, rounds: int = 5, devices: int = DEVICES, **fleet: Any) -> Config:
    budget = BudgetConfig(tau=tau, fleet=FleetBudgetConfig(**fleet))
    return Config(rounds=rounds, fleet=FleetConfig(devices=devices), budget=budget)


def knowing(config: Config, prompts: Sequence[int], usage: Sequence[float]) -> FleetState:
    """A state that knows of the first devices how many prompts they meet and how often they ask."""
    habits = {k: Habit(Fraction(n), u) for k, (n, u) in enumerate(zip(prompts, usage, strict=True))}
    return replace(first_state(config.budget.fleet), habits=habits)


def allotments(config: Config, state: FleetState, cohort: Sequence[int], round_: int) -> dict[int, Allotment]:
    return allot(config.budget, state, cohort, round_, devices=config.fleet.devices, rounds=config.rounds)


def report(calls: int = 0, tokens: int = 0, money: float = 0.0, *, asked: float = 0.0, prompts: int = 10) -> Report:
    return Report(calls, tokens, money, prompts, asked, 8.0 * prompts)


# ------------------------------------------------------------------------------------------------------- sharing out

WEIGHTS = st.dictionaries(st.integers(0, 40), st.integers(0, 9).map(Fraction), min_size=1, max_size=12)
POOL = st.integers(0, 200)


@given(WEIGHTS, POOL, st.integers(0, 1000))
def test_whole_numbers_sum_to_the_pool_and_round_the_exact_part(
    weights: dict[int, Fraction], pool: int, turn: int
) -> None:
    shares = even(weights)
    dealt = split_whole(pool, shares, turn)
    assert sum(dealt.values()) == pool
    for key, number in dealt.items():
        assert math.floor(pool * shares[key]) <= number <= math.ceil(pool * shares[key])
    backwards = dict(reversed(shares.items()))
    assert split_whole(pool, backwards, turn) == dealt


@given(WEIGHTS, st.floats(0, 1e9).map(Fraction))
def test_exact_amounts_are_never_above_the_pool(weights: dict[int, Fraction], pool: Fraction) -> None:
    """In exact arithmetic, and short of it by no more than the rounding of each."""
    shares = even(weights)
    dealt = split_exact(pool, shares)
    assert all(Fraction(amount) <= pool * shares[key] for key, amount in dealt.items())
    assert sum(map(Fraction, dealt.values())) >= pool * (1 - Fraction(1, 2**50))


def test_a_float_below_a_tenth_is_below_a_tenth() -> None:
    """The float 0.1 is a little above it."""
    assert Fraction(below(Fraction(1, 10))) < Fraction(1, 10) < Fraction(0.1)
    assert below(Fraction(1, 4)) == 0.25


def test_over_the_rounds_everyone_comes_to_its_part() -> None:
    """Five calls for 16 devices of which one has a double share: 5/17 and 10/17 per round, in 1000 rounds 294 and 588.

    By largest remainders the double one would get a call in every round, and eleven of the others none ever.
    """
    shares = even({k: Fraction(2 if k == 3 else 1) for k in range(16)})
    got = dict.fromkeys(range(16), 0)
    for turn in range(1, 1001):
        for key, number in split_whole(5, shares, turn).items():
            got[key] += number
    assert got[3] == pytest.approx(588, abs=3)
    assert all(number == pytest.approx(294, abs=3) for key, number in got.items() if key != 3)


def test_the_parts_of_a_cap_by_hand() -> None:
    """The docstring's: 10 calls in 4 rounds, all spent or none; and never more than is left."""
    spent, parts = 0, []
    for round_ in range(1, 5):
        parts.append(whole_part(10, spent, round_, 4))
        spent += parts[-1]
    assert parts == [2, 3, 2, 3]
    assert [whole_part(10, 0, round_, 4) for round_ in range(1, 5)] == [2, 3, 4, 10]
    assert whole_part(10, 9, 2, 4) == 1


# --------------------------------------------------------------------------------------- laws of dealing and booking

CAPS = st.fixed_dictionaries(
    {
        "division": st.sampled_from(DIVISIONS),
        "calls_total": st.none() | st.integers(0, 90),
        "calls_per_round": st.none() | st.integers(0, 30),
        "tokens_total": st.none() | st.integers(0, 900),
        "money_total": st.none() | st.floats(0, 3),
    }
)
COHORT = st.lists(st.integers(0, DEVICES - 1), min_size=1, max_size=DEVICES, unique=True)
ASKED = st.floats(0, 80).map(round)
OUTCOME = st.tuples(st.sampled_from(["fails", "spends all", "spends half"]), ASKED, st.integers(0, 30))
ROUNDS = st.lists(st.tuples(COHORT, st.lists(OUTCOME, min_size=DEVICES, max_size=DEVICES)), min_size=5, max_size=5)


def spend(own: Allotment, how: str, asked: int, prompts: int) -> Report:
    part = 1 if how == "spends all" else 2
    calls, tokens = (3 if amount is None else amount // part for amount in (own.calls, own.tokens))
    return report(calls, tokens, (own.money or 0.0) / part, asked=min(asked, 8 * prompts), prompts=prompts)


@given(CAPS, ROUNDS)
def test_no_cap_is_ever_passed(caps: dict[str, Any], rounds: Sequence[Any]) -> None:
    """Whoever takes part, spends or fails, over a whole run and in exact arithmetic; a failure is charged in full."""
    config = config_of(**caps)
    fleet, state = config.budget.fleet, first_state(config.budget.fleet)
    for round_, (cohort, outcomes) in enumerate(rounds, start=1):
        dealt = allotments(config, state, cohort, round_)
        assert dealt == allotments(config, state, cohort[::-1], round_)
        assert dealt.keys() == set(cohort)
        for kind in ("calls", "tokens", "money"):
            amounts = [Fraction(getattr(own, kind)) for own in dealt.values() if getattr(own, kind) is not None]
            left = getattr(fleet, f"{kind}_total")
            assert all(amount >= 0 for amount in amounts)
            assert len(amounts) == (len(cohort) if kind in caps_of_run(config.budget.fleet, config.rounds) else 0)
            assert left is None or sum(amounts) <= Fraction(left) - getattr(state, kind)
            if kind == "calls" and fleet.calls_per_round is not None:
                assert sum(amounts) <= fleet.calls_per_round
        reports = {
            device: spend(dealt[device], how, asked, prompts)
            for device, (how, asked, prompts) in zip(cohort, outcomes, strict=False)
            if how != "fails"
        }
        before, state = state, book(config.budget, state, dealt, reports)
        charged = [reports.get(device, own) for device, own in dealt.items()]
        assert state.calls - before.calls == sum(one.calls or 0 for one in charged)
        assert state.tokens - before.tokens == sum(one.tokens or 0 for one in charged)
        assert state.money - before.money == sum(Fraction(one.money or 0.0) for one in charged)
        assert 0 <= state.price <= fleet.price_max
        assert state.habits.keys() == before.habits.keys() | reports.keys()
    for kind, cap in caps_of_run(config.budget.fleet, config.rounds).items():
        assert getattr(state, kind) <= Fraction(cap)


@given(st.sampled_from(DIVISIONS), st.integers(0, 99), st.integers(1, 5))
def test_equal_devices_get_equal_allotments_within_one_call(share: str, calls: int, round_: int) -> None:
    config = config_of(division=share, calls_total=calls, money_total=1.0)
    for state in (first_state(config.budget.fleet), knowing(config, [20] * DEVICES, [0.4] * DEVICES)):
        dealt = allotments(config, state, range(DEVICES), round_).values()
        numbers = [own.calls for own in dealt if own.calls is not None]
        assert len(numbers) == DEVICES
        assert max(numbers) - min(numbers) <= 1
        assert len({own.money for own in dealt}) == 1
        assert {own.tau for own in dealt} == ({None} if share == "price" else {0.3})
        assert {own.test_tau for own in dealt} == {0.3}


@given(
    st.sampled_from(DIVISIONS),
    st.floats(0, 1),
    st.lists(st.tuples(st.integers(0, 50), st.floats(0, 1)), max_size=DEVICES),
)
def test_test_budgets_come_to_at_most_tau_of_all_test_prompts(
    share: str, tau: float, habits: list[tuple[int, float]]
) -> None:
    config = config_of(tau, division=share)
    state = knowing(config, [n for n, _ in habits], [u for _, u in habits])
    taus = [*taus_of_tests(config.budget, state, range(DEVICES), devices=DEVICES).values()]
    assert len(taus) == DEVICES
    assert all(0 <= own <= 1 for own in taus)
    assert sum(taus) <= tau * DEVICES * (1 + 1e-12)


# ----------------------------------------------------------------------------------------------------------- by hand


def test_three_ways_to_share_by_hand() -> None:
    """Two devices, 10 and 30 prompts per round, usage 0.5 and 0.1; 80 calls per round, tau = 0.3.

    Equally: 40 calls each; of 0.3 x 40 = 12 prompts that may ask each has 6, tau_k = 6/10 and 6/30. By traffic: 80 in
    the proportion 10 : 30, so 20 and 60, tau_k = 0.3. By price: they want 5 and 3; 8 calls go equally, 72 as 5 : 3, so
    4 + 45 = 49 and 4 + 27 = 31; of the 12 prompts 7.35 and 4.65 go to them, 0.735 and 0.155 of theirs.
    The mean of the tau_k is 0.4, 0.3 and 0.445; on tests they are scaled to a mean of 0.3.
    """
    expected = {
        "equally": ([40, 40], [0.6, 0.2], [0.45, 0.15]),
        "traffic": ([20, 60], [0.3, 0.3], [0.3, 0.3]),
        "price": ([49, 31], [None, None], [0.735 * 0.3 / 0.445, 0.155 * 0.3 / 0.445]),
    }
    for share, (calls, taus, tests) in expected.items():
        config = config_of(devices=2, division=share, calls_per_round=80)
        dealt = allotments(config, knowing(config, [10, 30], [0.5, 0.1]), [0, 1], 1)
        assert [dealt[k].calls for k in (0, 1)] == calls
        assert [dealt[k].tau for k in (0, 1)] == pytest.approx(taus)
        assert [dealt[k].test_tau for k in (0, 1)] == pytest.approx(tests)


def test_an_equal_share_is_at_most_every_prompt() -> None:
    """tau = 0.6 of 10 + 90 prompts are 30 calls each; the first device has 10 prompts only."""
    config = config_of(0.6, devices=2, division="equally")
    dealt = allotments(config, knowing(config, [10, 90], [0.5, 0.5]), [0, 1], 1)
    assert [dealt[k].tau for k in (0, 1)] == pytest.approx([1.0, 30 / 90])


def test_the_price_by_hand() -> None:
    """lambda 0.5, tau 0.3, step 0.5, gain 1. 50 + 30 of 160 responses asked: J = 0.5, 0.2 above tau.

    lambda = 0.5 + 0.5 x 0.2 = 0.6, the price 0.6 + 0.2 = 0.8. Then nobody asks: lambda = 0.6 - 0.15 = 0.45, the price
    0.45 - 0.3 = 0.15. A round in which nobody reports moves nothing.
    """
    config = config_of(division="price", price_lr=0.5, price_gain=1.0)
    state, dealt = first_state(config.budget.fleet), dict.fromkeys((0, 1), Allotment())
    assert allotments(config, state, [0, 1], 1)[1].price == 0.5
    state = book(config.budget, state, dealt, {0: report(asked=50), 1: report(asked=30)})
    assert (state.dual, state.price) == pytest.approx((0.6, 0.8))
    assert state.habits[0].usage == 50 / 80
    assert book(config.budget, state, dealt, {}).price == state.price
    state = book(config.budget, state, dealt, {0: report(), 1: report()})
    assert (state.dual, state.price) == pytest.approx((0.45, 0.15))
    assert state.habits[0].usage == 25 / 80


def test_who_never_asked_is_not_locked_out() -> None:
    """A tenth of 60 calls goes equally over 6 devices: one each, though all the others go to those who ask."""
    config = config_of(division="price", calls_per_round=60)
    dealt = allotments(config, knowing(config, [10] * DEVICES, [0.0, 1.0, 1.0, 0.0, 1.0, 1.0]), range(DEVICES), 3)
    assert [dealt[k].calls for k in (0, 3)] == [1, 1]
    assert sum(own.calls or 0 for own in dealt.values()) == 60


def test_the_cap_of_the_run_is_the_tighter_of_the_two() -> None:
    per_round = FleetBudgetConfig(calls_per_round=7)
    assert caps_of_run(per_round, 5) == {"calls": 35}
    assert caps_of_run(replace(per_round, calls_total=30, tokens_total=4), 5) == {"calls": 30, "tokens": 4}


def test_a_devices_own_caps_still_hold() -> None:
    own = BudgetConfig(tau=0.3, calls_per_round=5, tokens_total=90)
    assert narrowed(own, Allotment()) == own
    assert narrowed(own, Allotment(0.2, 0.4, calls=7, tokens=8, money=0.5)) == replace(
        own, tau=0.2, calls_per_round=5, tokens_per_round=8, money_per_round=0.5
    )
    assert narrowed(own, Allotment(calls=0)).calls_per_round == 0


# ------------------------------------------------------------------------------------------------------ on a bandit


def play(config: Config, gains: Mapping[int, Sequence[float]]) -> tuple[FleetState, dict[int, int]]:
    """Devices whose chance to ask at a prompt climbs where asking gains more than the price: (state, calls of each).

    Device k meets prompts that gain `gains[k]`, ten of each per round; of what it is refused it learns as of the rest.
    """
    state, calls = first_state(config.budget.fleet), dict.fromkeys(gains, 0)
    logits = {k: np.zeros(len(row)) for k, row in gains.items()}
    for round_ in range(1, config.rounds + 1):
        dealt = allotments(config, state, list(gains), round_)
        assert len({own.price for own in dealt.values()}) == 1
        reports = {}
        for k, row in gains.items():
            asking = 1 / (1 + np.exp(-logits[k]))
            wanted = round(10 * float(asking.sum()))
            granted = wanted if dealt[k].calls is None else min(wanted, dealt[k].calls or 0)
            calls[k] += granted
            asked = float(np.round(80 * asking).sum())
            reports[k] = Report(granted, 0, 0.0, 10 * len(row), asked, 80.0 * len(row))
            logits[k] += 20 * asking * (1 - asking) * (np.array(row) - state.price)
        state = book(config.budget, state, dealt, reports)
    return state, calls


def test_at_one_price_those_who_gain_most_use_the_cloud() -> None:
    """Eight prompt types on two devices; the fleet may ask at half of them, the four that gain more than 0.4.

    Three of these are met by device 0 (0.9, 0.8, 0.7) and one by device 1 (0.5), so in the end they ask at 30 and 10
    prompts per round, at a price between 0.3 and 0.5. Sharing equally gives them half of the calls each.
    """
    gains = {0: (0.9, 0.8, 0.7, 0.3), 1: (0.5, 0.2, 0.1, 0.05)}
    by_price = config_of(0.5, rounds=60, devices=2, division="price", calls_total=60 * 40)
    state, calls = play(by_price, gains)
    assert 0.3 < state.price < 0.5
    assert state.habits[0].usage == pytest.approx(0.75, abs=0.06)
    assert state.habits[1].usage == pytest.approx(0.25, abs=0.06)
    assert calls[0] > 2 * calls[1] > 0
    assert sum(calls.values()) == state.calls <= 60 * 40
    tests = taus_of_tests(by_price.budget, state, range(by_price.fleet.devices), devices=by_price.fleet.devices)
    assert tests[0] > 0.6
    assert sum(tests.values()) <= 1.0
    dealt = allotments(config_of(0.5, rounds=60, devices=2, calls_total=60 * 40), state, [0, 1], 1)
    assert [own.calls for own in dealt.values()] == [20, 20]
