"""Devices that are given hints: what a group shares and what it costs, what is judged and learned, tests and runs."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import flsim
from clients.asking.policy import Own
from clients.asking.rule import Examined
from clients.asking.simple import Always
from clients.da_grpo import DaGrpo
from clients.device.answering import Problems
from clients.device.device import Device
from clients.device.rollout import Rollout, roll_out
from clients.device.world import World, load_world
from clients.evaluate import evaluate_pack, own_tests
from clients.grpo import Grpo
from clients.helping.hint import Hint
from experiments.real.server import serving
from flsim.budget.ledger import Ledger
from flsim.cloud.cached import CachedCloud
from flsim.cloud.draft import refuse_hint
from flsim.cloud.endpoint import Endpoint
from flsim.config.load import load_config
from flsim.config.schema import CloudConfig, ConfigError
from flsim.flower.contract import client_of
from flsim.loop.ready import build_parts
from flsim.metrics.rows import without_timing
from flsim.models.decoding import encode, generate, read
from flsim.models.scoring import score
from flsim.problems.judging import are_right
from tests.tiny import TinyRun, tiny_runs_in, tiny_world

pytestmark = pytest.mark.usefixtures("one_thread")

BIAS = 3.0  # so that some responses ask
DUAL = 0.3
METHOD = DaGrpo(
    policy="token",
    helping=Hint(),
    imitate=0.0,
    replay=0,
    steps=1,
    prompts=6,
    group_size=8,
    temperature=1.5,
    lr=0.01,
    max_new_tokens=4,
    clip_norm=1e6,
    cost_baseline="group",
    dual_gain=0.0,
    dual_bias=BIAS / (0.5 - DUAL),
)
WORDS = ("client.path=clients.da_grpo:DaGrpo", "client.policy=token", "client.imitate=0", "client.replay=0")
SHARED = (*WORDS, "client.helping.path=clients.helping.hint:Hint", "model.request=after")


@pytest.fixture
def run_of(tiny_checkpoint: Path, tmp_path: Path) -> TinyRun:
    return tiny_runs_in(tmp_path, tiny_checkpoint, SHARED)


def world_of(checkpoint: Path, *more: str, share: float = 0.5) -> World:
    settings = ("model.request=after", "evaluation.prompts_per_task=5", "stream.quantity_sigma=0.5", "stream.seed=2")
    return load_world(tiny_world(checkpoint, *settings, *more), helping=Hint(share))


def device_of(world: World, index: int = 0) -> Device:
    rng = np.random.default_rng(7)
    adapter = {name: rng.normal(0, 0.2, t.shape).astype(np.float32) for name, t in world.first.items()}
    return Device(index, 1, adapter, DUAL, Ledger(world.config.budget), None)


def problems_of(world: World) -> Problems:
    """Of the device's first step."""
    return METHOD.problems(world, [device_of(world)], 0)


def rolled_out(world: World, problems: Problems) -> tuple[Device, Rollout]:
    device = device_of(world)
    world.lora.attach(world.lora.stack([device.adapter]))
    with torch.no_grad():
        bias = torch.full((1, len(problems[0])), BIAS)
        return device, roll_out(world, [device], problems, METHOD.sampling, step=0, help_bias=bias)


def endings(world: World, rollout: Rollout) -> dict[tuple[int, int], str]:
    """What each response that asked says in the end, by prompt and response."""
    said, found = rollout.completions, {}
    assert said.resumed is not None
    for p, g in rollout.asked[0].nonzero().tolist():
        begin = int(said.resumed[0, p, g])
        own = said.tokens[0, p, g, begin:][said.mask[0, p, g, begin:]]
        found[p, g] = str(world.base.tokenizer.decode(own[~world.base.ends(own)], skip_special_tokens=True))
    return found


def put_in(rollout: Rollout, p: int, g: int) -> list[int]:
    said = rollout.completions
    tokens: list[int] = said.tokens[0, p, g][said.read[0, p, g] & ~said.mask[0, p, g]].tolist()
    return tokens


def test_a_group_shares_one_hint_and_each_request_costs_one(tiny_checkpoint: Path) -> None:
    world = world_of(tiny_checkpoint)
    problems = problems_of(world)
    device, rollout = rolled_out(world, problems)
    asked = rollout.asked[0].bool()  # (P, G)
    assert asked.sum() > asked.any(-1).sum() > 1  # some groups ask more than once
    assert device.ledger.total.calls == int(asked.any(-1).sum())
    for p, problem in enumerate(problems[0]):
        whole = world.base.spell(problem.right_text)[:-1]
        for g in range(asked.shape[1]):
            assert put_in(rollout, p, g) == (whole[: math.ceil(len(whole) / 2)] if asked[p, g] else [])


