"""Budgets in any unit on devices: what a request weighs, what lambda then does, caps that hold over all attempts."""

import dataclasses
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import flsim
from clients.da_grpo import DaGrpo
from clients.device.buying import buy_answers
from clients.device.device import Device
from clients.device.rollout import Rollout
from clients.device.weighing import Weights, over_mean, request_weights
from clients.device.world import World, load_world
from clients.gapg import Gapg, kept_prompts
from flsim.budget.ledger import Account, Ledger
from flsim.cloud.builtin import Oracle
from flsim.cloud.journal import TRAINING, journal_of
from flsim.cloud.protocol import Answer, bytes_sent
from flsim.config.load import load_config
from flsim.config.schema import BudgetConfig, CloudConfig, ConfigError
from flsim.config.system import SystemConfig
from flsim.flower.contract import client_of
from flsim.flower.messages import DeviceUpdate
from flsim.learning.advantage import cost_advantage
from flsim.learning.dual import solved_price
from flsim.loop.checks import check_settings
from flsim.metrics.rows import without_timing
from flsim.problems.problem import Problem
from tests.flsim.cloud.test_cloud import problems
from tests.tiny import TOKEN, TinyRun, tiny_world

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def world(tiny_checkpoint: Path) -> World:
    return load_world(tiny_world(tiny_checkpoint, "model.alpha=6", "budget.tau=0.3"))


def counting(world: World, unit: str, **caps: Any) -> World:
    """The same world under another unit, on the devices and links that ship."""
    budget = replace(world.config.budget, unit=unit, **caps)
    return replace(world, config=replace(world.config, budget=budget, system=SystemConfig()))


def device_of(world: World, *, dual: float = 0.5) -> Device:
    rng = np.random.default_rng(7)
    adapter = {name: rng.normal(0, 0.2, tensor.shape).astype(np.float32) for name, tensor in world.first.items()}
    return Device(0, 1, adapter, dual, Ledger(world.config.budget), None, tariff=world.tariff(0, 1))


def total(update: DeviceUpdate, name: str) -> tuple[float, float]:
    rows = [row for row in update.rows if row.name == name]
    return sum(row.total for row in rows), sum(row.weight for row in rows)


# ------------------------------------------------------------------------------------------------- by hand


def rollout_of(asked: Tensor, weight: Tensor | None, explored: Tensor | None = None) -> Rollout:
    """A device's responses, of which only the requests matter."""
    open_ = torch.ones(asked.shape[:2], dtype=torch.bool) if explored is None else ~explored  # (K, P)
    none = cast(Any, None)
    weighing = None if weight is None else Weights(weight, weight, weight)
    return Rollout(none, none, none, none, asked, open_, none, none, explored, weighing)


def test_two_prompts_of_costs_1_and_3_by_hand() -> None:
    """They weigh 1/2 and 3/2. Both responses to the cheap one ask, and one of two to the dear one.

    By calls that is 3 of 4; by cost 0.5 + 0.5 + 1.5 of 0.5 + 0.5 + 1.5 + 1.5. Costs within a group are centred, times
    2 / (2 - 1): the unanimous group feels nothing, the dear one +-1.5. Explored, the dear one counts as if all asked.
    """
    assert over_mean([Fraction(1), Fraction(3)]) == [0.5, 1.5]
    asked, weight = torch.tensor([[[1.0, 1.0], [0.0, 1.0]]]), torch.tensor([[0.5, 1.5]])
    assert rollout_of(asked, None).usage.tolist() == [0.75]
    assert rollout_of(asked, weight).usage.tolist() == [2.5 / 4]
    costs = rollout_of(asked, weight).costs
    assert cost_advantage(costs, baseline="group").tolist() == [[[0.0, 0.0], [-1.5, 1.5]]]
    assert cost_advantage(costs, baseline="budget", tau=0.5).tolist() == [[[0.0, 0.0], [-0.5, 1.0]]]
    alone = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    explored = rollout_of(alone, weight, torch.tensor([[False, True]]))
    assert explored.usage.tolist() == [(0.5 + 2 * 1.5) / 4]


