"""Packs of unlike devices: what each learns and says is what it would alone, and a step makes no pass too many."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Context, Message, MessageType, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from torch import Tensor

import flsim.flower.messages as wire
import flsim.models.decoding as decoding
import flsim.models.packing as packing
from clients.app import DeviceApp
from clients.da_grpo import DaGrpo
from clients.device.answering import answer_alone
from clients.device.device import Device
from clients.device.rollout import Rollout, Sampling, roll_out
from clients.device.world import World, load_world
from clients.evaluate import evaluate_pack, own_tests
from flsim.budget.ledger import Ledger
from flsim.devices import node_of
from flsim.flower.arrays import to_arrays
from flsim.flower.messages import DeviceUpdate
from flsim.learning.adam import AdamState
from flsim.metrics.rows import Row
from flsim.models.adapter import Adapter, initial_adapter
from flsim.models.any_forward import AnyForward
from flsim.models.base import load_base
from flsim.models.forward import Decoder, Forward
from flsim.models.lora_linear import unequal
from flsim.models.small.llama import SmallLlamaForward
from flsim.models.stacked_lora import ranks_of
from tests.tiny import TOKEN, tiny_world

pytestmark = pytest.mark.usefixtures("one_thread")

RANKS = (4, 1, 2)


@pytest.fixture(scope="module")
def world(tiny_checkpoint: Path) -> World:
    """Devices with unlike numbers of prompts, and slots of rank 4."""
    slots = ("model.rank=4", "model.alpha=4", "cloud.oracle_error=0.3", "evaluation.prompts_per_task=5")
    return load_world(tiny_world(tiny_checkpoint, *slots, "stream.quantity_sigma=0.5", "stream.seed=2"))


@pytest.fixture(params=["llama", "any"])
def either(world: World, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to read."""
    if request.param == "any":
        monkeypatch.setitem(world.base.__dict__, "forward", AnyForward(world.base.model))


def adapter_of(world: World, rank: int, seed: int) -> Adapter:
    rng = np.random.default_rng(seed)
    config = replace(world.config.model, rank=rank)
    like = initial_adapter(load_base(config.path).model, config, 0)
    return {name: rng.normal(0, 0.2, tensor.shape).astype(np.float32) for name, tensor in like.items()}


def device_of(world: World, k: int) -> Device:
    return Device(k, 1, adapter_of(world, RANKS[k], k), 0.2 * k, Ledger(world.config.budget), None)


def grpo(**changes: Any) -> DaGrpo:
    """Of the paper's policy, which asks by a token."""
    work = {"steps": 1, "prompts": 4, "group_size": 6, "lr": 0.01, "max_new_tokens": 6}
    return DaGrpo(**TOKEN | work | changes)


@pytest.fixture(scope="module")
def devices(world: World) -> list[Device]:
    """Ranks 4, 1 and 2; the second has two steps of Adam behind it, the third three."""
    fleet = [device_of(world, k) for k in range(3)]
    for device, steps in ((fleet[1], 2), (fleet[2], 3)):
        (update,) = grpo(steps=steps).local_update(world, [device])
        device.adapter, device.round = update.adapter, 2
    assert [device.optimizer is None for device in fleet] == [True, False, False]
    return fleet


@pytest.fixture
def numbers(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """What is said about the tokens of each device, whenever they are not filled up to equal numbers."""
    said: list[list[int]] = []

    def noting(counts: Tensor) -> AbstractContextManager[None]:
        said.append(counts.tolist())
        return unequal(counts)

    monkeypatch.setattr(decoding, "unequal", noting)
    monkeypatch.setattr(packing, "unequal", noting)
    return said


def largest(one: Sequence[np.ndarray[Any, Any]], other: Sequence[np.ndarray[Any, Any]]) -> float:
    """Largest difference, in parts of the largest number of all."""
    distance = max(float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True))
    return distance / max(float(np.abs(b).max()) for b in other)


