"""Devices that ask by a benefit head: what a rollout holds, who asks, what a draft is worth, and a step by hand."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import clients.device.buying as buying
from clients.da_grpo import DaGrpo
from clients.device.answering import Problems, answer_alone, seeded
from clients.device.buying import Help
from clients.device.device import Device
from clients.device.head import WEIGHT, Head, weights_of
from clients.device.pack import Pack
from clients.device.rollout import Rollout
from clients.device.world import World, load_world
from clients.grpo import Grpo
from flsim.budget.ledger import Ledger
from flsim.cloud.protocol import Answer
from flsim.config.schema import Config
from flsim.flower.contract import client_of
from flsim.learning.benefit import ask_chance, benefit, chances, features
from flsim.models.adapter import Adapter, lora_of
from flsim.models.decoding import Completions, Trace, encode, read
from flsim.problems.judging import are_right
from flsim.seeding import seed_for
from tests.tiny import tiny_world

pytestmark = pytest.mark.usefixtures("one_thread")

EACH: dict[str, Any] = {"policy": "head", "imitate": 0.0, "replay": 0}
WORK: dict[str, Any] = {"steps": 1, "prompts": 6, "group_size": 6, "max_new_tokens": 6, "clip_norm": 1e9, "lr": 0.01}


def learner_of(**changes: Any) -> DaGrpo:
    return DaGrpo(**EACH | WORK | changes)


def config_of(checkpoint: Path, *more: str) -> Config:
    return tiny_world(checkpoint, "stream.quantity_sigma=0.5", "stream.seed=2", "cloud.oracle_error=0.3", *more)


def world_of(checkpoint: Path, *more: str, **changes: Any) -> World:
    learner = learner_of(**changes)
    return load_world(config_of(checkpoint, *more), extras=learner.extras, head=learner.head)


@pytest.fixture(scope="module")
def world(tiny_checkpoint: Path) -> World:
    return world_of(tiny_checkpoint)


def adapter_of(world: World, seed: int) -> Adapter:
    """Random factors, and a head that tells drafts apart."""
    rng = np.random.default_rng(seed)
    adapter = {n: rng.normal(0, 0.2, t.shape).astype(np.float32) for n, t in lora_of(world.first).items()}
    return {**adapter, WEIGHT: world.first[WEIGHT] + rng.normal(0, 0.05, world.first[WEIGHT].shape).astype(np.float32)}


def device_of(world: World, index: int, *, dual: float = 0.3) -> Device:
    return Device(index, 1, adapter_of(world, index), dual, Ledger(world.config.budget), None)


def devices_of(world: World, *, dual: float = 0.3) -> list[Device]:
    return [device_of(world, k, dual=dual) for k in range(3)]


class Met:
    """A learner's first step: its pack as it began, its problems and its rollout."""

    def __init__(self, world: World, devices: Sequence[Device], learner: DaGrpo, problems: Problems | None = None):
        self.devices, self.learner = list(devices), learner
        self.problems = learner.problems(world, devices, 0) if problems is None else problems
        self.pack = Pack.of(world, self.devices)
        self.pack.attach()
        assert learner.head is not None
        bias = learner._biases(self.pack, self.problems)
        wishes = learner._wishes(learner.head, self.pack, self.problems, 0, bias)
        self.rollout: Rollout = learner._roll_out(world, self.devices, self.problems, 0, bias, wishes)


def met(world: World, learner: DaGrpo | None = None, devices: Sequence[Device] | None = None) -> Met:
    return Met(world, devices_of(world) if devices is None else devices, learner or learner_of())


# ---------------------------------------------------------------------------------------------------------- rollouts


def test_no_response_holds_a_request(world: World) -> None:
    """The head asks after the draft, which ends as answers do."""
    found = met(world)
    tokens, asked = found.rollout.completions.tokens, found.rollout.asked
    assert not world.base.help.completed(tokens).any()
    assert not world.base.help.held_by(tokens).any()
    assert 0 < asked.sum() < asked.numel()
    spoken = learner_of(policy="token")
    assert spoken.speaks
    assert not found.learner.speaks