def test_costs_that_are_equal_weigh_1_to_the_last_bit() -> None:
    assert over_mean([Fraction(0.1)] * 7) == [1.0] * 7
    assert over_mean([Fraction(0)] * 3) == [1.0] * 3


def test_the_solved_price_of_weighed_drafts() -> None:
    """Benefits of 0.5 and weights 1/2 and 3/2 at lambda 1 and T 0.1: (0.5 x 1/2 + 1.5 sigmoid(-10)) / 2 = 0.125034.

    Weights of 1 are no weights, to the last bit.
    """
    gain, weight = torch.tensor([0.5, 0.5]), torch.tensor([0.5, 1.5])
    assert solved_price(gain, 0.12503405, 0.1, weight) == pytest.approx(1.0, abs=1e-5)
    drawn = torch.linspace(-1, 1, 9)
    assert solved_price(drawn, 0.3, 0.1, torch.ones(9)) == solved_price(drawn, 0.3, 0.1)


def test_the_filter_of_gapg_weighs_both_sets() -> None:
    """The device solves the cheap prompt, the cloud the dear one: 1.5 fits under rho times 0.5 from rho 3 on."""
    alone, right = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]), torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    real, weight = torch.ones(1, 2, dtype=torch.bool), torch.tensor([[0.5, 1.5]])
    for rho, kept in ((3.0, [True, True]), (2.9, [True, False])):
        assert kept_prompts(alone, right, real, rho=[rho], weight=weight).tolist() == [kept]
    assert kept_prompts(alone, right, real, rho=[1.0]).tolist() == [[True, True]]


# ------------------------------------------------------------------------------------------------- on devices


class Even(Oracle):
    """Whose questions all cost the same at most."""

    def quote(self, problem: Problem) -> Answer:
        return Answer("", 64, 64)


SETTINGS: dict[str, Any] = {"steps": 2, "prompts": 5, "lr": 0.01, "max_new_tokens": 4}
LEARNERS = {
    "head": DaGrpo(**SETTINGS, dual_solve=0.5, credit="kept"),
    "token": DaGrpo(**SETTINGS, **TOKEN, dual_bias=3.0, explore=0.5),
    "gapg": Gapg(**SETTINGS),
}


@pytest.mark.parametrize("name", LEARNERS)
def test_equal_weights_are_calls_bit_for_bit_and_others_are_not(world: World, tiny_checkpoint: Path, name: str) -> None:
    learner = LEARNERS[name]
    config = world.config
    fresh = load_world(config, Even(0.5), learner.extras, learner.head)
    updates = {}
    for unit, cloud in (("calls", Even(0.5)), ("tokens", Even(0.5)), ("uneven", Oracle(0.5))):
        at = replace(counting(fresh, "tokens" if unit == "uneven" else unit), cloud=cloud)
        device = device_of(at)
        (update,) = learner.local_update(at, [device])
        updates[unit] = update.adapter, device.dual, device.ledger.total
    for tensor, other in zip(updates["calls"][0].values(), updates["tokens"][0].values(), strict=True):
        assert np.array_equal(tensor, other)
    assert updates["calls"][1:] == updates["tokens"][1:]
    same = [np.array_equal(updates["tokens"][0][key], tensor) for key, tensor in updates["uneven"][0].items()]
    assert name == "gapg" or not all(same)


def test_lambda_moves_by_the_weighed_usage_that_rows_tell(world: World) -> None:
    at = counting(world, "tokens")
    device = device_of(at)
    (update,) = DaGrpo(steps=1, prompts=6, lr=0.01, max_new_tokens=4, **TOKEN).local_update(at, [device])
    (asked, all_), (calls, responses) = total(update, "weighed_requests"), total(update, "cloud_requests")
    assert all_ == pytest.approx(responses)
    assert asked / all_ != pytest.approx(calls / responses, abs=1e-4)
    assert device.dual == pytest.approx(0.5 + 0.1 * (asked / all_ - 0.3), abs=1e-6)


