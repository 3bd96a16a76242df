"""One round of the paper's DA-GRPO: the step against peft and torch's Adam, lambda from rows, packs, memory, caps."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import RecordDict
from peft import get_peft_model, set_peft_model_state_dict

from clients.da_grpo import DaGrpo
from clients.device.device import Device, keep, remember
from clients.device.rollout import Rollout, roll_out
from clients.device.world import World, load_world
from flsim.budget.ledger import Ledger
from flsim.config.schema import Config, ConfigError
from flsim.flower.contract import client_of
from flsim.flower.messages import DeviceUpdate
from flsim.models.adapter import Adapter, initial_adapter
from flsim.models.base import load_base
from flsim.models.lora_settings import lora_config
from tests.tiny import TOKEN, tiny_world

TAU = 0.3


def config_of(checkpoint: Path, *more: str) -> Config:
    return tiny_world(checkpoint, "model.alpha=6", f"budget.tau={TAU}", *more)


@pytest.fixture(scope="module")
def world(tiny_checkpoint: Path) -> World:
    return load_world(config_of(tiny_checkpoint))


def settings(**changes: Any) -> DaGrpo:
    return replace(
        DaGrpo(steps=1, prompts=6, group_size=8, lr=0.01, max_new_tokens=4, cost_baseline="group", **TOKEN), **changes
    )


def start_of(world: World, seed: int | None = None) -> Adapter:
    """peft's fresh adapter (B = 0), or one with every tensor random."""
    fresh = initial_adapter(load_base(world.config.model.path).model, world.config.model, world.config.seed)
    if seed is None:
        return fresh
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, 0.2, tensor.shape).astype(np.float32) for name, tensor in fresh.items()}


def device_of(
    world: World, index: int = 0, *, round_: int = 1, adapter: Adapter | None = None, dual: float = 0.5
) -> Device:
    budget = world.config.budget
    return Device(index, round_, start_of(world, 7) if adapter is None else adapter, dual, Ledger(budget), None)


def total(update: DeviceUpdate, name: str) -> tuple[float, float]:
    """Sum over tasks of the (total, weight) of a row name."""
    rows = [row for row in update.rows if row.name == name]
    assert rows, f"no row {name!r}"
    return sum(row.total for row in rows), sum(row.weight for row in rows)


def distance(one: Adapter, other: Adapter) -> float:
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


def rollout_of(world: World, algorithm: DaGrpo, device: Device) -> Rollout:
    """The rollout that the device's first step makes: a pure function of seed, device, round and step."""
    count = world.stream.prompts_per_step(device.name, algorithm.prompts)
    problems = world.stream.training_problems(device.name, device.round, 0, count=count, seed=world.config.seed)
    world.lora.attach(world.lora.stack([device.adapter]))
    return roll_out(
        world,
        [replace(device, ledger=Ledger(world.config.budget))],
        [problems],
        algorithm.sampling,
        step=0,
        help_bias=torch.tensor([[bias_at(algorithm, device, p, count) for p in range(count)]]),
    )


def bias_at(algorithm: DaGrpo, device: Device, p: int, prompts: int) -> float:
    """On the logit of the help request: none may be made at the prompts that are practised alone."""
    return -math.inf if p < int(algorithm.alone_share * prompts) else algorithm.help_bias(device.dual)


def peft_step(
    world: World, algorithm: DaGrpo, device: Device, advantage: torch.Tensor, rollout: Rollout
) -> tuple[Adapter, Adapter]:
    """Gradient and new adapter by peft's own model, one response at a time without padding, and by torch's Adam."""
    model = get_peft_model(load_base(world.config.model.path).as_transformers(), lora_config(world.config.model))
    set_peft_model_state_dict(model, {name: torch.from_numpy(t) for name, t in device.adapter.items()})
    named = {n.replace(".default.", "."): p for n, p in model.named_parameters() if p.requires_grad}
    assert named.keys() == device.adapter.keys()
    gain = torch.zeros(())
    prompts, completions = rollout.prompts, rollout.completions
    for p in range(prompts.counts[0]):
        prompt = prompts.ids[0, p][prompts.mask[0, p]]
        for g in range(algorithm.group_size):
            response = completions.tokens[0, p, g][completions.mask[0, p, g]]
            logits = model(input_ids=torch.cat([prompt, response])[None]).logits[0, len(prompt) - 1 : -1]
            logits[:, world.base.help_id] += bias_at(algorithm, device, p, prompts.counts[0])
            if completions.offsets is not None:
                logits[:, world.base.help_id] += completions.offsets[0, p, g, : len(response)]
            logprobs = torch.log_softmax(logits / algorithm.temperature, -1)
            gain = gain + advantage[p, g] * logprobs[torch.arange(len(response)), response].sum()
    (-gain / advantage.numel()).backward()
    parameters = list(named.values())
    gradient = {n: p.grad.numpy().copy() for n, p in named.items() if p.grad is not None}
    torch.nn.utils.clip_grad_norm_(parameters, algorithm.clip_norm)
    torch.optim.Adam(parameters, lr=algorithm.lr, betas=(0.9, 0.99), eps=1e-8).step()
    return gradient, {name: parameter.detach().numpy().copy() for name, parameter in named.items()}