def test_who_asks_is_a_pure_function_of_seed_device_round_and_step(world: World) -> None:
    """One number for every draft, from the device's own source: below the chance of its benefit it asks."""
    found = met(world)
    trace = found.rollout.completions.trace
    assert trace is not None
    for k, (device, row) in enumerate(zip(found.devices, found.problems, strict=True)):
        source = seeded(seed_for(world.seed, "request", device.name, device.round, 0))
        uniform = torch.rand(len(row), 6, generator=source)
        parts = trace.states, trace.logprobs, trace.entropies, found.rollout.completions.mask
        phi = features(*(of[k : k + 1, : len(row)] for of in parts), scale=5.0)  # (1, P, G, F)
        both = chances(torch.from_numpy(device.adapter[WEIGHT])[None], phi)  # (1, P, G, 2)
        asks = uniform < ask_chance(benefit(both), torch.full((1, len(row)), 0.3), 0.1)[0]  # (P, G)
        asks = asks[:, :1].expand(-1, 6) if getattr(found.learner.head, "decides", "each") == "first" else asks
        assert torch.equal(found.rollout.asked[k, : len(row)].bool(), asks)
        assert not found.rollout.asked[k, len(row) :].any()


def test_a_rollout_is_the_same_again_and_another_in_another_round(world: World) -> None:
    one, again = met(world), met(world)
    later = devices_of(world)
    for device in later:
        device.round = 2
    other = Met(world, later, learner_of(), one.problems)
    assert torch.equal(one.rollout.asked, again.rollout.asked)
    assert torch.equal(one.rollout.completions.tokens, again.rollout.completions.tokens)
    assert not torch.equal(one.rollout.asked, other.rollout.asked)


def test_a_pack_asks_as_its_devices_alone(world: World) -> None:
    together = met(world)
    for k, device in enumerate(devices_of(world)):
        (own,) = learner_of().problems(world, [device], 0)
        alone = met(world, devices=[device])
        assert torch.equal(together.rollout.asked[k, : len(own)], alone.rollout.asked[0])
        assert together.rollout.completions.texts[k] == alone.rollout.completions.texts[0]
        assert together.rollout.usage[k].item() == pytest.approx(alone.rollout.usage[0].item(), abs=1e-6)


