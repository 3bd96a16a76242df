"""The passes by hand of a small Llama: what the modules and autograd say of the same tokens, in fewer calls."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from flsim.config.model import ModelConfig
from flsim.models.adapter import initial_adapter
from flsim.models.base import load_base
from flsim.models.forward import Next, Past
from flsim.models.llama import LlamaForward
from flsim.models.lora_linear import unequal
from flsim.models.small.llama import SmallLlamaForward, is_small_llama
from flsim.models.stacked_lora import StackedLora

pytestmark = pytest.mark.usefixtures("one_thread")

ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
TARGETS = [ALL, ("q_proj", "v_proj"), ("down_proj", "k_proj"), ()]
DEVICES = [1, 3]
EVEN = torch.tensor([[[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 0, 0]]] * 3).bool()
"""Which tokens of 4 completions of 2 prompts count on 3 devices: `(3, 4, 4)`."""
UNEVEN = EVEN & torch.tensor([True, False, True])[:, None, None]
"""One device says nothing, so that packed tokens are bare."""


def small_model() -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=30,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=3,
            num_attention_heads=2,
            max_position_embeddings=64,
            initializer_range=0.3,
        )
        model = LlamaForCausalLM(config)
    return frozen(model)


def frozen(model: PreTrainedModel) -> PreTrainedModel:
    model.eval().requires_grad_(False)
    return model


def dressed(devices: int, targets: Sequence[str], rank: int = 4) -> tuple[PreTrainedModel, StackedLora | None, Tensor]:
    model = small_model()
    if not targets:
        return model, None, torch.zeros(devices, 0)
    config = ModelConfig(path="", rank=rank, alpha=2.0 * rank, targets=tuple(targets))
    lora = StackedLora(model, initial_adapter(model, config, 0), 2.0)
    source = torch.Generator().manual_seed(1)
    return model, lora, 0.3 * torch.randn(devices, lora.size(rank), generator=source)


def passes(forward: LlamaForward, lora: StackedLora | None, theta: Tensor, mask: Tensor) -> list[Tensor]:
    """Of prompts, decoded tokens and completions all numbers, and the gradient of theta of a loss over them."""
    devices = len(theta)
    source = torch.Generator().manual_seed(2)
    ids = torch.randint(0, 30, (devices, 2, 5), generator=source)
    prompts = torch.ones(devices, 2, 5, dtype=torch.bool)
    prompts[:, 1, :2] = False
    if lora is not None:
        lora.attach(theta, train=True)
    first, past = forward.read(ids, prompts)
    found = [first.logits, first.states, *past.tensors]
    with torch.no_grad():
        found += decoded(forward, prompts, past, devices) + decoded_alone(forward, prompts, past, devices)
        again, _ = forward.read(ids, prompts)
    found += [again.logits, again.states]
    said = torch.randint(0, 30, mask.shape, generator=source)
    weigh = torch.randn(mask.numel(), 30, generator=source)

    def readout(following: Next, places: Tensor) -> Tensor:
        return (following.logits * weigh[places]).sum(-1)

    judged = forward.follow(said, mask, prompts, past, readout)
    found.append(judged)
    if lora is not None:
        loss = judged.sum() + (first.logits * weigh[: len(first.logits)]).sum() + past.keys[1].square().sum()
        loss.backward()
        found.append(lora.gradient())
    return [tensor.detach() for tensor in found]


def decoded(forward: LlamaForward, prompts: Tensor, past: Past, devices: int) -> list[Tensor]:
    """Logits of three tokens: of all rows, of equally many rows of each device, and of unequally many."""
    decoder = forward.decoder(prompts, past, 2, 3)
    rows = torch.arange(devices * 4)
    found = [decoder.step(rows % 30).logits]
    kept = torch.cat([k * 4 + torch.tensor([0, 2, 3]) for k in range(devices)])
    decoder.keep(kept)
    found.append(decoder.step(kept % 7).logits)
    if devices > 1:
        fewer = torch.tensor([0, 1, 2, 4])
        decoder.keep(fewer)
        with unequal(torch.tensor([3, 1, 0])):
            found.append(decoder.step(fewer).logits)
    return found


def decoded_alone(forward: LlamaForward, prompts: Tensor, past: Past, devices: int) -> list[Tensor]:
    """Logits of three tokens of one row for each prompt, of which every second one ends after the first."""
    decoder = forward.decoder(prompts, past, 1, 3)
    found = [decoder.step(torch.arange(devices * 2) % 30).logits]
    decoder.keep(torch.arange(devices) * 2 + 1)
    return found + [decoder.step(torch.arange(devices) + more).logits for more in (3, 5)]


def near(found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=5e-5 * max(1.0, float(other.abs().max())))


@pytest.mark.parametrize("targets", TARGETS, ids=lambda targets: "+".join(targets) or "none")
@pytest.mark.parametrize("rank", [4, 3])
@pytest.mark.parametrize("devices", DEVICES)
@pytest.mark.parametrize("mask", [EVEN, UNEVEN, torch.ones_like(EVEN)], ids=["even", "uneven", "whole"])
def test_it_says_and_learns_what_the_modules_do(devices: int, rank: int, targets: Sequence[str], mask: Tensor) -> None:
    model, lora, theta = dressed(devices, targets, rank)
    by_hand = passes(SmallLlamaForward(model), lora, theta, mask[:devices])
    near(by_hand, passes(LlamaForward(model), lora, theta, mask[:devices]))


@pytest.mark.parametrize("devices", DEVICES)
def test_rows_that_leave_attention_change_no_bit_of_the_others(devices: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, lora, theta = dressed(devices, ALL)
    assert lora is not None
    lora.attach(theta)
    prompts = torch.ones(devices, 2, 5, dtype=torch.bool)
    prompts[:, 1, :2] = False
    forward, found = SmallLlamaForward(model), []
    for crowded in (0.0, 1.0):
        monkeypatch.setattr("flsim.models.small.decoder._CROWDED", crowded)
        with torch.no_grad():
            _, past = forward.read(torch.arange(devices * 10).view(devices, 2, 5), prompts)
            found.append(decoded_alone(forward, prompts, past, devices))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_a_theta_with_a_gradient_of_its_own_gets_it() -> None:
    """Not as `attach(train=True)` has it: whoever makes theta of something learns that."""
    model, lora, theta = dressed(2, ALL)
    assert lora is not None
    found = []
    for forward in (SmallLlamaForward(model), LlamaForward(model)):
        own = theta.clone().requires_grad_()
        lora.attach(2 * own)
        following, _ = forward.read(torch.arange(10).view(2, 1, 5), torch.ones(2, 1, 5, dtype=torch.bool))
        found.append(torch.autograd.grad(following.logits.square().sum(), own)[0])
    near(found[:1], found[1:])


def logits(forward: LlamaForward) -> Tensor:
    with torch.no_grad():
        following, _ = forward.read(torch.arange(5).view(1, 1, 5), torch.ones(1, 1, 5, dtype=torch.bool))
    return following.logits


def written_into(model: PreTrainedModel, lora: StackedLora, theta: Tensor) -> None:
    model.model.layers[1].mlp.down_proj.base.weight.mul_(2.0)


def moved(model: PreTrainedModel, lora: StackedLora, theta: Tensor) -> None:
    weight = model.model.layers[1].self_attn.k_proj.base.weight
    weight.data = weight.data * 2.0


def merged(model: PreTrainedModel, lora: StackedLora, theta: Tensor) -> None:
    like = lora.unstack(theta)[0]
    lora.merge({name: tensor * 0.1 for name, tensor in like.items()})


def learned(model: PreTrainedModel, lora: StackedLora, theta: Tensor) -> None:
    theta.mul_(2.0)


def taken_off(model: PreTrainedModel, lora: StackedLora, theta: Tensor) -> None:
    lora.attach(None)


Change = Callable[[PreTrainedModel, StackedLora, Tensor], None]


@pytest.mark.parametrize("change", [written_into, moved, merged, learned, taken_off])
def test_what_changes_between_passes_is_seen(change: Change) -> None:
    model, lora, theta = dressed(1, ALL)
    assert lora is not None
    lora.attach(theta)
    forward = SmallLlamaForward(model)
    before = logits(forward)
    with torch.no_grad():
        change(model, lora, theta)
    after = logits(forward)
    assert not torch.allclose(before, after)
    near([after], [logits(LlamaForward(model))])


def test_adapters_that_are_wrapped_around_it_later_are_met() -> None:
    model = small_model()
    forward = SmallLlamaForward(model)
    bare = logits(forward)
    config = ModelConfig(path="", rank=2, alpha=4.0, targets=ALL)
    lora = StackedLora(model, initial_adapter(model, config, 0), 2.0)
    assert torch.equal(logits(forward), bare)
    lora.attach(torch.full((1, lora.size(2)), 0.1))
    assert not torch.allclose(logits(forward), bare)


def test_a_copy_of_the_model_keeps_its_own_weights() -> None:
    model = small_model()
    forward, other = SmallLlamaForward(model), copy.deepcopy(model)
    before = logits(forward)
    with torch.no_grad():
        other.model.layers[0].self_attn.q_proj.weight.zero_()
    assert torch.equal(logits(forward), before)
    assert not torch.allclose(logits(SmallLlamaForward(other)), before)


def test_the_built_in_models_take_it_and_others_do_not() -> None:
    assert all(is_small_llama(load_base(f"builtin:{name}").model) for name in ("slm", "cloud"))
    assert type(load_base("builtin:slm").forward) is SmallLlamaForward
    small: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "vocab_size": 30}
    short = {**small, "max_position_embeddings": 64, "num_attention_heads": 2}
    assert is_small_llama(frozen(LlamaForCausalLM(LlamaConfig(**short))))
    for other in (
        LlamaForCausalLM(LlamaConfig(**short)),  # it learns its own weights
        frozen(LlamaForCausalLM(LlamaConfig(**{**short, "max_position_embeddings": 128}))),
        frozen(LlamaForCausalLM(LlamaConfig(**{**short, "num_key_value_heads": 1}))),
        frozen(LlamaForCausalLM(LlamaConfig(**short, attention_bias=True))),
        frozen(LlamaForCausalLM(LlamaConfig(**short)).bfloat16()),
        frozen(Qwen2ForCausalLM(Qwen2Config(**short))),
    ):
        assert not is_small_llama(other)
