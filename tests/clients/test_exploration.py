"""Explored prompts: their gradient against peft and autograd, their budget, and asking that comes back on real runs."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import get_peft_model, set_peft_model_state_dict
from torch import Tensor

import flsim
from clients.collaborative_grpo import CollaborativeGrpo
from clients.da_grpo import DaGrpo
from clients.device.device import Device
from clients.device.head import WEIGHT
from clients.device.pack import Pack
from clients.device.rollout import Rollout
from clients.device.world import World, load_world
from clients.fixed_price import FixedPrice
from clients.gapg import Gapg
from clients.grpo import Grpo
from clients.helping.hint import Hint
from clients.reinforcement import Reinforcement
from flsim.budget.ledger import Ledger
from flsim.config.load import load_config
from flsim.learning.benefit import CLOUD
from flsim.learning.exploration import EDGE
from flsim.metrics.rows import training, without_timing
from flsim.models.adapter import Adapter, lora_of
from flsim.models.base import load_base
from flsim.models.lora_settings import lora_config
from flsim.problems.problem import Problem
from tests.tiny import TOKEN, TinyRun, tiny_world

pytestmark = pytest.mark.usefixtures("one_thread")

TAU = 0.5
WORK: dict[str, Any] = {"steps": 1, "prompts": 6, "group_size": 4, "clip_norm": 1e9, "max_new_tokens": 9}
TEXT = "model.help=12"
"""A request of several tokens of the tiny checkpoint."""
Seen = list[tuple[list[list[Problem]], Rollout]]


@dataclass(frozen=True)
class Watched(DaGrpo):
    """It says what it has sampled, and may be made to learn nothing of what it explored."""

    deaf: bool = False
    seen: Seen = field(default_factory=list)

    def _roll_out(self, world: World, devices: Sequence[Device], problems: Any, *more: Any) -> Rollout:
        rollout = super()._roll_out(world, devices, problems, *more)
        self.seen.append((problems, rollout))
        return rollout

    def gain(self, pack: Pack, rollout: Rollout) -> Tensor:
        return super().gain(pack, rollout) * (not self.deaf)


def world_of(checkpoint: Path, *more: str) -> World:
    return load_world(tiny_world(checkpoint, f"budget.tau={TAU}", "cloud.oracle_error=0.3", *more))


@pytest.fixture(scope="module")
def worlds(tiny_checkpoint: Path) -> dict[str, World]:
    """Of devices that ask by either policy."""
    config, learner = tiny_world(tiny_checkpoint, f"budget.tau={TAU}", "cloud.oracle_error=0.3"), DaGrpo()
    return {"token": load_world(config), "head": load_world(config, extras=learner.extras, head=learner.head)}


def device_of(world: World, index: int = 0, dual: float = 0.3, **caps: float) -> Device:
    rng = np.random.default_rng(index)
    adapter = {n: rng.normal(0, 0.05, t.shape).astype(np.float32) for n, t in lora_of(world.first).items()}
    budget = replace(world.config.budget, **caps)  # type: ignore[arg-type]
    return Device(index, 1, {**world.first, **adapter}, dual, Ledger(budget), None)


def learned(world: World, learner: Reinforcement, devices: Sequence[Device]) -> Tensor:
    """The first gradient, read off Adam's first moments, `(K, n)`: m = (1 - beta_1) g."""
    learner.local_update(world, devices)
    return torch.cat([device.optimizer.first * 10 for device in devices if device.optimizer is not None])


def by_peft(world: World, learner: DaGrpo, device: Device, problems: Sequence[Problem], rollout: Rollout) -> Adapter:
    """Of `-sum gain z / prompts`, z = log P - log (1 - P) of the request's tokens, one prompt at a time."""
    model = get_peft_model(load_base(world.config.model.path).as_transformers(), lora_config(world.config.model))
    set_peft_model_state_dict(model, {name: torch.from_numpy(t) for name, t in lora_of(device.adapter).items()})
    base, loss, drafts = world.base, torch.zeros(()), rollout.completions
    assert rollout.explored is not None
    usage = float(rollout.usage[0])
    price = min(1.0, max(0.0, 0.3 + learner.dual_gain * (usage - TAU)))
    pushed = 0
    for p in rollout.explored[0].nonzero()[:, 0].tolist():
        gain = float(rollout.help.right[0, p] - rollout.right_draft[0, p].mean()) - price
        prompt = base.tokenizer(base.prompt(problems[p]))["input_ids"]
        before: list[int] = []
        if world.config.model.drafts:
            *before, end = drafts.tokens[0, p, 0][drafts.mask[0, p, 0]].tolist()
            if not before or end != base.eos_id:  # no request could stand there
                continue
        told = [*prompt, *before, *base.help.ids]
        logits = model(input_ids=torch.tensor([told])).logits[0, -len(base.help.ids) - 1 : -1].clone()
        logits[0, base.help.ids[0]] += learner.help_bias(0.3)
        each = torch.log_softmax(logits / learner.temperature, -1)[range(len(base.help.ids)), list(base.help.ids)]
        chance = each.sum().exp()
        if (gain > 0 and chance > 1 - EDGE) or (gain < 0 and chance < EDGE):
            continue
        pushed += 1
        loss = loss - gain * (each.sum() - torch.log1p(-chance)) / len(problems)
    assert pushed
    loss.backward()
    named = {n.replace(".default.", "."): p.grad for n, p in model.named_parameters() if p.requires_grad}
    return {name: grad.numpy() for name, grad in named.items() if grad is not None}