def test_one_query_for_a_prompt_whoever_of_its_group_asks(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []

    def noting(
        world: World, devices: Any, problems: Any, wanted: Tensor, *more: Any, **named: Any
    ) -> dict[tuple[int, int], Answer]:
        sent.extend((k, p) for k, p in wanted.nonzero().tolist())
        return buy(world, devices, problems, wanted, *more, **named)

    buy = buying.buy_answers
    monkeypatch.setattr(buying, "buy_answers", noting)
    found = met(world)
    asks = found.rollout.asked.bool()  # (K, P, G)
    assert sent == [(k, p) for k, p in asks.any(-1).nonzero().tolist()]
    assert (asks.sum(-1) > 1).any()
    calls = [device.ledger.total.calls + device.ledger.held.calls for device in found.devices]
    assert calls == asks.any(-1).sum(-1).tolist()


def test_usage_is_of_the_prompts_that_may_be_sent(world: World) -> None:
    """Half of each device's prompts are practised alone: no draft of them asks, whatever it is worth."""
    found = met(world, learner_of(alone_share=0.5), devices_of(world, dual=0.0))
    for k, row in enumerate(found.problems):
        alone = len(row) // 2
        asked = found.rollout.asked[k, : len(row)]
        assert not asked[:alone].any()
        assert found.rollout.open[k].tolist() == [alone <= p < len(row) for p in range(found.rollout.open.shape[1])]
        assert found.rollout.usage[k].item() == pytest.approx(asked[alone:].mean().item(), abs=1e-6)
    assert found.rollout.asked.any()


def test_without_a_price_all_that_gains_is_asked_for(world: World) -> None:
    """lambda 0 for all is no bias at all; a fresh head expects 0.4 of everything, and asks by sigmoid(4)."""
    devices = devices_of(world, dual=0.0)
    for device in devices:
        device.adapter = {**device.adapter, WEIGHT: world.first[WEIGHT]}
    learner = learner_of(prompts=24)
    assert learner._biases(Pack.of(world, devices), learner.problems(world, devices, 0)) is None
    usage = met(world, learner, devices).rollout.usage
    assert usage.mean().item() == pytest.approx(1 / (1 + np.exp(-4)), abs=0.04)


# ---------------------------------------------------------------------------------- what comes of a draft that asks


def told(world: World) -> tuple[list[Device], Problems]:
    """Devices, and problems whose right answer is the first draft of each group that says something."""
    found = met(world, learner_of(dual_init=0.3))
    texts = found.rollout.completions.texts
    return devices_of(world), [
        [
            replace(problem, answer=next((text for text in texts[k][p] if text.strip()), "0"))
            for p, problem in enumerate(row)
        ]
        for k, row in enumerate(found.problems)
    ]


def by_hand(problems: Problems, rollout: Rollout) -> Tensor:
    right = torch.zeros(rollout.asked.shape)
    for k, row in enumerate(problems):
        for p, problem in enumerate(row):
            said = rollout.completions.texts[k][p]
            right[k, p] = torch.tensor([float(bool(t.strip())) for t in said])
            right[k, p] *= torch.tensor(are_right([(problem, text) for text in said])).float()
    return right


@pytest.mark.parametrize("why", ["refused", "fails"])
def test_a_draft_is_the_answer_where_none_comes(
    tiny_checkpoint: Path, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each response has the verdict of its own draft, and nothing but silence is sampled again."""
    again: list[Problems] = []

    def noting(world: World, problems: Problems, most: int, devices: Sequence[Device] = ()) -> list[list[str]]:
        again.append(problems)
        return answer_alone(world, problems, most, devices)

    monkeypatch.setattr(buying, "answer_alone", noting)
    world = world_of(tiny_checkpoint, *(["budget.calls_per_round=0"] if why == "refused" else []))
    if why == "fails":
        monkeypatch.setattr(buying, "buy", lambda cloud, kind, wishes, service: [None] * len(wishes))
    devices, problems = told(world)
    again.clear()
    rollout = Met(world, devices, learner_of(), problems).rollout
    said, asked = by_hand(problems, rollout), rollout.asked.bool()
    spoke = torch.zeros_like(asked)
    for k, row in enumerate(problems):
        for p in range(len(row)):
            spoke[k, p] = torch.tensor([bool(text.strip()) for text in rollout.completions.texts[k][p]])
    assert not rollout.help.came.any()
    assert not rollout.help.answers
    assert torch.equal(rollout.right_draft, said)
    assert torch.equal(rollout.right[spoke], said[spoke])
    assert len({float(right) for right in said[asked & spoke]}) == 2
    silent = (asked & ~spoke).any(-1)  # (K, P)
    assert sum(len(row) for tried in again for row in tried) == int(silent.sum())


def test_where_the_cloud_answers_its_verdict_counts_and_the_draft_keeps_its_own(world: World) -> None:
    devices, problems = told(world)
    rollout = Met(world, devices, learner_of(), problems).rollout
    asked, came = rollout.asked.bool(), rollout.help.came
    assert torch.equal(came, asked.any(-1))
    assert torch.equal(rollout.right_draft, by_hand(problems, rollout))
    expected = torch.where(asked, rollout.help.right[..., None], rollout.right_draft)
    assert torch.equal(rollout.right, expected)
    assert torch.equal(rollout.right_alone, rollout.right_draft * (1 - rollout.asked))
    right = {(k, p) for k, p in came.nonzero().tolist()}
    assert set(rollout.help.answers) == {place for place in right if rollout.help.right[place] > 0}


# --------------------------------------------------------------------------------------------- a step of the learner


def first_gradient(device: Device) -> Tensor:
    """`(n,)`, read off Adam's first moment: m = (1 - beta_1) g."""
    assert device.optimizer is not None
    return device.optimizer.first[0] * 10


def test_the_heads_gradient_is_autograds_of_its_mean_cross_entropies(world: World) -> None:
    """Drafts by their own verdicts, the cloud by those of its answers that came, for all drafts of their prompts."""
    found = met(world)
    learner = learner_of()
    devices = devices_of(world)
    learner.local_update(world, devices)
    trace, mask = found.rollout.completions.trace, found.rollout.completions.mask
    assert trace is not None
    assert found.rollout.help.came.any()
    for k, (device, row) in enumerate(zip(devices, found.problems, strict=True)):
        weight = torch.from_numpy(found.devices[k].adapter[WEIGHT]).requires_grad_()
        losses: tuple[list[Tensor], list[Tensor]] = ([], [])
        for p in range(len(row)):
            for g in range(6):
                one = trace.states, trace.logprobs, trace.entropies, mask
                logits = weight @ features(*(of[k, p, g] for of in one), scale=5.0)  # (2,)
                labels = found.rollout.right_draft[k, p, g], found.rollout.help.right[k, p]
                for c in range(2 if found.rollout.help.came[k, p] else 1):
                    each = torch.nn.functional.binary_cross_entropy_with_logits(logits[c], labels[c])
                    losses[c].append(each)
        assert bool(losses[1]) == bool(found.rollout.help.came[k].any())
        means = [torch.stack(own).mean() for own in losses if own]
        (expected,) = torch.autograd.grad(torch.stack(means).sum(), weight)
        head = first_gradient(device)[world.lora.place_of_extras].view_as(expected)
        torch.testing.assert_close(head, expected, rtol=1e-3, atol=1e-4)
        assert expected.abs().max() > 0.1


def test_stopped_at_the_hidden_state_the_head_is_learned_beside_the_policy(world: World) -> None:
    """LoRA's gradient is that of GRPO's without scaling on the same drafts; with `head_gradient` it is another one,
    linear in it, and the head's own stays."""
    ends = {}
    for weight in (0.0, 1.0, 2.0):
        devices = devices_of(world)
        learner_of(head_gradient=weight).local_update(world, devices)
        ends[weight] = torch.stack([first_gradient(device) for device in devices])
    split = world.lora.place_of_extras
    lora = {weight: gradient[:, : split.start] for weight, gradient in ends.items()}
    assert torch.equal(ends[0.0][:, split], ends[1.0][:, split])
    one, two = lora[1.0] - lora[0.0], lora[2.0] - lora[0.0]
    assert one.norm() > 1e-3
    torch.testing.assert_close(two, 2 * one, rtol=1e-2, atol=1e-4 * float(one.abs().max()))


def test_the_heads_loss_falls_through_the_adapter(world: World) -> None:
    """`state_pull` is the gradient of the mean cross-entropies with respect to the scaled states."""
    found = met(world)
    head = Head(gradient=1.0)
    weight, drafts = weights_of(head, world.lora, found.pack.theta), found.rollout.completions
    assert drafts.trace is not None
    states = torch.nn.functional.rms_norm(drafts.trace.states, drafts.trace.states.shape[-1:]).requires_grad_()
    phi = head.features(drafts, found.rollout.prompts)
    phi = torch.cat([phi[..., : -states.shape[-1]], 5.0 * states], -1)
    logits = torch.einsum("kpgf,kcf->kpgc", phi, weight)
    pull = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))
    (expected,) = torch.autograd.grad((logits * pull).sum(), states)
    torch.testing.assert_close(head.state_pull(weight, pull), expected, rtol=1e-4, atol=1e-5)
    assert not Head(kind="numbers").state_pull(weight, pull).any()


