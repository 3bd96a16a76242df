"""The short forward passes of the Llama family against Hugging Face's own, with three adapters of unequal ranks in use.

Norms and biases are random too: as they are initialised, ones and zeros, leaving them out would not show.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

import flsim.models.any_forward as any_forward
import flsim.models.llama as short
import flsim.models.packing as packing
from flsim.config.model import ModelConfig
from flsim.models.adapter import initial_adapter
from flsim.models.any_forward import AnyForward
from flsim.models.forward import Forward, Readout
from flsim.models.llama import LlamaForward, fits
from flsim.models.lora_linear import unequal
from flsim.models.stacked_lora import StackedLora

pytestmark = pytest.mark.usefixtures("one_thread")

TINY: dict[str, Any] = {
    "vocab_size": 30,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
}
Maker = Callable[[], PreTrainedModel]


def llama() -> PreTrainedModel:
    """As many key heads as query heads, and rotary angles that carry a factor of their own."""
    rope = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16}
    return LlamaForCausalLM(
        LlamaConfig(**TINY | {"num_key_value_heads": 4}, max_position_embeddings=64, rope_parameters=rope)
    )


def mistral() -> PreTrainedModel:
    return MistralForCausalLM(MistralConfig(**TINY, sliding_window=None))


def qwen2() -> PreTrainedModel:
    """Biases in q, k and v."""
    return Qwen2ForCausalLM(Qwen2Config(**TINY))


def qwen3() -> PreTrainedModel:
    """Norms on queries and keys, and heads wider than their share of the hidden size."""
    return Qwen3ForCausalLM(Qwen3Config(**TINY, head_dim=8))


FAMILY = pytest.mark.parametrize("make", [llama, mistral, qwen2, qwen3])
BOTH = pytest.mark.parametrize(("waste", "plain"), [(1.0, 0), (1e9, 10**9)], ids=["bare, fused", "packed, plain"])

LENGTHS = ([6, 4, 5], [2, 1, 1], [1, 1, 1])  # tokens of each prompt; the last two devices are mostly filling
K, P, L, G, T = 3, 3, 6, 2, 5


def random_model(make: Maker) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make()
        model.eval().requires_grad_(False)
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.normal_(1.0, 0.3)
    return model


@cache
def with_adapters(make: Maker) -> tuple[PreTrainedModel, Tensor]:
    """Devices of ranks 4, 2 and 3, with gradient."""
    model = random_model(make)
    rng = np.random.default_rng(0)
    likes = [initial_adapter(model, ModelConfig(path="", rank=rank, alpha=4.0), 0) for rank in (4, 2, 3)]
    lora = StackedLora(model, likes[0], 1.0)
    adapters = [{n: rng.normal(0, 0.3, t.shape).astype(np.float32) for n, t in like.items()} for like in likes]
    theta = lora.stack(adapters).requires_grad_()
    lora.attach(theta, (4, 2, 3))
    return model, theta


def tokens(*shape: int) -> Tensor:
    return torch.randint(30, shape, generator=torch.Generator().manual_seed(1))


def prompts() -> tuple[Tensor, Tensor]:
    """Ids and mask `(K, P, L)`, padded on the left."""
    mask = torch.arange(L) >= L - torch.tensor(LENGTHS)[..., None]
    return tokens(K, P, L), mask


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, waste: float, plain: int) -> None:
    monkeypatch.setattr(packing, "WASTE", waste)
    monkeypatch.setattr(short, "_PLAIN", plain)


def largest(one: Tensor, other: Tensor) -> float:
    """Largest difference, in parts of the largest number."""
    return float(((one - other).abs().max() / other.abs().max()).detach())


@FAMILY
@BOTH
@pytest.mark.usefixtures("settings")
def test_reading_is_the_models_own(make: Maker) -> None:
    """Logits, keys and values to 1e-5 of the largest (seen: 6e-7)."""
    model, _ = with_adapters(make)
    ids, mask = prompts()
    read, past = LlamaForward(model).read(ids, mask)
    expected, own = AnyForward(model).read(ids, mask)
    assert read.logits.shape == (K * P, 30)
    assert largest(read.logits, expected.logits) < 1e-5
    assert largest(read.states, expected.states) < 1e-5
    real = mask.flatten(0, 1)
    for mine, other in zip(past.tensors, own.tensors, strict=True):
        assert mine.shape == other.shape
        assert largest(mine.transpose(1, 2)[real], other.transpose(1, 2)[real]) < 1e-5


def decode(way: Forward, model: PreTrainedModel, ids: Tensor, mask: Tensor) -> list[Tensor]:
    """Logits and hidden states of five steps.

    With all rows, with equally many of each device, then with 3, 1 and 0, then 1, 1 and 0.
    """
    fed = tokens(T, K * P * G)
    with torch.no_grad():
        _, past = way.read(ids, mask)
        decoder = way.decoder(mask, past, G, T)
        now, found = torch.arange(K * P * G), []
        for t in range(T):
            kept = {1: [1, 2, 3, 5, 7, 8, 9, 11, 12, 13, 14, 17], 2: [0, 1, 3, 6], 4: [2, 3]}.get(t)
            if kept is not None:
                now = now[kept]
                decoder.keep(torch.tensor(kept))
            counts = torch.bincount(now // (P * G), minlength=K)
            with unequal(counts) if t > 1 else nullcontext():
                following = decoder.step(fed[t, now])
                found.append(torch.cat([following.logits, following.states], -1))  # (n, V + D)
    return found


@FAMILY
@BOTH
@pytest.mark.usefixtures("settings")
def test_decoding_is_the_models_own_step_by_step_and_row_by_row(make: Maker) -> None:
    """Logits to 1e-5 of the largest (seen: 1e-6), also while rows leave, until one device has none."""
    model, _ = with_adapters(make)
    mine, own = (decode(way(model), model, *prompts()) for way in (LlamaForward, AnyForward))
    assert [len(step) for step in mine] == [18, 12, 4, 4, 2]
    for step, expected in zip(mine, own, strict=True):
        assert largest(step, expected) < 1e-5


def judge_by(following: Tensor) -> Readout:
    """Log-probability of what follows each place."""
    return lambda after, places: torch.log_softmax(after.logits, -1).gather(-1, following[places][:, None])[:, 0]


def followed(way: Forward, theta: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities `(K, R, T)` after prompts that are read with gradient, and the gradient of a random sum."""
    ids, mask = prompts()
    _, past = way.read(ids, mask)
    judged = way.follow(tokens(K, P * G, T), torch.arange(T) < lengths[..., None], mask, past, judge_by(tokens(1000)))
    weights = torch.randn(judged.shape, generator=torch.Generator().manual_seed(2))
    (gradient,) = torch.autograd.grad((judged * weights).sum(), theta)
    return judged.detach(), gradient


