"""Imitation of what was bought: its gradient against peft and autograd, and what a device keeps of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import RecordDict
from peft import get_peft_model, set_peft_model_state_dict
from torch import Tensor

from clients.collaborative_grpo import CollaborativeGrpo
from clients.da_grpo import DaGrpo
from clients.device.device import Device, keep, remember
from clients.device.replay import Replay, met_again
from clients.device.rollout import Rollout
from clients.device.world import World, load_world
from clients.reinforcement import Reinforcement
from flsim.budget.ledger import Ledger
from flsim.config.load import load_config
from flsim.models.adapter import Adapter, lora_of
from flsim.models.base import load_base
from flsim.models.lora_settings import lora_config
from flsim.problems.judging import are_right
from flsim.problems.problem import Problem
from tests.flsim.cloud.answers import answered

pytestmark = pytest.mark.usefixtures("one_thread")

WORK: dict[str, Any] = {"steps": 1, "prompts": 6, "group_size": 4, "clip_norm": 1e9, "replay": 0}
Lesson = tuple[Problem, str, float]


@dataclass(frozen=True)
class Seen(DaGrpo):
    """It says what it has sampled."""

    met: list[tuple[list[list[Problem]], Rollout]] = field(default_factory=list, init=False)

    def _roll_out(self, world: World, devices: Sequence[Device], problems: Any, *more: Any) -> Rollout:
        rollout = super()._roll_out(world, devices, problems, *more)
        self.met.append((problems, rollout))
        return rollout


def world_with(policy: str, *more: str) -> World:
    settings = ["model.rank=2", "rounds=3", "fleet.devices=3", "cloud.kind=oracle", "cloud.oracle_error=0.3", *more]
    learner = DaGrpo(policy=policy)
    return load_world(load_config(None, [*settings, "budget.tau=0.5"]), extras=learner.extras, head=learner.head)


@pytest.fixture(scope="module", params=["token", "head"])
def world(request: pytest.FixtureRequest, tiny_checkpoint: Path) -> World:
    """Devices that ask by either, and a cloud that errs on three of ten questions."""
    return world_with(request.param, f"model.path={tiny_checkpoint}")


@pytest.fixture(scope="module")
def able(one_thread: None) -> World:
    """The built-in SLM, some of whose drafts are right."""
    return world_with("head")


def learner_of(world: World, **changes: Any) -> Seen:
    by = {"policy": "token", "dual_bias": 8.0} if world.head is None else {"policy": "head"}
    return Seen(**{"imitate": 1.5} | by | WORK | changes)


def device_of(world: World, index: int = 0, *, round_: int = 1) -> Device:
    rng = np.random.default_rng(index)
    adapter = {n: rng.normal(0, 0.05, t.shape).astype(np.float32) for n, t in lora_of(world.first).items()}
    return Device(index, round_, {**world.first, **adapter}, 0.1, Ledger(world.config.budget), None)


def first_gradients(world: World, learner: Reinforcement, devices: Sequence[Device]) -> Tensor:
    """Read off Adam's first moments, `(K, n)`: m = (1 - beta_1) g."""
    learner.local_update(world, devices)
    return torch.cat([device.optimizer.first * 10 for device in devices if device.optimizer is not None])


def by_peft(world: World, adapter: Adapter, lessons: Sequence[Lesson], learner: Reinforcement, prompts: int) -> Adapter:
    """Of `-imitate / G sum gain log pi(answer) / prompts`, one answer at a time, the help request ruled out."""
    model = get_peft_model(load_base(world.config.model.path).as_transformers(), lora_config(world.config.model))
    set_peft_model_state_dict(model, {name: torch.from_numpy(t) for name, t in lora_of(adapter).items()})
    base, loss = world.base, torch.zeros(())
    for problem, text, gain in lessons:
        prompt = base.tokenizer(base.prompt(problem))["input_ids"]
        answer = [*base.tokenizer(text, add_special_tokens=False)["input_ids"], base.eos_id]
        logits = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].clone()
        logits[:, base.help_id] = -torch.inf
        each = torch.log_softmax(logits, -1)[torch.arange(len(answer)), torch.tensor(answer)]
        number = each.mean() if learner.aggregation == "grpo" else each.sum()
        loss = loss - learner.imitate / learner.group_size * gain * number / prompts
    loss.backward()
    named = {n.replace(".default.", "."): p.grad for n, p in model.named_parameters() if p.requires_grad}
    return {name: grad.numpy() for name, grad in named.items() if grad is not None}