def test_lambda_follows_the_usage_of_a_head(world: World) -> None:
    found = met(world)
    devices = devices_of(world)
    learner_of(dual_lr=0.4).local_update(world, devices)
    for k, device in enumerate(devices):
        moved = 0.3 + 0.4 * (float(found.rollout.usage[k]) - world.tau)
        assert device.dual == pytest.approx(min(1.0, max(0.0, moved)), abs=1e-6)


def test_a_pack_learns_as_its_devices_alone(world: World) -> None:
    learner = learner_of(steps=2, updates=2, head_gradient=0.5, kl=0.1, alone_share=0.25)
    together, alone = devices_of(world), devices_of(world)
    for update, device, own in zip(learner.local_update(world, together), together, alone, strict=True):
        (single,) = learner.local_update(world, [own])
        assert update.rows == single.rows
        assert device.dual == pytest.approx(own.dual, abs=1e-6)
        for name, tensor in single.adapter.items():
            assert np.abs(update.adapter[name] - tensor).max() < 1e-3
        assert np.abs(single.adapter[WEIGHT] - device_of(world, own.index).adapter[WEIGHT]).max() > 1e-3


# ------------------------------------------------------------------------------------------- what a draft is worth


def enumerated(world: World, right: Tensor, came: bool, helped: float) -> tuple[Pack, Rollout, Tensor]:
    """Every group of two one-token drafts of one prompt: a rollout with a prompt for each, and the chance of each.

    Args:
        world: of the devices.
        right: whether each token of the vocabulary is right, `(V,)`.
        came: whether the cloud answers.
        helped: whether it is right.
    """
    pack = Pack.of(world, [device_of(world, 0, dual=0.2)])
    pack.attach()
    with torch.no_grad():
        reading = read(world.base, encode(world.base, [["1+2="]]))
    logits = reading.logits.float()[0]  # (V,)
    logs = torch.log_softmax(logits, -1)  # (V,)
    count = len(logs)
    pairs = torch.cartesian_prod(torch.arange(count), torch.arange(count))[None, :, :, None]  # (1, V V, 2, 1)
    shape = pairs.shape[:3]
    entropy = torch.special.entr(logs.exp()).sum()
    trace = Trace(reading.states.expand(*shape, -1), entropy.expand(pairs.shape), logs[pairs])
    drafts = Completions(pairs, torch.ones_like(pairs, dtype=torch.bool), logs[pairs], torch.zeros(shape), [], trace)
    here = replace(reading, prompts=replace(reading.prompts, counts=(count**2,)))
    each = right[pairs[..., 0]]  # (1, V V, 2)
    help_ = Help(torch.full(shape[:2], helped), torch.full(shape[:2], came), {})
    open_ = torch.ones(shape[:2], dtype=torch.bool)
    return pack, Rollout(here, drafts, each, each, torch.zeros(shape), open_, each, help_), logits