@pytest.mark.parametrize(
    ("baseline", "bias", "share", "surprise"),
    [
        ("group", 0.0, 0.0, 0.0),
        ("batch", 0.0, 0.0, 0.0),
        ("batch", 4.0, 0.0, 0.0),
        ("batch", 4.0, 0.5, 0.0),
        ("batch", 4.0, 0.5, 0.5),
    ],
)
def test_one_step_is_the_papers_formula(
    tiny_checkpoint: Path, baseline: str, bias: float, share: float, surprise: float
) -> None:
    """A = A_r - lambda A_c; both centred, by the group's mean or (costs) by the batch's, times n / (n - 1).

    With a threshold of the device's own the help request's logit is raised by 4 (0.5 - 0.3) = 0.8. With half of the
    prompts practised alone, these have the rewards of answers of one's own and no costs. What the draft's surprise adds
    to the logit is a number, through which no gradient goes.

    The gradient is read off Adam's first moment, which is a tenth of it after one step: m = (1 - beta_1) g. The cloud
    errs on half of the questions, so that rewards and costs differ; with a perfect one they would be equal here.
    """
    world = load_world(config_of(tiny_checkpoint, "cloud.oracle_error=0.5"))
    changes = {"dual_bias": bias, "alone_share": share, "surprise": surprise}
    algorithm = settings(dual_gain=0.0, cost_baseline=baseline, clip_norm=1e6, **changes)
    device = device_of(world, dual=0.3)
    rollout = rollout_of(world, algorithm, device)
    rewards, costs = rollout.right[0], rollout.asked[0]  # (P, G)
    assert 0 < float(rewards.sum()) < float(costs.sum()) < costs.numel()
    alone = int(share * len(costs))
    assert not costs[:alone].any()
    g, n = algorithm.group_size, costs[alone:].numel()
    by_reward = (rewards - rewards.mean(-1, keepdim=True)) * g / (g - 1)
    by_cost = (costs - costs.mean(-1, keepdim=True)) * g / (g - 1)
    if baseline == "batch":
        by_cost = (costs - costs[alone:].mean()) * n / (n - 1)
        by_cost[:alone] = 0
    gradient, adapter = peft_step(world, algorithm, device, by_reward - 0.3 * by_cost, rollout)
    (update,) = algorithm.local_update(world, [device])
    assert device.optimizer is not None
    (measured,) = world.lora.unstack(device.optimizer.first * 10)
    largest = max(float(np.abs(tensor).max()) for tensor in gradient.values())
    assert largest > 1e-3
    assert distance(measured, gradient) < 1e-4 * largest
    clear = {name: np.abs(tensor) > 1e-3 * largest for name, tensor in gradient.items()}  # Adam divides by |g|
    assert sum(int(mask.sum()) for mask in clear.values()) > 500
    for name, mask in clear.items():
        assert np.abs(update.adapter[name] - adapter[name])[mask].max(initial=0.0) < 0.01 * algorithm.lr


def test_a_long_gradient_is_shortened_to_the_clip_norm(world: World) -> None:
    device = device_of(world)
    settings(clip_norm=0.01).local_update(world, [device])
    assert device.optimizer is not None
    assert float((device.optimizer.first * 10).norm()) == pytest.approx(0.01, rel=1e-3)