def test_a_dearer_question_is_held_back_more(world: World) -> None:
    """A head's price is lambda times the weight; weights have the mean 1 on each device, and follow the costs."""
    at = counting(world, "joules")
    device, asked = device_of(at), problems(6)
    weighing = request_weights(at, [device], [asked])
    assert weighing is not None
    assert torch.equal(weighing.each, weighing.whole)  # help is asking
    weight = weighing.expected
    assert float(weight.mean()) == pytest.approx(1)
    costs = [float(device.tariff.cost(at.cloud.quote(problem), problem, "joules")) for problem in asked]
    torch.testing.assert_close(weight[0], torch.tensor(costs) / float(np.mean(costs)), check_dtype=False)
    pack = cast(Any, dataclasses.make_dataclass("Pack", ["dual", "theta"])(torch.tensor([0.4]), torch.zeros(1)))
    bias = DaGrpo()._biases(pack, [asked], None, weighing)
    torch.testing.assert_close(bias, -0.4 * weight)
    assert request_weights(counting(world, "calls"), [device], [asked]) is None


# ------------------------------------------------------------------------------------------------- caps

EIGHTHS = st.integers(0, 16).map(lambda number: number / 1024)
"""Exact in binary, so that sums of money can be compared."""
CAPS = st.builds(
    BudgetConfig,
    calls_per_round=st.none() | st.integers(0, 6),
    tokens_total=st.none() | st.integers(0, 200),
    money_per_round=st.none() | EIGHTHS.map(lambda money: 8 * money),
    bytes_per_round=st.none() | st.integers(0, 6000),
    joules_per_round=st.none() | st.integers(0, 40).map(lambda tenths: tenths / 10),
    seconds_per_question=st.none() | st.integers(40, 60).map(lambda hundredths: hundredths / 100),
    unit=st.sampled_from(["calls", "seconds"]),
)
ROUNDS = st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=4), min_size=1, max_size=3)
Books = list[tuple[list[list[int]], Account]]


def carried_out(
    world: World, folder: Path, rounds: Sequence[Sequence[int]], kills: Sequence[int], turned: int
) -> Books:
    """What a device is granted in each round, and what it then has in its books.

    Args:
        world: with its budget and prices.
        folder: of its journals.
        rounds: for each the numbers of questions of its steps.
        kills: for each after how many steps a first attempt ends; 0 is none.
        turned: the round whose second attempt asks in another order, and need not be granted the same; 0 is none.
    """
    total, books, budget = Account(), [], world.config.budget
    for round_, (steps, kill) in enumerate(zip(rounds, kills, strict=True), 1):
        asked = problems(sum(steps), seed=round_)
        parts = [asked[sum(steps[:at]) : sum(steps[: at + 1])] for at in range(len(steps))]
        for attempt in (parts[:kill], parts[::-1] if round_ == turned else parts):
            tariff = world.tariff(5, round_)
            device = Device(5, round_, world.first, 0.5, Ledger(budget, total), None, tariff=tariff)
            prices = world.prices
            device.keep_books(journal_of(folder, round_, TRAINING, prices, total=total, tariff=tariff))
            granted = []
            for row in attempt:
                wanted = torch.ones(1, len(row), dtype=torch.bool)
                bought = buy_answers(world, [device], [row], wanted)
                granted.append(sorted(p for _, p in bought))
                within(device.ledger)
                for (_, p), answer in bought.items():
                    took = tariff.came(answer, bytes_sent(row[p])).microseconds
                    assert budget.seconds_per_question is None or took <= 1e6 * budget.seconds_per_question
        books.append((granted, device.ledger.round))
        total = device.ledger.total.plus(device.ledger.held)
    return books


def within(ledger: Ledger) -> None:
    caps, spent = ledger.budget, ledger.round.plus(ledger.held)
    whole = ledger.total.plus(ledger.held)
    for cap, amount in (
        (caps.calls_per_round, spent.calls),
        (caps.tokens_total, whole.tokens),
        (caps.money_per_round, spent.money),
        (caps.bytes_per_round, spent.bytes),
        (caps.joules_per_round, spent.microjoules / 1e6),
    ):
        assert cap is None or amount <= cap