def lessons_of(problems: Sequence[Problem], rollout: Rollout, k: int) -> list[Lesson]:
    """What was bought just now and is right: what a draft of its group lacks."""
    lacks = 1 - rollout.right_draft[k].mean(-1)
    return [(problems[p], text, float(lacks[p])) for (at, p), text in rollout.help.answers.items() if at == k]


def assert_same(world: World, found: Tensor, expected: Adapter) -> None:
    (measured,) = world.lora.unstack(found[None])
    size = max(float(np.abs(tensor).max()) for tensor in expected.values())
    assert size > 1e-4
    for name, tensor in expected.items():
        assert np.abs(measured[name] - tensor).max() < 1e-3 * size
    assert all(not tensor.any() for name, tensor in measured.items() if name not in expected)


def added(world: World) -> list[list[Lesson]]:
    """What imitation adds to a step of a pack of two is peft's gradient, answer by answer; the lessons of each."""
    own, both = learner_of(world, imitate=0.0), learner_of(world)
    plain, found = (first_gradients(world, learner, [device_of(world, k) for k in (0, 1)]) for learner in (own, both))
    ((problems, rollout),) = both.met
    assert torch.equal(rollout.completions.tokens, own.met[0][1].completions.tokens)
    lessons = [lessons_of(row, rollout, k) for k, row in enumerate(problems)]
    for k, row in enumerate(problems):
        assert len(row) >= len(lessons[k]) > 0
        expected = by_peft(world, device_of(world, k).adapter, lessons[k], both, len(row))
        assert_same(world, found[k] - plain[k], expected)
    return lessons


def test_the_gradient_is_that_of_the_written_loss(world: World) -> None:
    added(world)


def test_a_draft_that_is_right_leaves_less_to_imitate(able: World) -> None:
    """The gain is the share of wrong drafts in the group."""
    assert len({gain for lessons in added(able) for _, _, gain in lessons}) > 1


def test_what_is_right_is_what_is_imitated(world: World) -> None:
    """The cloud's own words, where its verifier takes them."""
    learner = learner_of(world)
    learner.local_update(world, [device_of(world)])
    (((row,), rollout),) = learner.met
    wanted = rollout.asked[0].bool().any(-1)[: len(row)].tolist()
    sent = [p for p, wish in enumerate(wanted) if wish]
    said = {p: answer.text for p, answer in zip(sent, answered(world.cloud, [row[p] for p in sent]), strict=True)}
    right = {p: text for p, text in said.items() if are_right([(row[p], text)])[0]}
    assert 0 < len(right) < len(said)
    assert rollout.help.answers == {(0, p): text for p, text in right.items()}


def test_other_methods_aggregate_answers_as_they_aggregate_responses(tiny_checkpoint: Path) -> None:
    """`grpo` takes the mean of an answer's tokens."""
    world = world_with("token", f"model.path={tiny_checkpoint}")
    seen: list[Rollout] = []

    class Method(CollaborativeGrpo):
        def _roll_out(self, *parts: Any) -> Rollout:
            seen.append(super()._roll_out(*parts))
            return seen[-1]

    learners = [Method(imitate=i, **WORK) for i in (0.0, 2.0)]
    plain, found = (first_gradients(world, learner, [device_of(world)]) for learner in learners)
    (row,) = learners[1].problems(world, [device_of(world)], 0)
    expected = by_peft(world, device_of(world).adapter, lessons_of(row, seen[1], 0), learners[1], len(row))
    assert_same(world, found[0] - plain[0], expected)