def test_the_price_follows_the_usage_of_the_prompts_that_may_be_sent(tiny_checkpoint: Path) -> None:
    world = load_world(config_of(tiny_checkpoint))
    algorithm = settings(dual_lr=0.1, dual_gain=0.0, alone_share=0.5)
    device = device_of(world)
    asked = rollout_of(world, algorithm, device).asked[0]  # (P, G)
    (update,) = algorithm.local_update(world, [device])
    open_ = asked[int(0.5 * len(asked)) :]
    assert 0 < float(open_.mean()) < 1
    assert device.dual == pytest.approx(0.5 + 0.1 * (float(open_.mean()) - TAU), abs=1e-6)
    assert total(update, "cloud_requests") == (float(open_.sum()), asked.numel())


def test_lambda_moves_as_the_rows_say(world: World) -> None:
    """lambda + eta (J - tau), with J = asked / responses from the `cloud_requests` rows; clipped to [0, 1]."""
    for start, lr in ((0.5, 0.1), (0.5, 2.0), (0.02, 0.9), (0.0, 0.1)):
        device = device_of(world, dual=start)
        (update,) = settings(dual_lr=lr).local_update(world, [device])
        asked, responses = total(update, "cloud_requests")
        assert responses == 8 * update.num_examples
        expected = min(1.0, max(0.0, start + lr * (asked / responses - TAU)))
        assert device.dual == pytest.approx(expected, abs=1e-6)
        assert total(update, "dual_variable") == (device.dual, 1.0)


def test_every_device_of_a_pack_aims_at_its_own_tau(world: World) -> None:
    """Two equal devices but for tau 0 and 1: lambda rises by eta J on one, and falls by eta (1 - J) on the other."""
    devices = [device_of(world), device_of(world)]
    for device, tau in zip(devices, (0.0, 1.0), strict=True):
        device.ledger = Ledger(replace(world.config.budget, tau=tau))
    for update, device, tau in zip(settings().local_update(world, devices), devices, (0.0, 1.0), strict=True):
        asked, responses = total(update, "cloud_requests")
        assert 0 < asked < responses
        assert device.dual == pytest.approx(0.5 + 0.1 * (asked / responses - tau), abs=1e-6)


def test_a_price_of_the_fleet_is_paid_as_it_is_and_not_moved(world: World) -> None:
    """Neither the step of lambda nor the device's own proportional term: the same as a device without both."""
    own, fleets = device_of(world, dual=0.1), device_of(world, dual=0.1)
    fleets.price = 0.1
    (by_price,) = settings(steps=2, dual_lr=5.0, dual_gain=5.0).local_update(world, [fleets])
    (plain,) = settings(steps=2, dual_lr=0.0, dual_gain=0.0).local_update(world, [own])
    assert fleets.dual == 0.1
    assert total(by_price, "dual_variable") == (0.1, 1.0)
    assert distance(by_price.adapter, plain.adapter) == 0.0
    (moved,) = settings(steps=2).local_update(world, [device_of(world, dual=0.1)])
    assert distance(moved.adapter, plain.adapter) > 0.0


def test_a_threshold_of_its_own_holds_a_device_back_at_once(world: World) -> None:
    """The same adapter, three lambdas: the dearer, the fewer requests; at the first lambda as without a threshold."""
    own, plain = settings(dual_bias=20.0), settings()
    usage = [rollout_of(world, own, device_of(world, dual=dual)).usage.item() for dual in (0.3, 0.5, 0.9)]
    assert usage[0] > usage[1] > usage[2]
    assert usage[1] == rollout_of(world, plain, device_of(world)).usage.item()


def test_a_pack_with_thresholds_equals_its_devices_alone(world: World) -> None:
    algorithm = settings(steps=3, dual_bias=10.0, dual_lr=0.3, updates=2)
    together, alone = ([device_of(world, k, dual=0.3 + 0.2 * k) for k in range(3)] for _ in range(2))
    for update, device, own in zip(algorithm.local_update(world, together), together, alone, strict=True):
        (single,) = algorithm.local_update(world, [own])
        assert update.rows == single.rows
        assert device.dual == pytest.approx(own.dual, abs=1e-7)
        assert distance(update.adapter, single.adapter) < 1e-4


def test_the_price_of_asking_lowers_the_wish_to_ask(world: World) -> None:
    """Without rewards for help, a high lambda makes the asking responses less likely: the sign of the cost is right."""
    algorithm = settings(dual_gain=0.0, help_reward=0.0, dual_max=100.0, lr=0.003)
    device = device_of(world, dual=50.0)
    before = rollout_of(world, algorithm, device).usage.item()
    for _ in range(6):
        (update,) = algorithm.local_update(world, [device])
        device.adapter, device.dual = update.adapter, 50.0
    assert rollout_of(world, algorithm, device).usage.item() < before


