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
from clients.helping.helping import Asked, Caller
from clients.helping.hint import Hint
from flsim.config.system import ClassConfig, LinkConfig, StandsForConfig, SystemConfig
from flsim.models.decoding import encode, generate, read
from flsim.seeding import seed_for
from flsim.system.shapes import Shape
from flsim.system.system import System
from tests.clients.made_up_help import Within
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
    never, confident, always, nobody = Never(), Confidence(4), Always(), AtRandom(0.0)
    prompts, lengths, cut = alone(world)
    assert 0 < sum(cut) < 10
    whole = [sum(prompts), sum(lengths), sum(cut)]
    assert taken(world, never, heard) == [*whole, 0]
    assert taken(world, confident, heard)[:3] == whole
    first = answered(world.cloud, own_tests(world, 0)[:3])
    left = [float(sum(each[3:])) for each in (prompts, lengths, cut)]
    assert taken(world, always, heard) == [*left, sum(answer.tokens for answer in first)]
    assert taken(world, nobody, heard) == [*whole, 0]


def test_after_a_hint_a_device_goes_on(tiny_checkpoint: Path) -> None:
    """It reads what it is given, and says an end; who is refused does so without."""
    world = world_of(tiny_checkpoint, biased=True)

    hinted = replace(world, helping=Hint(1.0, 32))
    tests = own_tests(world, 0)
    plain = taken(world)
    put_in = sum(len(hinted.hint.of(world.base, a.text)) for a in answered(world.cloud, tests[:3]) if hinted.hint)
    assert taken(hinted) == [plain[0] + put_in, 20, 0, plain[3]]


def test_seconds_of_a_question_are_those_of_the_formula(tiny_checkpoint: Path) -> None:
    """1e8 parameters of 2 bytes, 1e11 operations and 1e10 bytes a second: a token takes 0.02 s, and so do few at once.

    A prompt and a token take 0.04 s, with a try alone 0.06 s, and what is granted a trip to the cloud besides.
    """
    world = world_of(tiny_checkpoint, biased=True)
    of = ClassConfig(1.0, flops=1e11, bandwidth=1e10, memory_gb=1.0, battery_wh=10.0, busy_w=4.0, waiting_w=1.0)
    link = LinkConfig(1.0, down_mbit=8.0, up_mbit=2.0, rtt_ms=100.0, up_mw_per_mbit=0.0, down_mw_per_mbit=0.0)
    link = replace(link, base_mw=1000.0, tail_s=0.0, tail_mw=0.0)
    config = SystemConfig(classes={"one": of}, links={"one": link}, deadlines_s=(0.1, 1))
    timed = replace(world, system=System(config, Shape("half", multiplied=10**8, weights=2e8), seed=0))
    rows = evaluate_pack(timed, [0], None, model="own", round_=1)[0]
    found = {row.name: (row.total, row.weight) for row in rows}
    seconds, joules = 0.04 * 10 + 0.02 * 7, 4 * (0.04 * 10 + 0.02 * 7)
    for problem, answer in zip(own_tests(world, 0), answered(world.cloud, own_tests(world, 0)[:3]), strict=False):
        moved = 8 * (len(problem.question) + 500) / 2e6 + 8 * (len(answer.text) + 500) / 8e6
        trip = 0.1 + moved + 0.3 + answer.prompt_tokens / 5000 + answer.completion_tokens / 60
        seconds, joules = seconds + trip, joules + trip + moved
    assert found["question_seconds"][0] == pytest.approx(seconds, abs=1e-4)
    assert found["question_joules"][0] == pytest.approx(joules, abs=1e-3)
    assert found["question_seconds"][1] == found["question_joules"][1] == 10
    assert found["within_0.1s"] == (7, 10)
    assert found["right_within_0.1s"] == (0, 10)
    assert found["within_1s"] == (10, 10)
    assert found["right_within_1s"] == found["accuracy"] == (3, 10)
    plain = evaluate_pack(world, [0], None, model="own", round_=1)[0]
    assert [row for row in rows if row.name in {row.name for row in plain}] == plain


def test_a_question_that_is_helped_takes_what_its_exchange_did(tiny_checkpoint: Path) -> None:
    """Ten requests at once, three of them granted: each reads its prompt and says the request in 0.04 s.

    For what is granted the device draws a token in 0.02 s, reads ten in as much, and passes tokens through 0.1 billion
    parameters: 2 ms each read, 5 ms each said (0.05 GB at 1e10 bytes a second). Further requests wait in no queue.
    """
    world = world_of(tiny_checkpoint, biased=True)
    of = ClassConfig(1.0, flops=1e11, bandwidth=1e10, memory_gb=1.0, battery_wh=10.0, busy_w=4.0, waiting_w=1.0)
    link = LinkConfig(1.0, down_mbit=8.0, up_mbit=2.0, rtt_ms=100.0, up_mw_per_mbit=0.0, down_mw_per_mbit=0.0)
    link = replace(link, base_mw=0.0, tail_s=0.0, tail_mw=0.0)
    stands = StandsForConfig(cloud=0.1, weight_bytes=0.5)
    config = SystemConfig(classes={"one": of}, links={"one": link}, stands_for=stands)
    system = System(config, Shape("half", multiplied=10**8, weights=2e8), seed=0)
    mode = Within(fails=0.0, cuts=True)
    rows = evaluate_pack(replace(world, system=system, helping=mode), [0], None, model="own", round_=1)[0]
    found = {row.name: row.total for row in rows}
    tests, base = own_tests(world, 0), world.base
    seeds = [seed_for(world.seed, "help at tests", "device-000", "own", place) for place in range(3)]
    asked = [Asked(problem, "", seed) for problem, seed in zip(tests, seeds, strict=False)]
    (answers,) = mode.help(replace(world, helping=mode).pair, [Caller(0, asked)])
    seconds, trips = 0.04 * 10 + 0.02 * 7, 0
    for problem, answer in zip(tests, answers, strict=False):
        assert answer is not None
        took = answer.exchange
        assert took is not None
        queued, trips = took.trips - took.in_session, trips + took.trips
        moved = 8 * (took.up_bytes + 500 * queued) / 2e6 + 8 * (took.down_bytes + 500 * queued) / 8e6
        if took.trips:
            served = 0.3 * queued + answer.prompt_tokens / 5000 + answer.completion_tokens / 60
            seconds += 0.1 * took.trips + moved + served
        read = len(base.tokenizer(base.prompt(problem))["input_ids"]) + took.read
        seconds += max(0.002 * read, 0.02) - 0.02  # beyond what a prompt alone takes
        seconds += 0.02 * took.drawn + (2 * took.lower_read + 5 * took.lower_drawn) / 1e6
    assert found["cloud_test_trips"] == trips > 3
    assert found["question_seconds"] == pytest.approx(seconds, abs=1e-4)
