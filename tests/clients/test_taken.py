"""What a test question takes: on models whose wish to ask is known, so that every number follows by hand."""

from collections.abc import Hashable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from clients.asking.policy import OWN
from clients.asking.rule import AskingRule
from clients.asking.scores import Confidence
from clients.asking.simple import Always, AtRandom, Never
from clients.device.world import World, load_world
from clients.evaluate import evaluate_pack, own_tests
from flsim.models.decoding import encode, generate, read
from flsim.models.hint import Hint
from tests.flsim.cloud.answers import answered
from tests.tiny import tiny_world

NAMES = ("read_tokens", "sampled_tokens", "cut_responses", "cloud_test_tokens")


def world_of(checkpoint: Path, *more: str, biased: bool = False) -> World:
    """Ten arithmetic prompts a device; biased, it asks at once, and alone ends at once."""
    shared = ("evaluation.prompts_per_task=10", "stream.phases=[[arithmetic]]", "budget.tau=0.3")
    world = load_world(tiny_world(checkpoint, *shared, *more))
    if biased:
        head = world.base.model.lm_head
        assert isinstance(head, torch.nn.Linear)
        bias = torch.zeros(head.out_features)
        bias[world.base.help_id], bias[world.base.eos_id] = 2e3, 1e3
        head.bias = torch.nn.Parameter(bias, requires_grad=False)
    return world


def taken(world: World, rule: AskingRule = OWN, heard: dict[Hashable, Any] | None = None) -> list[float]:
    """Of all ten questions of device 0, by `NAMES`."""
    rows = evaluate_pack(world, [0], None, model="global", round_=1, asking=rule, heard=heard)[0]
    found = {row.name: (row.total, row.weight) for row in rows}
    assert {found[name][1] for name in NAMES} == {10.0}
    return [found[name][0] for name in NAMES]


def alone(world: World) -> tuple[list[int], list[int], list[int]]:
    """Prompt tokens, tokens said with asking disabled, and 1 for an answer that never ended, of every question."""
    base, tests = world.base, own_tests(world, 0)
    reading = read(base, encode(base, base.prompts([tests])))
    parts: dict[str, Any] = {"group_size": 1, "max_new_tokens": world.answer_tokens, "temperature": 0.0}
    tokens = generate(base, reading, may_ask=False, **parts).tokens[0, :, 0].tolist()
    ends = [row.index(base.eos_id) + 1 if base.eos_id in row else 0 for row in tokens]
    lengths = [end or len(row) for end, row in zip(ends, tokens, strict=True)]
    return reading.prompts.mask[0].sum(-1).tolist(), lengths, [int(not end) for end in ends]


def test_a_request_is_a_token_and_who_is_refused_says_one_more(tiny_checkpoint: Path) -> None:
    """Ten requests, three of which are granted, the first; the others end at once."""
    world = world_of(tiny_checkpoint, biased=True)
    tests = own_tests(world, 0)
    prompts = sum(len(world.base.tokenizer(world.base.prompt(problem))["input_ids"]) for problem in tests)
    cloud = sum(answer.tokens for answer in answered(world.cloud, tests[:3]))
    assert taken(world) == [prompts, 10 + 7, 0, cloud]


@pytest.mark.parametrize("heard", [None, {}], ids=["apart", "shared"])
def test_an_answer_counts_whole_unless_the_question_alone_decides(
    tiny_checkpoint: Path, heard: dict[Hashable, Any] | None
) -> None:
    """Whoever heard it first."""
    world = world_of(tiny_checkpoint)
    prompts, lengths, cut = alone(world)
    assert 0 < sum(cut) < 10
    whole = [sum(prompts), sum(lengths), sum(cut)]
    assert taken(world, Never(), heard) == [*whole, 0]
    assert taken(world, Confidence(4), heard)[:3] == whole
    first = answered(world.cloud, own_tests(world, 0)[:3])
    left = [float(sum(each[3:])) for each in (prompts, lengths, cut)]
    assert taken(world, Always(), heard) == [*left, sum(answer.tokens for answer in first)]
    assert taken(world, AtRandom(0.0), heard) == [*whole, 0]


def test_after_a_hint_a_device_goes_on(tiny_checkpoint: Path) -> None:
    """It reads what it is given, and says an end; who is refused does so without."""
    world = world_of(tiny_checkpoint, biased=True)

    hinted = replace(world, hint=Hint(1.0, 32))
    tests = own_tests(world, 0)
    plain = taken(world)
    put_in = sum(len(hinted.hint.of(world.base, a.text)) for a in answered(world.cloud, tests[:3]) if hinted.hint)
    assert taken(hinted) == [plain[0] + put_in, 20, 0, plain[3]]