def test_the_first_step_from_a_fresh_adapter_moves_b_alone(world: World) -> None:
    """With B = 0 the gradient of A is B^T (...) = 0, so A stays bit for bit while B moves by at most lr."""
    fresh = start_of(world)
    (update,) = settings().local_update(world, [device_of(world, adapter=fresh)])
    for name, tensor in update.adapter.items():
        if "lora_A" in name:
            assert tensor.tobytes() == fresh[name].tobytes()
        else:
            assert 0 < np.abs(tensor).max() <= 0.01 * (1 + 1e-4)


def test_the_rows_of_a_round_agree_with_each_other(world: World) -> None:
    (update,) = settings(steps=2).local_update(world, [device_of(world)])
    counts = [world.stream.prompts_per_step("device-000", 6)] * 2
    assert update.num_examples == sum(counts)
    reward, responses = total(update, "reward")
    assert responses == 8 * sum(counts)
    assert update.reward == pytest.approx(reward / responses)
    local, _ = total(update, "alone_reward")
    asked, _ = total(update, "cloud_requests")
    assert reward == local + asked  # alpha_c = 1 and a perfect cloud: whoever asked is right
    calls, _ = total(update, "cloud_calls")
    assert 0 < calls <= min(asked, sum(counts))  # one query per prompt, shared by its asking responses
    assert {(row.round, row.device, row.split, row.model) for row in update.rows} == {(1, "device-000", "train", "own")}


def test_a_pack_equals_its_devices_alone(world: World) -> None:
    """Three devices with unequal adapters, numbers of prompts and lambdas, over two rounds of two steps."""
    algorithm = settings(steps=2)
    start = [start_of(world, seed) for seed in (1, 2, 3)]

    def two_rounds(packs: Sequence[Sequence[int]]) -> tuple[dict[int, DeviceUpdate], dict[int, Device]]:
        devices = {k: device_of(world, k, adapter=start[k], dual=0.2 * k) for k in range(3)}
        updates = {}
        for round_ in (1, 2):
            for pack in packs:
                for update in algorithm.local_update(world, [devices[k] for k in pack]):
                    updates[update.device] = update
                    old = devices[update.device]
                    devices[update.device] = Device(
                        old.index,
                        round_ + 1,
                        update.adapter,
                        old.dual,
                        Ledger(old.ledger.budget, old.ledger.total),
                        old.optimizer,
                    )
        return updates, devices

    together, kept = two_rounds([(0, 1, 2)])
    alone, kept_alone = two_rounds([(0,), (1,), (2,)])
    assert len({update.num_examples for update in together.values()}) > 1  # the pack has filling
    for k in range(3):
        assert together[k].rows == alone[k].rows
        assert distance(together[k].adapter, alone[k].adapter) < 1e-5
        assert distance(together[k].adapter, start[k]) > 1e-3
        assert kept[k].dual == pytest.approx(kept_alone[k].dual, abs=1e-7)
        assert kept[k].ledger.total == kept_alone[k].ledger.total
        mine, other = kept[k].optimizer, kept_alone[k].optimizer
        assert mine is not None
        assert other is not None
        assert torch.allclose(mine.first, other.first, rtol=0, atol=1e-5)
        assert torch.allclose(mine.second, other.second, rtol=0, atol=1e-5)


def test_what_a_device_keeps_survives_in_its_context_state(world: World) -> None:
    device = device_of(world)
    settings(steps=3).local_update(world, [device])
    state = RecordDict()
    keep(state, device)
    back = remember(state, 0, 2, device.adapter, budget=world.config.budget, dual=0.9)
    assert back.dual == device.dual != 0.9
    assert back.ledger.total == device.ledger.total
    assert back.ledger.total.calls > 0
    assert back.ledger.round.calls == 0
    assert device.optimizer is not None
    assert back.optimizer is not None
    assert back.optimizer.steps.tolist() == [3.0]
    assert torch.equal(back.optimizer.first, device.optimizer.first)
    assert torch.equal(back.optimizer.second, device.optimizer.second)
    assert float(back.optimizer.second.abs().max()) > 0