def moments(device: Device) -> AdamState:
    assert device.optimizer is not None
    return device.optimizer


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("waste", [1.0, 1e9])
def test_three_steps_of_a_pack_equal_each_devices_own(
    world: World, devices: list[Device], waste: float, numbers: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adapters to 3e-5 of the largest number (seen: 1.4e-6), moments to 1e-5 (seen: 4e-6); what is counted, exactly.

    The adapters' bound is the wider one, since Adam's first steps divide a gradient by its own size: where it is zero
    but for rounding, an entry may move by a part of lr either way.
    """
    monkeypatch.setattr(packing, "WASTE", waste)
    monkeypatch.setattr(decoding, "WASTE", waste)
    algorithm = grpo(steps=3)
    numbers.clear()
    together, alone = deepcopy(devices), deepcopy(devices)
    updates = algorithm.local_update(world, together)
    assert bool(numbers) == (waste == 1.0)
    own = [algorithm.local_update(world, [device])[0] for device in alone]
    assert len({update.num_examples for update in updates}) == 3  # each has its number of prompts
    assert sum(device.ledger.total.calls for device in together) > 0
    for k, (update, expected) in enumerate(zip(updates, own, strict=True)):
        assert update.num_examples == expected.num_examples
        assert counted(update) == counted(expected)
        assert together[k].ledger.total == alone[k].ledger.total
        assert together[k].dual == pytest.approx(alone[k].dual, abs=1e-6)
        assert ranks_of([update.adapter]) == [RANKS[k]]
        pair = moments(together[k]), moments(alone[k])
        assert [int(state.steps) for state in pair] == [(3, 5, 6)[k]] * 2
        first, second = ([getattr(state, part).numpy() for state in pair] for part in ("first", "second"))
        assert largest(list(update.adapter.values()), list(expected.adapter.values())) < 3e-5
        assert largest(first[:1], first[1:]) < 1e-5
        assert largest(second[:1], second[1:]) < 1e-5
        assert largest(list(update.adapter.values()), list(devices[k].adapter.values())) > 1e-3  # it has moved


def counted(update: DeviceUpdate) -> list[tuple[str, str, float, float]]:
    return [(row.task, row.name, row.total, row.weight) for row in update.rows if row.name != "dual_variable"]


def rolled_out(world: World, devices: Sequence[Device], adapters: Sequence[Adapter]) -> Rollout:
    """Hot and long, so that completions end early and late."""
    algorithm = grpo()
    world.lora.attach(world.lora.stack(adapters), ranks_of(adapters))
    with torch.no_grad():
        return roll_out(
            world,
            deepcopy(devices),
            algorithm.problems(world, devices, 0),
            Sampling(3, 3.0, 40),
            step=0,
        )


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("waste", [1.0, 1e9])
def test_a_devices_tokens_do_not_depend_on_its_pack(
    world: World, devices: list[Device], waste: float, numbers: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever shares it, in whatever order, with equal rows to the end or going over to unequal ones."""
    alone = [rolled_out(world, [device], [device.adapter]) for device in devices]
    monkeypatch.setattr(packing, "WASTE", waste)
    monkeypatch.setattr(decoding, "WASTE", waste)
    numbers.clear()
    for pack in ((0, 1, 2), (2, 0, 1), (1, 2), (1, 0)):
        taken = [devices[k] for k in pack]
        together = rolled_out(world, taken, [device.adapter for device in taken])
        for place, k in enumerate(pack):
            count = alone[k].prompts.counts[0]
            for name in ("tokens", "logprobs"):
                mine, own = (getattr(found.completions, name) for found in (together, alone[k]))
                masks = together.completions.mask[place, :count], alone[k].completions.mask[0]
                said = mine[place, :count][masks[0]], own[0][masks[1]]
                torch.testing.assert_close(*said, atol=1e-5 if name == "logprobs" else 0, rtol=0)
            assert together.completions.texts[place] == alone[k].completions.texts[0]
            assert torch.equal(together.asked[place, :count], alone[k].asked[0])
    if waste == 1.0:
        assert any(len(set(counts)) > 1 for counts in numbers)
        assert any(0 in counts for counts in numbers)  # one device ends before the others
    else:
        assert not numbers


def calls_of(forward: Forward, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the forward is asked for from now on."""
    calls: list[str] = []

    def note(whose: object, name: str) -> None:
        method = getattr(whose, name)

        def noting(*args: Any) -> Any:
            calls.append(name)
            return method(*args)

        monkeypatch.setattr(whose, name, noting)

    def decoder(*args: Any) -> Decoder:
        made = begin(*args)
        note(made, "step")
        return made

    begin = forward.decoder
    monkeypatch.setattr(forward, "decoder", decoder)
    note(forward, "read")
    note(forward, "follow")
    return calls


@pytest.fixture
def passes(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """One entry for each pass through the model's first layer, whoever makes it: whether it is made for a gradient."""
    found: list[bool] = []
    if isinstance(world.base.forward, SmallLlamaForward):  # which reads by the modules' weights
        embedded = world.base.forward.embedded

        def noting(ids: Tensor) -> Tensor:
            found.append(torch.is_grad_enabled())
            return embedded(ids)

        monkeypatch.setattr(world.base.forward, "embedded", noting)
    layer = world.base.model.get_submodule("model.layers.0.self_attn.q_proj")
    handle = layer.register_forward_pre_hook(lambda *_: found.append(torch.is_grad_enabled()))
    yield found
    handle.remove()


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("parts", [1, 3])
def test_a_step_on_policy_needs_no_second_forward(
    world: World, devices: list[Device], parts: int, passes: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One reading, T - 1 decoding steps without gradient, one pass for each micro-batch of responses, nothing more."""
    rollout = first_rollout(world, devices)
    k, p, g, t = rollout.completions.tokens.shape
    assert (k, g, t) == (3, 6, 6)
    calls = calls_of(world.base.forward, monkeypatch)
    passes.clear()
    grpo(micro_batch=k * p * t * (g // parts)).local_update(world, deepcopy(devices))
    assert calls == ["read"] + ["step"] * (t - 1) + ["follow"] * parts
    assert passes == [True] + [False] * (t - 1) + [True] * parts


def first_rollout(world: World, devices: list[Device]) -> Rollout:
    """What the first step of the devices' round samples."""
    algorithm = grpo()
    problems = algorithm.problems(world, devices, 0)
    world.lora.attach(world.lora.stack([device.adapter for device in devices]), RANKS)
    taken = deepcopy(devices)
    return roll_out(world, taken, problems, Sampling(6, 1.0, 6), step=0)


@pytest.fixture
def blocks(world: World, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many adapters are put on each time."""
    found: list[int] = []
    attach = world.lora.attach

    def noting(theta: Tensor | None, *more: Any) -> None:
        found.append(0 if theta is None else len(theta))
        attach(theta, *more)

    monkeypatch.setattr(world.lora, "attach", noting)
    return found


def test_devices_that_hold_one_adapter_are_measured_as_one_block(world: World, blocks: list[int]) -> None:
    """With the same rows as in blocks of their own, whatever its rank."""
    for rank in (4, 2):
        adapter = adapter_of(world, rank, 5)
        together = measured(world, [0, 1, 2], [adapter] * 3)
        apart = measured(world, [0, 1, 2], [dict(adapter) for _ in range(3)])
        alone = [measured(world, [k], [adapter])[0] for k in range(3)]
        assert together == apart == alone
        assert together[0] != together[1]
    assert blocks == [1, 3, 1, 1, 1] * 2


def measured(world: World, devices: Sequence[int], adapters: Sequence[Adapter]) -> list[list[Row]]:
    """Counts as they are; what is claimed is a sum of chances, whose last bits are those of a block's logits."""
    rows = evaluate_pack(world, devices, adapters, model="global", round_=1)
    return [[replace(row, total=round(row.total, 4)) for row in own] for own in rows]


def test_a_small_rank_is_measured_with_its_own_scale(world: World) -> None:
    """alpha / 2 times B A is alpha / 4 times (2 B) A, filled up with zeros to rank 4."""
    small = adapter_of(world, 2, 5)
    wide: Adapter = {
        name: np.pad(t, ((0, 2), (0, 0))) if "lora_A" in name else np.pad(2 * t, ((0, 0), (0, 2)))
        for name, t in small.items()
    }
    for one, other in (([small] * 2, [wide] * 2), ([small, dict(small)], [wide, dict(wide)])):
        rows = [measured(world, [0, 1], adapters) for adapters in (one, other)]
        assert rows[0] == rows[1]
        assert texts_of(world, one) == texts_of(world, other) != texts_of(world, [adapter_of(world, 4, 5)] * 2)


def texts_of(world: World, adapters: list[Adapter]) -> list[list[str]]:
    """Greedy answers under the adapters that an evaluation puts on, to the devices' first questions."""
    evaluate_pack(world, [0, 1], adapters, model="global", round_=1)
    return answer_alone(world, [own_tests(world, k)[:8] for k in (0, 1)], 8)


def test_devices_that_are_sent_one_adapter_hold_one(
    world: World, blocks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages share the broadcast's tensors; if one brings others, equal though they are, all are blocks."""
    for name in ("run_id", "node_id", "task_id"):
        monkeypatch.setattr(TaskIdentity, f"_{name}", 1)
    app = DeviceApp(world.config, grpo())
    app.__dict__["world"] = world
    adapter = adapter_of(world, 4, 5)
    shared, other = (wire.instruction(to_arrays(adapter), round_=1) for _ in range(2))
    rows = []
    for contents in ([shared] * 3, [shared, shared, other]):
        messages = [Message(content, node_of(k), MessageType.EVALUATE) for k, content in enumerate(contents)]
        contexts = [Context(1, node_of(k), {}, RecordDict(), {}) for k in range(3)]
        replies = app.answer([wire.own_copy(message) for message in messages], contexts)
        rows.append([wire.rows_of(reply) for reply in replies])
    assert rows[0] == rows[1]
    assert blocks == [1, 3]