@pytest.mark.parametrize("more", [(), (TEXT,), (TEXT, "model.request=after"), ("model.request=after",)])
def test_the_gradient_is_that_of_the_written_loss(tiny_checkpoint: Path, more: tuple[str, ...]) -> None:
    """Of one token or several, before or after a draft, at a temperature and with a threshold of the device's own."""
    world = world_of(tiny_checkpoint, *more)
    settings = {**WORK, **TOKEN, "explore": 1.0, "temperature": 0.7, "dual_bias": 2.0}
    both, deaf = Watched(**settings), Watched(**settings, deaf=True)
    devices = [device_of(world, k) for k in (0, 1)]
    found = learned(world, both, devices) - learned(world, deaf, [device_of(world, k) for k in (0, 1)])
    ((problems, rollout),) = both.seen
    assert rollout.explored is not None
    assert not rollout.asked[rollout.explored].any()
    expected = by_peft(world, both, device_of(world), problems[0], rollout)
    (measured,) = world.lora.unstack(found[:1])
    size = max(float(np.abs(tensor).max()) for tensor in expected.values())
    assert size > 1e-5
    for name, tensor in expected.items():
        assert np.abs(measured[name] - tensor).max() < 2e-3 * size


@pytest.mark.parametrize("policy", ["token", "head"])
@settings(max_examples=6)
@given(calls=st.integers(0, 7), explore=st.sampled_from([0.0, 0.5, 1.0]), tau=st.sampled_from([0.0, 0.5, 1.0]))
def test_caps_hold_and_the_price_counts_what_was_explored(
    worlds: dict[str, World], policy: str, calls: int, explore: float, tau: float
) -> None:
    """Calls never pass the cap, all that was explored counts as asked, and without a budget nothing is explored."""
    world = worlds[policy]
    form = TOKEN if policy == "token" else {"dual_lr": 0.1, "imitate": 1.0, "replay": 4}
    learner = Watched(**{**WORK, **form, "policy": policy, "steps": 2, "lr": 1e-4, "explore": explore})
    device = device_of(world, calls_per_round=calls, tau=tau)
    (update,) = learner.local_update(world, [device])
    assert device.ledger.round.calls <= calls
    sums = {name: sum(r.total for r in update.rows if r.name == name) for name in ("cloud_requests", "explored")}
    forced = sum(int(r.explored.sum()) for _, r in learner.seen if r.explored is not None)
    assert sums["explored"] == forced * learner.group_size <= sums["cloud_requests"]
    assert forced == 0 if tau == 0 or explore == 0 else abs(forced - explore * tau * update.num_examples) <= 2
    dual = 0.3
    for _, rollout in learner.seen:
        asked = float(rollout.asked.sum()) + (0 if rollout.explored is None else 4 * float(rollout.explored.sum()))
        dual = min(1.0, max(0.0, dual + 0.1 * (asked / rollout.asked.numel() - tau)))
    assert device.dual == pytest.approx(dual, abs=1e-5)


def test_a_head_that_believes_in_no_cloud_learns_better(worlds: dict[str, World]) -> None:
    """At a price of 0.3 it buys nothing that could show it; of what is explored it learns that the cloud is right.

    That is so on seven prompts of ten, and its own drafts are wrong: what asking gains is above the price.
    """
    world, late = worlds["head"], {}
    form: dict[str, Any] = {"policy": "head", "head_temperature": 0.02, "price": 0.3, "steps": 3, "lr": 0.02}
    for explore in (0.0, 0.5):
        learner, device = FixedPrice(**{**WORK, **form, "clip_norm": 1.0, "explore": explore}), device_of(world)
        device.adapter = device.adapter | {WEIGHT: disbelief(world)}
        for round_ in range(1, 9):
            device.round, device.ledger = round_, Ledger(world.config.budget)
            (update,) = learner.local_update(world, [device])
            device.adapter = update.adapter
        asked = [row for row in update.rows if row.name == "cloud_requests"]
        late[explore] = sum(row.total for row in asked) / sum(row.weight for row in asked)
    assert late[0.0] == 0
    assert late[0.5] > 0.6


def disbelief(world: World) -> np.ndarray:
    """A head that gives the cloud a chance of e^-20."""
    weight = world.first[WEIGHT].copy()
    weight[CLOUD, 0] = -20 / DaGrpo().head_rate
    return weight


