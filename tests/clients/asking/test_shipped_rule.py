"""Which rule DA-GRPO as shipped is measured by, and what it does where devices have few questions to calibrate on."""

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from clients.asking.policy import Own, OwnCalibrated
from clients.asking.rule import Choice, Examined, decide
from clients.da_grpo import DaGrpo
from clients.device.world import World, load_world
from clients.evaluate import own_tests
from flsim.config.load import load_config
from flsim.models.adapter import Adapter
from tests.tiny import TOKEN

DEVICES = (0, 1, 2)
TAUS = (0.12, 0.3, 0.5)
LAMBDAS = (0.0, 0.4, 0.55)


@pytest.fixture(scope="module")
def world(one_thread: None) -> World:
    """Three devices with 20 test prompts each."""
    more = ["model.rank=2", "fleet.devices=3", "cloud.kind=oracle", "cloud.oracle_error=0.3"]
    more += ["evaluation.prompts_per_task=10", "stream.phases=[[arithmetic, lists]]"]
    learner = DaGrpo()
    return load_world(load_config(None, more), extras=learner.extras, head=learner.head)


@pytest.fixture(scope="module")
def adapters(world: World) -> list[Adapter]:
    """Three whose heads have an opinion of their own."""
    found = []
    for device in DEVICES:
        rng = np.random.default_rng(device)
        found.append({n: t + rng.normal(0, 0.02, t.shape).astype(np.float32) for n, t in world.first.items()})
    return found


def choices(world: World, adapters: list[Adapter], rule: Own | OwnCalibrated, *, taus: bool = True) -> list[Choice]:
    world.lora.attach(world.lora.stack(adapters), [2] * 3, [1.0] * 3)
    tests = [own_tests(world, device) for device in DEVICES]
    given = TAUS if taus else (1.0,) * 3
    return decide(rule, Examined(world, DEVICES, tests, given, [-price for price in LAMBDAS]))


def test_its_own_decision_looks_at_no_budget(world: World, adapters: list[Adapter]) -> None:
    for one, other in zip(choices(world, adapters, Own()), choices(world, adapters, Own(), taus=False), strict=True):
        np.testing.assert_array_equal(one.wishes, other.wishes)


@pytest.mark.parametrize("calibration", [1, 2, 32])
def test_a_device_with_few_questions_of_its_own_spends_its_budget_all_the_same(
    world: World, adapters: list[Adapter], calibration: int
) -> None:
    """As shipped: paced, so that exactly floor(tau N) are asked for, however many questions the order is known from."""
    for tau, one in zip(TAUS, choices(world, adapters, OwnCalibrated(calibration, pacing=True)), strict=True):
        assert int(one.wishes.sum()) == math.floor(tau * 20 + 1e-9)


def test_with_few_questions_it_still_asks_where_the_benefit_is_high(world: World, adapters: list[Adapter]) -> None:
    """Over three devices the mean score of what is asked for is above that of what is kept, with 2 per task or 32."""

    def above(scores: NDArray[np.float64], wishes: NDArray[np.bool_]) -> float:
        return float(scores[wishes].mean() - scores[~wishes].mean())

    for calibration in (2, 32):
        found = choices(world, adapters, OwnCalibrated(calibration, pacing=True))
        assert np.mean([above(one.scores, one.wishes) for one in found]) > 0


def test_the_policy_says_by_which_rule_it_is_measured() -> None:
    assert DaGrpo().asks == OwnCalibrated(pacing=True)
    assert DaGrpo(**TOKEN).asks == Own()
    config = load_config(None, [])
    assert DaGrpo.client_app(config).asking == OwnCalibrated(pacing=True)
    assert DaGrpo.client_app(config, **TOKEN).asking == Own()
    assert replace(DaGrpo(), policy="token").head is None