def test_a_new_device_starts_with_the_algorithms_lambda(world: World) -> None:
    device = remember(RecordDict(), 0, 1, start_of(world), budget=world.config.budget, dual=0.9)
    assert (device.dual, device.optimizer, device.ledger.total.calls) == (0.9, None, 0)


def test_the_fleets_price_takes_the_place_of_what_was_kept(world: World) -> None:
    """And is what the device has left when the fleet's budget no longer has one."""
    state = RecordDict()
    keep(state, device_of(world, dual=0.2))
    common = {"budget": world.config.budget, "dual": 0.9}
    priced = remember(state, 0, 2, start_of(world), **common, price=0.7)  # type: ignore[arg-type]
    assert (priced.dual, priced.price) == (0.7, 0.7)
    keep(state, priced)
    free = remember(state, 0, 3, start_of(world), **common)  # type: ignore[arg-type]
    assert (free.dual, free.price) == (0.7, None)


def test_moments_make_a_difference_and_can_be_left_out(world: World) -> None:
    """Two rounds with and without kept moments: the second round differs, and without them nothing is in the state."""
    results = {}
    for kept in (True, False):
        algorithm = settings(keep_optimizer=kept)
        state, adapter = RecordDict(), start_of(world, 7)
        for round_ in (1, 2):
            device = remember(state, 0, round_, adapter, budget=world.config.budget, dual=0.5)
            (update,) = algorithm.local_update(world, [device])
            keep(state, device)
            adapter = update.adapter
        assert (device.optimizer is not None) == kept
        assert bool(state.array_records) == kept
        results[kept] = adapter
    assert distance(results[True], results[False]) > 1e-4


@pytest.mark.parametrize("cap", [0, 1, 3])
def test_the_cap_on_calls_is_never_passed(tiny_checkpoint: Path, cap: int) -> None:
    """Every wanted query is either a call or a refusal, so calls + refused is what an uncapped device calls."""
    free = load_world(config_of(tiny_checkpoint))
    capped = load_world(config_of(tiny_checkpoint, f"budget.calls_per_round={cap}"))
    (unbound,) = settings(prompts=16).local_update(free, [device_of(free)])
    device = device_of(capped)
    (update,) = settings(prompts=16).local_update(capped, [device])
    wanted = total(unbound, "cloud_calls")[0]
    assert wanted > 3
    assert total(unbound, "cloud_refused")[0] == 0
    assert total(update, "cloud_calls")[0] == cap
    assert total(update, "cloud_refused")[0] == wanted - cap
    assert device.ledger.total.calls == cap
    assert (total(update, "cloud_tokens")[0] > 0) == (cap > 0)
    assert (total(update, "cloud_money")[0] > 0) == (cap > 0)


def test_the_cap_on_the_whole_run_holds_over_rounds(tiny_checkpoint: Path) -> None:
    capped = load_world(config_of(tiny_checkpoint, "budget.calls_total=5"))
    state, calls = RecordDict(), []
    for round_ in (1, 2, 3):
        device = remember(state, 0, round_, start_of(capped, 7), budget=capped.config.budget, dual=0.5)
        (update,) = settings(prompts=16).local_update(capped, [device])
        keep(state, device)
        calls.append(total(update, "cloud_calls")[0])
    assert calls == [5, 0, 0]


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("group_size", 1, "group_size=1 must be at least 2"),
        ("cost_baseline", "mean", "'mean' must be one of: group, batch"),
        ("steps", 0, "steps=0 must be above 0"),
        ("prompts", 0, "prompts=0 must be above 0"),
        ("lr", -0.1, "lr=-0.1 must be above 0"),
        ("clip_norm", 0.0, "clip_norm=0.0 must be above 0"),
        ("temperature", 0.0, "temperature=0.0 must be above 0"),
        ("max_new_tokens", 0, "max_new_tokens=0 must be above 0"),
        ("steps", float("nan"), "steps=nan must be above 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(setting: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DaGrpo(**{setting: value})


def test_a_bad_setting_in_the_config_is_named_with_its_plug_in(tiny_checkpoint: Path) -> None:
    config = config_of(tiny_checkpoint, "client.group_size=1", "client.lr=0.1")
    with pytest.raises(ConfigError, match=r"clients\.da_grpo:DaGrpo refused .*group_size=1 must be at least 2"):
        client_of(config)
    assert DaGrpo.client_app(config, lr=0.1).algorithm.first_dual == 0.5
