"""Rules of devices with a benefit head: what their wish is, whom they ask by it, and what they claim."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from clients.asking.alone import answers_alone, head_in_use, wish_of
from clients.asking.policy import Own, OwnCalibrated
from clients.asking.rule import AskingRule, Choice, Examined, right_alone
from clients.asking.scores import Confidence
from clients.da_grpo import DaGrpo
from clients.device.answering import answer_alone
from clients.device.head import WEIGHT
from clients.device.world import World, load_world
from clients.evaluate import evaluate_pack, own_tests, reference_rows
from flsim.learning.benefit import ALONE, benefit, chances, features
from flsim.metrics.rows import Row
from flsim.models.adapter import Adapter, lora_of
from flsim.models.decoding import encode, generate, read
from tests.tiny import tiny_world

pytestmark = pytest.mark.usefixtures("one_thread")

DEVICES = (0, 1, 2)
TAUS = [0.2, 0.3, 0.5]
RULES: tuple[AskingRule, ...] = (Own(), OwnCalibrated(4, pacing=True))


@pytest.fixture(scope="module")
def world(tiny_checkpoint: Path) -> World:
    learner = DaGrpo(policy="head")
    config = tiny_world(tiny_checkpoint, "evaluation.prompts_per_task=6", "cloud.oracle_error=0.3")
    return load_world(config, extras=learner.extras, head=learner.head)


def adapter_of(world: World, seed: int) -> Adapter:
    rng = np.random.default_rng(seed)
    adapter = {n: rng.normal(0, 0.2, t.shape).astype(np.float32) for n, t in lora_of(world.first).items()}
    return {**adapter, WEIGHT: world.first[WEIGHT] + rng.normal(0, 0.05, world.first[WEIGHT].shape).astype(np.float32)}


@pytest.fixture(scope="module")
def adapters(world: World) -> list[Adapter]:
    return [adapter_of(world, k) for k in DEVICES]


def by_hand(world: World, adapter: Adapter | None, device: int) -> Tensor:
    """That each of a device's greedy answers and the cloud's are right, `(N, 2)`."""
    world.lora.attach(None if adapter is None else world.lora.stack([adapter]))
    with torch.no_grad():
        reading = read(world.base, encode(world.base, world.base.prompts([own_tests(world, device)])))
        parts: dict[str, Any] = {
            "group_size": 1,
            "max_new_tokens": world.answer_tokens,
            "temperature": 0.0,
            "may_ask": False,
        }
        said = generate(world.base, reading, traced=True, **parts)
    assert said.trace is not None
    phi = features(said.trace.states, said.trace.logprobs, said.trace.entropies, said.mask, scale=5.0)
    weight = world.first[WEIGHT] if adapter is None else adapter[WEIGHT]
    return chances(torch.from_numpy(weight)[None], phi)[0, :, 0]  # (N, 2)


def decided(world: World, adapters: Sequence[Adapter], rule: AskingRule, biases: Sequence[float] = ()) -> list[Choice]:
    world.lora.attach(world.lora.stack(adapters))
    tests = [own_tests(world, device) for device in DEVICES]
    return rule.decide(Examined(world, DEVICES, tests, TAUS, biases))


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_the_wish_is_the_benefit_and_the_claim_the_chance_to_be_wrong(
    world: World, adapters: list[Adapter], rule: AskingRule
) -> None:
    """Of the whole greedy answer, which is what the device says alone."""
    choices = decided(world, adapters, rule)
    for device, adapter, choice in zip(DEVICES, adapters, choices, strict=True):
        both = by_hand(world, adapter, device)
        assert choice.scores == pytest.approx(benefit(both).tolist(), abs=1e-4)
        assert choice.claims == pytest.approx((1 - both[:, ALONE]).tolist(), abs=1e-4)
        tests = own_tests(world, device)
        (texts,) = answer_alone(world, [tests], world.answer_tokens)
        assert choice.alone.tolist() == right_alone(tests, texts).tolist()


def test_own_asks_where_the_benefit_exceeds_lambda(world: World, adapters: list[Adapter]) -> None:
    free = decided(world, adapters, Own())
    lambdas = [float(np.median(choice.scores)) for choice in free]
    priced = decided(world, adapters, Own(), [-dual for dual in lambdas])
    for choice, plain, dual in zip(priced, free, lambdas, strict=True):
        assert choice.scores.tolist() == plain.scores.tolist()
        assert choice.wishes.tolist() == [score - dual > 0 for score in choice.scores]
        assert 0 < choice.wishes.sum() < len(choice.wishes)
        assert plain.wishes.tolist() == [score > 0 for score in choice.scores]
    dear = decided(world, adapters, Own(), [-1.0] * 3)
    assert not any(choice.wishes.any() for choice in dear)


def test_calibrated_spends_the_budget_on_what_gains_most(world: World, adapters: list[Adapter]) -> None:
    """Paced, exactly floor(tau N); a plain threshold sends all above the one that tau of the known questions exceed."""
    for choice, tau in zip(decided(world, adapters, OwnCalibrated(4, pacing=True)), TAUS, strict=True):
        assert choice.wishes.sum() == int(tau * len(choice.wishes) + 1e-9)
    for choice in decided(world, adapters, OwnCalibrated(4)):
        if 0 < choice.wishes.sum() < len(choice.wishes):
            assert choice.scores[choice.wishes].min() >= choice.scores[~choice.wishes].max()


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_device_is_measured_alike_in_any_pack(world: World, adapters: list[Adapter], rule: AskingRule) -> None:
    """In packs of three and alone; and one adapter for all is one block with one head."""
    biases = [-0.3, -0.4, -0.5]
    together = measured(world, DEVICES, adapters, rule, biases)
    for k in DEVICES:
        assert measured(world, [k], adapters[k : k + 1], rule, biases[k : k + 1]) == [together[k]]
    shared = [adapters[0]] * 3
    apart = [dict(adapters[0]) for _ in DEVICES]
    assert measured(world, DEVICES, shared, rule, biases) == measured(world, DEVICES, apart, rule, biases)


def measured(
    world: World, devices: Sequence[int], adapters: Sequence[Adapter], rule: AskingRule, biases: Sequence[float]
) -> list[list[Row]]:
    """Rows, sums of claims to six digits: these are last bits of logits."""
    taus = [TAUS[device] for device in devices]
    parts: dict[str, Any] = {"model": "global", "round_": 1, "taus": taus, "asking": rule, "biases": biases}
    found = evaluate_pack(world, devices, adapters, **parts)
    return [[replace(row, total=round(row.total, 4)) for row in rows] for rows in found]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_the_frozen_model_has_the_first_head(world: World, rule: AskingRule) -> None:
    """It expects 0.4 of every answer, whatever it is; the references at random and of the cloud are there, too."""
    rows = reference_rows(world, DEVICES, round_=0, taus=TAUS, asking=rule)
    for device, own in zip(DEVICES, rows, strict=True):
        assert {row.model for row in own} == {"frozen", "random", "cloud"}
        assert by_hand(world, None, device).tolist() == [pytest.approx([0.5, 0.9])] * len(own_tests(world, device))
        sent = [sum(r.total for r in own if r.name == "cloud_grants" and r.model == m) for m in ("frozen", "random")]
        assert sent[1] == int(TAUS[device] * len(own_tests(world, device)) + 1e-9)
        assert sent[0] == sent[1] or isinstance(rule, OwnCalibrated)
    assert world.head is not None
    assert torch.equal(head_in_use(world, world.head), torch.from_numpy(world.first[WEIGHT])[None])


def test_rules_that_need_no_head_see_the_same_answers(world: World, adapters: list[Adapter]) -> None:
    """With the log-probabilities of the answers as they were."""
    bare = replace(world, head=None)
    for with_, without in zip(
        decided(world, adapters, Confidence(4)), decided(bare, adapters, Confidence(4)), strict=True
    ):
        assert with_.scores.tolist() == without.scores.tolist()
        assert with_.alone.tolist() == without.alone.tolist()
        assert with_.wishes.tolist() == without.wishes.tolist()


def test_the_wish_of_a_pack_is_read_from_its_traces(world: World, adapters: list[Adapter]) -> None:
    world.lora.attach(world.lora.stack(adapters))
    tests = [own_tests(world, device) for device in DEVICES]
    said = answers_alone(world, tests)
    with torch.no_grad():
        reading = read(world.base, encode(world.base, world.base.prompts(tests)))
        parts: dict[str, Any] = {
            "group_size": 1,
            "max_new_tokens": world.answer_tokens,
            "temperature": 0.0,
            "may_ask": False,
        }
        replies = generate(world.base, reading, traced=True, **parts)
    for k, wish in enumerate(wish_of(world, reading, replies)):
        assert said[k].wish.tolist() == wish.double().tolist()[: len(tests[k])]
        assert all(-1 <= value <= 1 for value in said[k].wish)
    assert not len(answers_alone(replace(world, head=None), tests)[0].wrong)