UNEVEN = torch.tensor([[5, 4, 0, 3, 5, 1], [1, 0, 0, 2, 0, 0], [0, 0, 0, 0, 0, 0]])  # (K, R), tokens of each row


@FAMILY
@BOTH
@pytest.mark.usefixtures("settings")
def test_following_and_its_gradient_are_the_models_own(make: Maker) -> None:
    """To 1e-5 of the largest (seen: 5e-7 and, for each device's gradient, 4e-6); nothing where the mask is not True."""
    model, theta = with_adapters(make)
    judged, gradient = followed(LlamaForward(model), theta, UNEVEN)
    expected, own = followed(AnyForward(model), theta, UNEVEN)
    counts = torch.arange(T) < UNEVEN[..., None]
    assert (judged[~counts] == 0).all()
    assert (judged[counts] < 0).all()
    assert largest(judged, expected) < 1e-5
    assert (gradient[2] == 0).all()  # the device without tokens
    assert max(largest(gradient[k], own[k]) for k in range(2)) < 1e-5


def test_rows_of_padding_and_silent_packs_stay_finite() -> None:
    """A pack that follows with nothing at all: zeros, and a gradient of zeros."""
    model, theta = with_adapters(llama)
    judged, gradient = followed(LlamaForward(model), theta, torch.zeros_like(UNEVEN))
    assert (judged == 0).all()
    assert (gradient == 0).all()


def test_the_parts_of_the_general_way_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """By length in four parts or in one: to 1e-5 of the largest (seen: 8e-7)."""
    model, theta = with_adapters(qwen2)
    whole, gradient = followed(AnyForward(model), theta, UNEVEN)
    monkeypatch.setattr(any_forward, "_FEW", 2)
    in_parts, own = followed(AnyForward(model), theta, UNEVEN)
    assert largest(in_parts, whole) < 1e-5
    assert largest(own, gradient) < 1e-5


def test_a_prompt_too_long_for_plain_products_is_read_as_well() -> None:
    """70 by 70 scores are more than `_PLAIN`; to 1e-5 of the largest (seen: 4e-7)."""
    model, _ = with_adapters(qwen3)
    ids, mask = tokens(K, 1, 70), torch.ones(K, 1, 70, dtype=torch.bool)
    mask[1, 0, :30] = False
    assert short._PLAIN < 70 * 70
    assert largest(LlamaForward(model).read(ids, mask)[0].logits, AnyForward(model).read(ids, mask)[0].logits) < 1e-5


def with_window() -> PreTrainedModel:
    return MistralForCausalLM(MistralConfig(**TINY, sliding_window=4))


def with_windows_in_some_layers() -> PreTrainedModel:
    config = Qwen2Config(**TINY, use_sliding_window=True, sliding_window=4, max_window_layers=1)
    assert config.layer_types == ["full_attention", "sliding_attention"]
    return Qwen2ForCausalLM(config)


def with_gelu() -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**TINY, hidden_act="gelu"))


def of_another_family() -> PreTrainedModel:
    return GPTNeoXForCausalLM(GPTNeoXConfig(**{k: v for k, v in TINY.items() if k != "num_key_value_heads"}))


class Changed(LlamaForCausalLM):
    """Someone's variant of a known class, whose passes may differ."""


def of_a_subclass() -> PreTrainedModel:
    return Changed(LlamaConfig(**TINY))


@FAMILY
def test_the_family_fits(make: Maker) -> None:
    assert fits(make())


@pytest.mark.parametrize(
    "make", [with_window, with_windows_in_some_layers, with_gelu, of_another_family, of_a_subclass]
)
def test_what_works_differently_does_not_fit(make: Maker) -> None:
    assert not fits(make())