@given(CAPS, ROUNDS, EIGHTHS, EIGHTHS, st.data())
def test_no_cap_is_passed_in_any_unit_over_rounds_and_attempts(
    world: World,
    tmp_path_factory: pytest.TempPathFactory,
    budget: BudgetConfig,
    rounds: list[list[int]],
    sent: float,
    received: float,
    data: st.DataObject,
) -> None:
    """With random prices; a round that was ended in its middle and begun again grants what it would have in peace."""
    prices = CloudConfig(world.prices.path, price_per_prompt_token=sent, price_per_completion_token=received)
    config = replace(world.config, budget=budget, cloud=prices, system=SystemConfig(jitter=0.3))
    own = replace(world, config=config)
    kills = [data.draw(st.integers(0, len(steps))) for steps in rounds]
    folder = tmp_path_factory.mktemp("books")
    peace = carried_out(own, folder / "peace", rounds, [0] * len(rounds), 0)
    assert carried_out(own, folder / "killed", rounds, kills, 0) == peace
    carried_out(own, folder / "turned", rounds, kills, data.draw(st.integers(1, len(rounds))))


@pytest.mark.usefixtures("no_report")
def test_a_run_under_caps_of_all_kinds_goes_on_where_it_was_stopped(tiny_run: TinyRun) -> None:
    """Rows say what was charged, and it is below each cap; other rows of requests count by joules."""
    caps = ("bytes_per_round=2500", "joules_per_round=30", "seconds_per_question=1.5", "unit=joules", "tau=0.5")
    more = ("system={}", "rounds=3", "client.prompts=4", *(f"budget.{cap}" for cap in caps))
    whole = without_timing(flsim.run(tiny_run("whole", *more), progress=False).rows)
    flsim.run(tiny_run("stopped", *more), until=1, progress=False)
    again = flsim.run(resume=tiny_run("stopped", *more).folder, progress=False).rows
    pd.testing.assert_frame_equal(without_timing(again), whole, check_exact=True)
    rows = whole[whole["split"] == "train"].groupby("name")["total"]
    assert 0 < rows.max()["cloud_bytes"] <= 2500
    assert 0 < rows.max()["asking_joules"] <= 30
    assert rows.sum()["cloud_refused"] > 0
    texts = whole[whole["name"].isin(["cloud_up_bytes", "cloud_down_bytes"])]["total"].sum()
    assert rows.sum()["cloud_bytes"] == texts + 2 * 500 * rows.sum()["cloud_trips"]
    assert rows.sum()["weighed_requests"] != rows.sum()["cloud_requests"]


# ------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["budget.joules_per_round=3"], "budget.joules_per_round=3 counts what devices .* set system={}"),
        (["budget.seconds_per_question=2"], "budget.seconds_per_question=2 counts"),
        (["budget.unit=joules"], "budget.unit=joules counts"),
        (["budget.unit=hours"], "budget.unit='hours' is not known; choose one of: calls, tokens"),
        (
            ["budget.unit=money", "cloud.price_per_prompt_token=0", "cloud.price_per_completion_token=0"],
            "are 0; set one of them, or budget.unit=tokens",
        ),
        (["budget.unit=bytes", "budget.fleet.division=price"], "one price for all devices; leave one of them out"),
        (["budget.unit=bytes", "client.path=clients.sft:Sft"], "has no effect with Sft, .* or take DaGrpo"),
        (["budget.unit=tokens", "client.path=clients.grpo:Grpo"], "has no effect with Grpo"),
        (
            ["budget.unit=tokens", "client.policy=token", "client.normalise=separately"],
            "budget.unit=tokens would count for nothing",
        ),
    ],
)
def test_what_cannot_count_is_refused(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        built(settings)


def built(settings: list[str]) -> None:
    config = load_config(None, settings)
    check_settings(config)
    client_of(config)