@pytest.mark.parametrize(("came", "helped"), [(True, 1.0), (True, 0.0), (False, 0.0)])
@pytest.mark.parametrize("credit", ["draft", "kept"])
def test_the_expected_step_is_the_lagrangians_gradient(world: World, credit: str, came: bool, helped: float) -> None:
    """Over all groups of two, enumerated: E[sum_g A_g grad log pi(y_g)] / G is the gradient of

    E_y[(1 - a) r + a (r_c - lambda)]    for credit=kept, a the chance of a request and r_c what the cloud's answer
                                         earned, or its expected chance where none came; E_y[r] for credit=draft.
    """
    learner = learner_of(credit=credit, group_size=2, help_reward=0.9)
    assert learner.head is not None
    vocabulary = world.base.model.config.vocab_size
    right = (torch.arange(vocabulary) % 3 == 0).float()
    pack, rollout, logits = enumerated(world, right, came, helped)
    logits = logits.clone().requires_grad_()
    pi = torch.softmax(logits, -1)  # (V,)
    firsts = rollout.completions.tokens[0, :, :, 0]  # (V V, 2)
    advantage = learner.advantage(pack, rollout)[0]  # (V V, 2)
    weights = pi.detach()[firsts].prod(-1)  # (V V,)
    value = (weights[:, None] * advantage * torch.log_softmax(logits, -1)[firsts]).sum() / 2
    (found,) = torch.autograd.grad(value, logits)
    weight = weights_of(learner.head, world.lora, pack.theta)  # (1, 2, F)
    both = learner.head.chances(weight, rollout.completions, rollout.prompts)[0]  # (V V, 2, 2)
    both = both[:: vocabulary + 1, 0]  # (V, 2): of the pairs of equal tokens
    asks = torch.sigmoid((benefit(both) - 0.2) / 0.1)  # (V,)
    cloud = torch.full((vocabulary,), helped) if came else both[:, 1]  # (V,)
    worth = (1 - asks) * right + asks * (0.9 * cloud - 0.2) if credit == "kept" else right  # (V,)
    (expected,) = torch.autograd.grad((torch.softmax(logits, -1) * worth).sum(), logits)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)
    assert asks.std() > 0.01


def test_what_may_not_be_asked_is_worth_its_own_verdict(world: World) -> None:
    kept = learner_of(credit="kept", alone_share=0.5)
    found = met(world, kept)
    assert kept.head is not None
    worth = kept._worth(kept.head, found.pack, found.rollout)
    closed = ~found.rollout.open
    assert torch.equal(worth[closed], found.rollout.right_draft[closed])
    assert torch.isfinite(worth).all()


# ---------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        (DaGrpo, {"policy": "heads"}, "policy='heads' must be one of: head, token"),
        (DaGrpo, {"credit": "both"}, "credit='both' must be one of: draft, kept"),
        (DaGrpo, {"head_features": "all"}, "head_features='all' must be one of: both, numbers, hidden, question"),
        (DaGrpo, {"head_rate": 0.0}, r"head_rate=0\.0 and head_temperature=0\.1 must be above 0"),
        (DaGrpo, {"head_temperature": float("inf")}, "head_temperature=inf must be above 0 and finite"),
        (DaGrpo, {"head_gradient": -1.0}, r"head_gradient=-1\.0 must be finite and at least 0"),
        (DaGrpo, {"policy": "head", "dual_bias": 3.0}, r"dual_bias=3\.0 has no effect with policy=head"),
        (DaGrpo, {"imitate": -1.0}, r"imitate=-1\.0 must be finite and at least 0"),
        (DaGrpo, {"imitate": float("inf")}, "imitate=inf must be finite"),
        (Grpo, {"imitate": 1.0}, r"imitate=1\.0 has no effect: this method never asks"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    tiny_checkpoint: Path, method: Callable[..., Any], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        method(**settings)
    assert "\n" not in message


def test_a_head_needs_no_room_for_a_request(tiny_checkpoint: Path) -> None:
    """A help request that is longer than a response is refused where it is to be said, and only there."""
    long = ["model.help=1234567", "client.max_new_tokens=4", "model.max_new_tokens=4"]
    long += ["client.path=clients.da_grpo:DaGrpo"]
    client_of(tiny_world(tiny_checkpoint, *long, "client.policy=head"))
    with pytest.raises(ValueError, match="the help request '1234567' has 7 tokens"):
        client_of(tiny_world(tiny_checkpoint, *long, "client.policy=token"))