def test_who_gets_no_answer_learns_as_without_it_bit_for_bit(world: World) -> None:
    alone = replace(world.config.budget, calls_per_round=0)
    found = []
    for imitate in (0.0, 1.5):
        device = device_of(world)
        device.ledger = Ledger(alone)
        (update,) = learner_of(world, imitate=imitate, replay=0, steps=2, updates=2).local_update(world, [device])
        assert device.optimizer is not None
        assert not device.answers
        rest = {name: tensor.tobytes() for name, tensor in update.adapter.items()}
        found.append((update.rows, rest, device.optimizer.first.tolist(), device.dual))
    assert found[0] == found[1]


def test_without_imitation_no_answer_is_kept(world: World) -> None:
    device = device_of(world)
    learner = learner_of(world, imitate=0.0, replay=8, steps=3)
    learner.local_update(world, [device])
    assert any(rollout.help.answers for _, rollout in learner.met)
    assert not device.answers
    assert len(device.replay.places) == 8  # questions, which are met again


def test_bought_answers_are_kept_with_their_places_and_cost_nothing_again(world: World) -> None:
    """After three steps: as many calls as prompts asked, new questions in every step, and right answers kept."""
    device = device_of(world)
    learner = learner_of(world, replay=5, replay_share=0.5, steps=3, lr=1e-3)
    learner.local_update(world, [device])
    calls = sum(int(rollout.asked.bool().any(-1).sum()) for _, rollout in learner.met)
    assert device.ledger.total.calls + device.ledger.held.calls == calls
    for step, ((row,), _) in enumerate(learner.met):
        assert row == world.stream.training_problems(device.name, 1, step, count=len(row), seed=world.seed)
    bought = {(1, step, p): text for step, (_, r) in enumerate(learner.met) for (_, p), text in r.help.answers.items()}
    assert device.replay.seen == len(bought) > 5
    assert set(device.answers) == set(device.replay.places) < set(bought)
    assert all(bought[place] == text for place, text in device.answers.items())
    places, count = list(device.answers), len(learner.met[0][0][0])
    past = met_again(world.stream, device.name, places, count=count, seed=world.seed)
    assert all(are_right([(problem, device.answers[at]) for problem, at in zip(past, places, strict=True)]))


def test_kept_answers_teach_again_from_the_next_step_on(world: World) -> None:
    """A step draws from what was there before it, half a lack each; also by a device that was put away between."""
    learner = learner_of(world, replay=6, replay_share=0.5)
    one = device_of(world)
    learner.local_update(world, [one])
    assert one.answers
    state = RecordDict()
    keep(state, one)
    ends = []
    for imitate in (0.0, 1.5):
        fresh = device_of(world, round_=2)
        device = remember(state, 0, 2, fresh.adapter, budget=world.config.budget, dual=0.1)
        device.optimizer, device.dual = None, fresh.dual
        assert (device.replay, device.answers) == (one.replay, one.answers)
        again = learner_of(world, imitate=imitate, replay=6 if imitate else 0, replay_share=0.5)
        ends.append(first_gradients(world, again, [device])[0])
    (((row,), rollout),) = again.met
    places = Replay(list(one.replay.places)).draw(len(row) // 2, world.seed, one.name, 2, 0)
    past = met_again(world.stream, one.name, places, count=len(row), seed=world.seed)
    kept = [(problem, one.answers[at], 0.5) for problem, at in zip(past, places, strict=True)]
    assert len(kept) > 0
    assert {place[0] for place in places} == {1}
    lessons = lessons_of(row, rollout, 0) + kept
    assert_same(world, ends[1] - ends[0], by_peft(world, fresh.adapter, lessons, again, len(row)))


def test_a_pack_imitates_as_its_devices_alone(world: World) -> None:
    """Unequal numbers of prompts and answers, over two steps with replay."""
    learner = learner_of(world, replay=4, replay_share=0.5, steps=2)
    together, alone = ([device_of(world, k) for k in range(3)] for _ in range(2))
    for update, device, own in zip(learner.local_update(world, together), together, alone, strict=True):
        (single,) = learner.local_update(world, [own])
        assert (device.replay, device.answers) == (own.replay, own.answers)
        for name, tensor in update.adapter.items():
            assert np.abs(tensor - single.adapter[name]).max() < 1e-4
    assert len({len(device.answers) for device in together} | {0}) > 1