@pytest.mark.parametrize("cap", [0, 1, 2])
def test_the_cap_holds_and_who_is_refused_goes_on_without(tiny_checkpoint: Path, cap: int) -> None:
    world = world_of(tiny_checkpoint, f"budget.calls_per_round={cap}")
    device, rollout = rolled_out(world, problems_of(world))
    asked = rollout.asked[0].bool()  # (P, G)
    hinted = [p for p in range(len(asked)) if any(put_in(rollout, p, g) for g in range(asked.shape[1]))]
    assert len(hinted) == device.ledger.total.calls == cap < int(asked.any(-1).sum())
    assert rollout.completions.resumed is not None
    assert torch.equal(rollout.completions.resumed[0] > 0, asked)


def test_what_is_said_in_the_end_is_judged(tiny_checkpoint: Path) -> None:
    """With empty hints, so that the answers may be chosen by what is said."""
    world = world_of(tiny_checkpoint, share=0.0)
    problems = problems_of(world)
    said = endings(world, rolled_out(world, problems)[1])
    first = {p: text for (p, _), text in sorted(said.items(), reverse=True) if text.strip()}
    told = [[replace(problem, answer=first.get(p, "0")) for p, problem in enumerate(problems[0])]]
    _, rollout = rolled_out(world, told)
    assert endings(world, rollout) == said
    right = rollout.right_alone[0].clone()
    for (p, g), text in said.items():
        right[p, g] = float(are_right([(told[0][p], text)])[0])
    assert torch.equal(rollout.right[0], right)
    assert rollout.right[0][rollout.asked[0] == 1].any()


def test_one_step_is_the_formula_with_the_devices_own_tokens(tiny_checkpoint: Path) -> None:
    """Autograd of the sum of A log pi over what the device said; the gradient is read off Adam's first moment."""
    world = world_of(tiny_checkpoint, share=0.0)
    problems = problems_of(world)
    device, rollout = rolled_out(world, problems)
    rewards, costs = rollout.right[0], rollout.asked[0]  # (P, G)
    g = METHOD.group_size
    advantage = (rewards - rewards.mean(-1, keepdim=True) - DUAL * (costs - costs.mean(-1, keepdim=True))) * g / (g - 1)
    theta = world.lora.stack([device.adapter]).requires_grad_()
    world.lora.attach(theta)
    reading = read(world.base, encode(world.base, world.base.prompts(problems)))
    bias = torch.full(rewards.shape[:1], BIAS)[None]  # (1, P)
    heat = METHOD.temperature
    logprobs = score(world.base, reading, rollout.completions, temperature=heat, help_bias=bias)  # (1, P, G, T)
    torch.testing.assert_close(logprobs, rollout.completions.logprobs, atol=1e-4, rtol=0)
    (expected,) = torch.autograd.grad(-(advantage[None, ..., None] * logprobs).sum() / advantage.numel(), theta)
    fresh = device_of(world)
    METHOD.local_update(world, [fresh])
    assert fresh.optimizer is not None
    found = fresh.optimizer.first * 10
    assert float(expected.abs().max()) > 1e-3
    assert float((found - expected).norm() / expected.norm()) < 1e-4


def greedy(world: World, contexts: list[list[int]]) -> list[str]:
    """What the base goes on to say, without asking, by plain forwards."""
    texts = []
    for context in contexts:
        said: list[int] = []
        while len(said) < world.answer_tokens and not (said and world.base.ends(torch.tensor(said[-1]))):
            with torch.no_grad():
                logits: Tensor = world.base.model(input_ids=torch.tensor([context + said])).logits[0, -1]
            logits[world.base.help_id] = -torch.inf
            said.append(int(logits.argmax()))
        own = [token for token in said if not world.base.ends(torch.tensor(token))]
        texts.append(str(world.base.tokenizer.decode(own, skip_special_tokens=True)))
    return texts


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_at_tests_a_granted_wish_gets_the_hint_and_goes_on(tiny_checkpoint: Path, share: float) -> None:
    """Always asks, so its draft is its answer; the oracle's hint is all of its answer or nothing."""
    world = world_of(tiny_checkpoint, share=share)
    tests, base = own_tests(world, 0), world.base
    world.lora.attach(None)
    reading = read(base, encode(base, base.prompts([tests])))
    most = world.answer_tokens
    said = generate(base, reading, group_size=1, max_new_tokens=most, temperature=0.0, may_ask=False)
    contexts = []
    for p, problem in enumerate(tests):
        draft = base.spell(said.texts[0][p][0])[:-1]
        hint = base.spell(problem.right_text)[:-1] if share else []
        contexts.append([*base.tokenizer(problem.question)["input_ids"], *draft, *base.help.ids, *hint])
    texts = greedy(world, contexts)
    worth = [replace(problem, answer=text or "0") for problem, text in zip(tests, texts, strict=True)]
    right = are_right(list(zip(tests, texts, strict=True)))
    assert all(are_right([(w, t)])[0] for w, t in zip(worth, texts, strict=True) if t.strip())
    (rows,) = evaluate_pack(world, [0], None, model="global", round_=0, taus=[1.0], asking=Always())
    total = {name: sum(row.total for row in rows if row.name == name) for name in ("accuracy", "cloud_grants")}
    assert total == {"accuracy": sum(right), "cloud_grants": len(tests)}


