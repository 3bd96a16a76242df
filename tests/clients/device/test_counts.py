"""Counts of a device's round: by hand on what it drew, additive over steps, the same in any pack; responses cut."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clients.collaborative_grpo import CollaborativeGrpo
from clients.da_grpo import DaGrpo
from clients.dapo import Dapo
from clients.device.device import Device
from clients.device.pack import Pack
from clients.device.rollout import Rollout
from clients.device.world import World, load_world
from clients.dr_grpo import DrGrpo
from clients.gapg import Gapg
from clients.grpo import Grpo
from clients.gvpo import Gvpo
from clients.learner import Learner
from clients.reinforcement import Judged, Reinforcement
from clients.sft import Sft
from flsim.budget.ledger import Ledger
from flsim.flower.messages import DeviceUpdate
from flsim.problems.problem import Problem
from tests.tiny import TOKEN, tiny_world

WORK: dict[str, Any] = {"steps": 2, "prompts": 4, "group_size": 4, "max_new_tokens": 5}
TokenDaGrpo = partial(DaGrpo, **TOKEN)
Met = list[tuple[list[list[Problem]], Rollout]]


@pytest.fixture(scope="module")
def world(tiny_checkpoint: Path) -> World:
    """Devices that ask by a token at random, and a cloud that knows all."""
    return load_world(tiny_world(tiny_checkpoint, "budget.tau=0.5", "cloud.price_per_prompt_token=1"))


def device_of(world: World, index: int = 0) -> Device:
    rng = np.random.default_rng(index)
    adapter = {name: rng.normal(0, 0.05, t.shape).astype(np.float32) for name, t in world.first.items()}
    return Device(index, 1, adapter, 0.5, Ledger(world.config.budget), None)


def counts(update: DeviceUpdate) -> dict[str, tuple[float, float]]:
    return {row.name: (row.total, row.weight) for row in update.rows if row.task == "all"}


def learned(
    world: World, learner: Learner, monkeypatch: pytest.MonkeyPatch
) -> tuple[Device, dict[str, tuple[float, float]], Met]:
    """A device's round: its counts, and the questions and responses of every step."""
    met: Met = []
    roll_out = Reinforcement._roll_out

    def noting(self: Any, world: World, devices: Any, problems: list[list[Problem]], *more: Any) -> Rollout:
        met.append((problems, roll_out(self, world, devices, problems, *more)))
        return met[-1][1]

    monkeypatch.setattr(Reinforcement, "_roll_out", noting)
    device = device_of(world)
    (update,) = learner.local_update(world, [device])
    return device, counts(update), met


def lengths(world: World, problems: Sequence[Problem]) -> list[int]:
    return [len(world.base.tokenizer(world.base.prompt(problem))["input_ids"]) for problem in problems]


def said(world: World, rollout: Rollout) -> list[list[tuple[int, bool]]]:
    """Tokens of every response of the device's prompts, and whether it never ended."""
    found = []
    for group in rollout.completions.tokens[0].tolist():
        own = []
        for row in group:
            ends = [t for t, token in enumerate(row) if token in (world.base.eos_id, world.base.help_id)]
            own.append((ends[0] + 1, False) if ends else (len(row), True))
        found.append(own)
    return found