LAW = ("client.explore=0.5", "client.dual_bias=10", "client.dual_lr=0.3")


@pytest.mark.slow
@pytest.mark.parametrize("start", ["never", "always"])
def test_a_real_run_comes_back_to_tau(tmp_path: Path, start: str, no_report: None) -> None:
    """The built-in SLM, whose request is a token that it says once in seven million; or one that has learned to ask."""
    given = [f"run_dir={tmp_path / start}", "fleet.devices=2", "stream.phases=[[arithmetic,strings]]", "engine.pack=2"]
    given += ["evaluation.every_rounds=100", "evaluation.prompts_per_task=4", "engine.kind=local", "client.steps=4"]
    given += ["client.prompts=6", "client.policy=token", "client.imitate=0", "client.replay=0", "rounds=16", *LAW]
    given += ["model.help=+"] if start == "never" else []
    config = load_config(None, given)
    if start == "always":
        config = replace(config, model=replace(config.model, adapter=str(eager(tmp_path))))
    rows = training(flsim.run(config, progress=False).rows, name="cloud_requests")
    sums = rows.groupby("round")[["total", "weight"]].sum()
    usage = (sums["total"] / sums["weight"]).tolist()
    assert (usage[0] > 0.8) if start == "always" else (usage[0] < 0.2)
    assert float(np.mean(usage[-4:])) == pytest.approx(0.3, abs=0.05)


def eager(folder: Path) -> Path:
    """The adapter of a fleet to which asking has cost nothing."""
    given = [f"run_dir={folder / 'free'}", "fleet.devices=2", "stream.phases=[[arithmetic,strings]]", "engine.pack=2"]
    given += ["evaluation.every_rounds=100", "evaluation.prompts_per_task=4", "engine.kind=local", "client.steps=4"]
    given += ["client.path=clients.fixed_price:FixedPrice", "client.price=0", "client.lr=0.005", "client.prompts=6"]
    return flsim.run(load_config(None, [*given, "rounds=6"]), progress=False).folder / "adapter"


@pytest.mark.parametrize("policy", ["token", "head"])
def test_runs_repeat_whatever_the_pack(tiny_run: TinyRun, no_report: None, policy: str) -> None:
    """Every count is the same again, and in packs of another size."""
    form = ["client.policy=token", "client.imitate=0", "client.replay=0"] if policy == "token" else []
    settings = ["client.explore=1", "budget.tau=0.5", "client.steps=2", *form]
    runs = {
        name: without_timing(flsim.run(tiny_run(name, *settings, more), progress=False).rows)
        for name, more in (("one", "engine.pack=1"), ("two", "engine.pack=2"), ("again", "engine.pack=2"))
    }
    pd.testing.assert_frame_equal(runs["two"], runs["again"], check_exact=True)
    counts = {"explored", "cloud_requests", "cloud_calls", "reward"}
    few = [rows[rows["name"].isin(counts)].reset_index(drop=True) for rows in (runs["one"], runs["two"])]
    assert few[0].loc[few[0]["name"] == "explored", "total"].sum() > 0
    pd.testing.assert_frame_equal(few[0], few[1], check_exact=True)


@pytest.mark.parametrize(
    ("learner", "changes", "message"),
    [
        (DaGrpo, {"explore": 1.5}, r"explore=1.5 must be in \[0, 1\]"),
        (Grpo, {"explore": 0.1}, "explore=0.1 has no effect: this method never asks"),
        (DaGrpo, {"explore": 0.1, "helping": Hint(), **TOKEN}, "explore=0.1 compares drafts.*set explore=0"),
    ],
)
def test_what_cannot_work_is_refused(learner: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        learner(**changes)


@pytest.mark.parametrize(
    ("learner", "expected"),
    [
        (FixedPrice(price=0.2), 1 - 0.25 - 0.2),
        (Gapg(help_reward=0.6), 0.6 - 0.25),
        (CollaborativeGrpo(help_reward=0.4), 0.4 - 0.25),
    ],
)
def test_every_method_counts_the_gain_as_it_counts_rewards(
    tiny_checkpoint: Path, worlds: dict[str, World], learner: Reinforcement, expected: float
) -> None:
    """One of four drafts right, and the cloud's answer: alpha_c - 1/4, less the price."""
    world = worlds["token"]
    watched = Watched(**{**WORK, **TOKEN, "explore": 1.0})
    watched.local_update(world, [device_of(world)])
    ((_, rollout),) = watched.seen
    right = torch.zeros_like(rollout.right_draft)
    right[..., 0] = 1.0
    help_ = replace(rollout.help, right=torch.ones_like(rollout.help.right))
    made = replace(rollout, right_draft=right, right_alone=right, right=right, help=help_)
    pack = Pack.of(world, [device_of(world, dual=learner.first_dual)])
    assert learner.gain(pack, made)[0].tolist() == pytest.approx([expected] * right.shape[1])