def test_a_wish_that_is_not_granted_goes_on_without(tiny_checkpoint: Path) -> None:
    world = world_of(tiny_checkpoint)
    tests, base = own_tests(world, 0), world.base
    world.lora.attach(None)
    (choice,) = Own().decide(Examined(world, [0], [tests], [0.0], [6.0]))
    assert choice.drafts is not None
    assert choice.wishes.sum() > 0
    contexts = [
        [*base.tokenizer(problem.question)["input_ids"], *base.spell(draft)[:-1], *base.help.ids]
        for problem, draft in zip(tests, choice.drafts, strict=True)
    ]
    texts = [
        text if wish else draft
        for text, wish, draft in zip(greedy(world, contexts), choice.wishes, choice.drafts, strict=True)
    ]
    assert choice.alone.tolist() == list(are_right(list(zip(tests, texts, strict=True))))


@pytest.mark.usefixtures("no_report")
@pytest.mark.slow
def test_a_run_that_was_cut_goes_on_bit_for_bit(run_of: TinyRun) -> None:
    whole = without_timing(flsim.run(run_of("whole"), progress=False).rows)
    assert not (whole["name"] == "set_aside").any()
    asked = whole[(whole["name"] == "cloud_requests") & (whole["split"] == "train")]
    assert asked["total"].sum() > 0
    cut = run_of("cut")
    flsim.run(cut, until=1, progress=False)
    rows = without_timing(flsim.run(resume=cut.folder, progress=False).rows)
    pd.testing.assert_frame_equal(whole, rows, check_exact=True)


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        (Grpo, {"helping": Hint()}, "helping=Hint has no effect: this method never asks; leave it out"),
        (
            DaGrpo,
            {"helping": Hint(), "policy": "head"},
            "helping=Hint has no effect: this method asks by its benefit head",
        ),
        (DaGrpo, {"helping": Hint(), "policy": "token", "imitate": 1.0}, "imitate=1.0 learns the cloud's answers"),
        (Hint, {"share": 1.5}, r"share=1.5 must be in \[0, 1\]"),
    ],
)
def test_where_it_has_no_meaning_it_is_refused(method: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        method(**settings)


def test_a_real_cloud_is_asked_for_hints_in_its_words(tiny_checkpoint: Path) -> None:
    """Its whole reply is the hint, whatever the share; a group's is asked for with the draft of its first that asks."""
    with serving({}) as server:
        words = ("cloud.path=flsim.cloud.endpoint:Endpoint", "cloud.cache=null", f"cloud.url={server.url}")
        worded = load_config(None, [*words, "cloud.model=m", "cloud.hint={question} Tried: {draft} Hint:"]).cloud
        config = replace(tiny_world(tiny_checkpoint, "model.request=after"), cloud=worded)
        world = load_world(config, Endpoint(server.url, "m"), helping=Hint(0.25))
        problems = problems_of(world)
        _, rollout = rolled_out(world, problems)
        first = dict(reversed(rollout.asked[0].nonzero().tolist()))
        drafts = {p: rollout.completions.texts[0][p][g] for p, g in first.items()}
        server.answers = {
            f"{problems[0][p].question} Tried: {draft.strip()} Hint:": "165" for p, draft in drafts.items()
        }
        device, rollout = rolled_out(replace(world, cloud=CachedCloud(Endpoint(server.url, "m"), None)), problems)
        assert device.ledger.total.calls == len(first) > 1
        for p, g in rollout.asked[0].nonzero().tolist():
            assert put_in(rollout, p, g) == world.base.spell("165")[:-1]


def test_words_for_a_hint_need_a_cloud_that_reads_them_and_devices_that_take_one(run_of: TinyRun) -> None:
    words = "cloud.hint={question} {draft} Hint:"
    with pytest.raises(ConfigError, match=r"cloud\.hint=.* cannot be sent to Oracle"):
        build_parts(run_of("oracle", words))
    with pytest.raises(ConfigError, match=r"cloud\.hint words what is asked .*clients\.helping\.hint:Hint"):
        client_of(run_of("none", words, "client.helping.path=clients.helping.helping:Ask"))
    both = CloudConfig(hint="{question} {draft} Hint:", draft="{question} {draft}")
    looks = ("client.asking.path=clients.asking.simple:Oracle", "evaluation.cloud=all")
    with pytest.raises(ConfigError, match=r"asking=Oracle looks at the cloud's answers .* client\.helping=Hint"):
        client_of(run_of("looks", *looks))
    with pytest.raises(ConfigError, match="both word what is sent"):
        refuse_hint(Endpoint("http://127.0.0.1:9/v1", "m"), both)