def test_counts_are_those_of_a_list_by_hand(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over two steps of a policy that asks: sums of lengths, of the longest of each group, and of what was bought."""
    device, found, met = learned(world, TokenDaGrpo(**WORK), monkeypatch)
    problems = [problem for step, _ in met for problem in step[0]]
    groups = [group for _, rollout in met for group in said(world, rollout)]
    responses = [one for group in groups for one in group]
    assert len(met) == 2
    assert found["read_tokens"] == (sum(lengths(world, problems)), len(problems))
    assert found["sampled_tokens"] == (sum(n for n, _ in responses), len(responses))
    assert found["cut_responses"] == (sum(cut for _, cut in responses), len(responses))
    assert 0 < found["cut_responses"][0] < len(responses)
    assert found["decode_steps"] == (sum(max(n for n, _ in group) for group in groups), len(problems))
    bought = [world.cloud.answer([problem])[0] for problem in device.sent]
    assert bought
    sums = {
        "cloud_prompt_tokens": sum(answer.prompt_tokens for answer in bought if answer),
        "cloud_completion_tokens": sum(answer.completion_tokens for answer in bought if answer),
        "cloud_up_bytes": sum(len(problem.question.encode()) for problem in device.sent),
        "cloud_down_bytes": sum(len(answer.text.encode()) for answer in bought if answer),
        "cloud_trips": len(bought),
    }
    assert {name: found[name] for name in sums} == {name: (value, 1) for name, value in sums.items()}
    assert found["cloud_tokens"][0] == sums["cloud_prompt_tokens"] + sums["cloud_completion_tokens"]
    assert found["cloud_calls"][0] == sums["cloud_trips"]


def test_only_groups_of_two_minds_are_learned(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some responses ask and are right, the others are wrong: where a group does both, each token pulls."""
    _, found, met = learned(world, CollaborativeGrpo(form="dr_grpo", **WORK), monkeypatch)
    pulling = 0
    for _, rollout in met:
        for group, asked in zip(said(world, rollout), rollout.asked[0].tolist(), strict=True):
            pulling += sum(n for n, _ in group) if len(set(asked)) == 2 else 0
    assert found["learned_tokens"] == (pulling, 1)
    assert 0 < pulling < found["sampled_tokens"][0]


def test_what_is_read_again_counts_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt at every update, and with all responses under the adapters that a KL looks at."""
    once = learned(world, Grpo(**WORK), monkeypatch)[1]["read_tokens"]
    assert learned(world, Gvpo(**WORK), monkeypatch)[1]["read_tokens"] == (2 * once[0], 2 * once[1])
    held = learned(world, Grpo(kl=0.1, **WORK), monkeypatch)[1]
    assert held["read_tokens"] == (2 * once[0] + held["sampled_tokens"][0], 2 * once[1])


def test_bought_answers_are_read_and_learned(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """By who imitates them, in so many tokens more, as no draft of the random model is right; and by who only does."""
    learner = TokenDaGrpo(**{**WORK, "steps": 1, "lr": 1e-6})
    _, before, _ = learned(world, learner, monkeypatch)
    device, after, _ = learned(world, replace(learner, imitate=1.0), monkeypatch)
    answers = sum(len(world.base.spell(problem.answer, 5)) for problem in device.sent)
    assert after["learned_tokens"][0] - before["learned_tokens"][0] == answers > 0
    more = after["read_tokens"][0] - before["read_tokens"][0], after["read_tokens"][1] - before["read_tokens"][1]
    assert more == (sum(lengths(world, device.sent)), len(device.sent))

    device, found, _ = learned(world, Sft(**WORK), monkeypatch)
    assert found["read_tokens"] == (sum(lengths(world, device.sent)), len(device.sent))
    assert found["learned_tokens"][0] == sum(len(world.base.spell(p.answer, 5)) for p in device.sent) > 0
    assert found["sampled_tokens"] == found["cut_responses"] == (0, 0)


def test_a_try_alone_is_drawn_and_its_prompt_not_read_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no call may be made, each prompt that some response asked for has one answer more."""
    caps = replace(world.config.budget, calls_per_round=0)
    refused = replace(world, config=replace(world.config, budget=caps))
    device, found, met = learned(refused, TokenDaGrpo(**WORK), monkeypatch)
    tried = sum(int(rollout.asked.any(-1).sum()) for _, rollout in met)
    prompts = [problem for step, _ in met for problem in step[0]]
    assert found["sampled_tokens"][1] == 4 * len(prompts) + tried > 4 * len(prompts)
    assert found["read_tokens"] == (sum(lengths(world, prompts)), len(prompts))
    assert found["cloud_trips"] == found["cloud_up_bytes"] == (0, 1)
    assert not device.sent


def test_counts_are_the_same_in_any_pack(world: World) -> None:
    for learner in (CollaborativeGrpo(**WORK), Sft(**WORK)):
        devices = [device_of(world, k) for k in range(3)]
        alone = [counts(learner.local_update(world, [deepcopy(device)])[0]) for device in devices]
        for order in ((0, 1, 2), (2, 0)):
            updates = learner.local_update(world, [deepcopy(devices[k]) for k in order])
            assert [counts(update) for update in updates] == [alone[k] for k in order]


METHODS = (Grpo, DrGrpo, Dapo, Gvpo, Gapg, CollaborativeGrpo, TokenDaGrpo)


@pytest.mark.parametrize("method", METHODS)
def test_a_response_that_was_cut_pulls_nothing(world: World, method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others pull as before where a loss is a mean over responses; where nothing was cut, all do, bit for bit."""
    learner = method(**{**WORK, "steps": 1})
    device, _, ((_, rollout),) = learned(world, learner, monkeypatch)
    right = torch.arange(rollout.asked.numel()).view_as(rollout.asked) % 3 == 0  # (K, P, G)
    rollout = replace(rollout, right_alone=right * (1 - rollout.asked), right=right.float())
    pack = Pack.of(world, [device])
    cut = rollout.completions.cut
    assert cut is not None
    assert cut.any()

    def pull(rollout: Rollout, mask_cut: bool) -> torch.Tensor:
        old, kept = rollout.completions.logprobs, learner.kept(pack, rollout)  # (K, P, G, T), (K, P)
        judged = Judged(rollout, learner.advantage(pack, rollout), old, None, kept, None, mask_cut)
        moved = (old - 0.01).requires_grad_()  # (K, P, G, T)
        (found,) = torch.autograd.grad(learner.loss(moved, judged).sum(), moved)
        return found

    plain, masked = pull(rollout, False), pull(rollout, True)  # (K, P, G, T) each
    assert (plain[cut] != 0).any()
    assert not masked[cut].any()
    if learner.aggregation in ("sum", "dr_grpo") and method is not Gvpo:
        assert torch.equal(masked[~cut], plain[~cut])
    whole = replace(rollout, completions=replace(rollout.completions, cut=torch.zeros_like(cut)))
    assert torch.equal(pull(whole, True), plain)


def test_a_device_leaves_out_what_was_cut(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the whole step; a learner that draws nothing has no such setting."""
    learner = CollaborativeGrpo(form="dr_grpo", mask_cut=True, **{**WORK, "steps": 1})
    _, found, ((_, rollout),) = learned(world, learner, monkeypatch)
    pulling = 0
    for group, asked in zip(said(world, rollout), rollout.asked[0].tolist(), strict=True):
        pulling += sum(n for n, cut in group if not cut) if len(set(asked)) == 2 else 0
    assert found["learned_tokens"] == (pulling, 1)
    with pytest.raises(ValueError, match="mask_cut"):
        Sft.client_app(world.config, mask_cut=True)
