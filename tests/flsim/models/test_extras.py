"""Extras, learned beside LoRA: they lie in the same rows, no layer reads them, and LoRA's bits stay as they are."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from safetensors.numpy import load_file
from torch import Tensor

from flsim.config.model import LoraShape, ModelConfig
from flsim.config.schema import ConfigError
from flsim.learning.adam import Adam, fresh_state
from flsim.models.adapter import (
    HEAD,
    Adapter,
    cropped,
    extras_of,
    initial_adapter,
    load_adapter,
    lora_of,
    only,
    save_adapter,
    stacked,
    told_of_head,
    widened,
)
from flsim.models.base import BaseModel, first_adapter, load_base
from flsim.models.stacked_lora import StackedLora, rank_of
from tests.flsim.models.small_models import make_base, qwen2

pytestmark = pytest.mark.usefixtures("one_thread")

WIDEST, ALPHA = 4, 8.0
RANKS = (4, 2, 3)
SHAPES: dict[str, tuple[int, ...]] = {"head.weight": (2, 5), "head.bias": (2,), "head.bound": ()}


def drawn(like: Adapter, seed: int) -> Adapter:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, 0.2, tensor.shape).astype(np.float32) for name, tensor in like.items()}


@cache
def factors(rank: int) -> Adapter:
    return initial_adapter(make_base(qwen2)[0], ModelConfig(path="", rank=rank, alpha=ALPHA), 0)


def like(rank: int, shapes: Mapping[str, tuple[int, ...]] = SHAPES) -> Adapter:
    return factors(rank) | {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


def pack(shapes: Mapping[str, tuple[int, ...]] = SHAPES) -> tuple[StackedLora, list[Adapter]]:
    """Three devices of unequal ranks; LoRA's tensors do not depend on the extras."""
    lora = StackedLora(make_base(qwen2)[0], like(WIDEST, shapes), ALPHA / WIDEST)
    return lora, [drawn(like(rank, shapes), seed) for seed, rank in enumerate(RANKS)]


def equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return list(one) == list(other) and all(np.array_equal(one[name], other[name]) for name in one)


def gradient(lora: StackedLora, theta: Tensor) -> Tensor:
    tokens = torch.randint(30, (6, 7), generator=torch.Generator().manual_seed(1))  # two rows for each device
    lora.attach(theta, RANKS, train=True)
    logits = lora.model(input_ids=tokens).logits  # (6, L, V)
    torch.log_softmax(logits[:, :-1], -1).gather(-1, tokens[:, 1:, None]).sum().backward()
    return lora.gradient()


# ------------------------------------------------------------------------------------------------------- laws of theta


@settings(max_examples=25, deadline=None)
@given(
    shapes=st.dictionaries(
        st.sampled_from(["head.weight", "head.bias", "a", "z"]),
        st.lists(st.integers(1, 4), max_size=3).map(tuple),
        max_size=3,
    )
)
def test_stacking_and_unstacking_is_bit_exact_whatever_the_shapes(shapes: dict[str, tuple[int, ...]]) -> None:
    lora, adapters = pack(shapes)
    theta = lora.stack(adapters)
    beside = sum(math.prod(shape) for shape in shapes.values())
    assert theta.shape == (3, lora.size(WIDEST))
    assert lora.size(2) == sum(tensor.size for tensor in adapters[1].values())
    assert sum(lora.parts) == theta.shape[1]
    assert theta[:, lora.place_of_extras].shape == (3, beside)
    for adapter, back in zip(adapters, lora.unstack(theta, RANKS), strict=True):
        assert equal(back, adapter)
        assert list(extras_of(back)) == list(shapes)
    again = lora.pad(lora.crop(theta, RANKS), RANKS)
    assert torch.equal(again, theta)


def test_they_are_views_that_move_with_theta() -> None:
    lora, adapters = pack()
    theta = lora.stack(adapters)
    found = lora.extras(theta)
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == {n: (3, *s) for n, s in SHAPES.items()}
    for k, adapter in enumerate(adapters):
        assert equal({name: tensor[k].numpy() for name, tensor in found.items()}, extras_of(adapter))
    found["head.weight"][1, 0, 3] = 7.0
    assert lora.unstack(theta, RANKS)[1]["head.weight"][0, 3] == 7.0
    theta[2, lora.place_of_extras] = 1.0
    assert (found["head.bias"][2] == 1.0).all()
    assert found["head.bound"][2] == 1.0


def test_without_them_there_is_one_part_and_nothing_beside() -> None:
    lora, adapters = pack({})
    theta = lora.stack(adapters)
    assert lora.parts == (theta.shape[1],)
    assert lora.extras(theta) == {}
    assert theta[:, lora.place_of_extras].numel() == 0
    assert lora.belonging_to("AB").all()


def test_no_layer_reads_them_and_their_gradient_is_zero() -> None:
    """LoRA's part of theta, and of its gradient, has the bits that it has without them."""
    (plain, few), (lora, adapters) = pack({}), pack()
    theta, alone = lora.stack(adapters), plain.stack([lora_of(adapter) for adapter in adapters])
    assert all(equal(lora_of(one), {**lora_of(one), **other}) for one, other in zip(adapters, few, strict=True))
    n = lora.parts[0]
    assert torch.equal(theta[:, :n], alone)
    found, expected = gradient(lora, theta), gradient(plain, alone)
    assert expected.abs().max() > 0.01
    assert torch.equal(found[:, :n], expected)
    assert found.shape == theta.shape
    assert not found[:, n:].any()


@pytest.mark.parametrize("factors", ["A", "B", "AB", ""])
def test_they_go_with_every_choice_of_factors_but_none(factors: str) -> None:
    lora, (adapter, *_) = pack()
    marks = lora.belonging_to(factors)
    assert marks.shape == (lora.size(WIDEST),)
    assert bool(marks[lora.place_of_extras].all()) == bool(marks[lora.place_of_extras].any()) == bool(factors)
    assert set(extras_of(only(adapter, factors))) == (set(SHAPES) if factors else set())


def test_an_adapter_may_hold_more_than_the_slots_know() -> None:
    """The server's student has slots for LoRA alone."""
    (plain, _), (_, adapters) = pack({}), pack()
    (back, *_) = plain.unstack(plain.stack(adapters), RANKS)
    assert equal(back, lora_of(adapters[0]))


def test_the_rank_is_that_of_lora_wherever_they_stand() -> None:
    _, adapters = pack()
    for adapter, rank in zip(adapters, RANKS, strict=True):
        assert rank_of(adapter) == rank_of(extras_of(adapter) | lora_of(adapter)) == rank


# ----------------------------------------------------------------------------------------------------------- clipping


def test_each_part_is_clipped_by_its_own_norm_by_hand() -> None:
    """(3, -4 | 0.3): the first part has norm 5 and is cut to (0.6, -0.8), the second 0.3 and stays.

    Clipped as one the first would be cut to norm 1 / 5.009 of itself. First moments after a step are a tenth.
    """
    theta, state = torch.zeros(1, 3), fresh_state(1, 3)
    Adam().step(theta, torch.tensor([[3.0, -4.0, 0.3]]), state, (2, 1))
    torch.testing.assert_close(state.first, torch.tensor([[0.06, -0.08, 0.03]]), atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("size", [0.0, 1.0, 1e6])
def test_the_gradient_of_a_head_leaves_loras_step_as_it_is(size: float) -> None:
    generator = torch.Generator().manual_seed(0)
    moved = []
    for beside in (0, 5):
        theta, state = torch.ones(3, 40 + beside), fresh_state(3, 40 + beside)
        for step in range(4):
            own = torch.randn(3, 40, generator=generator.manual_seed(step))
            head = size * torch.ones(3, beside)
            Adam().step(theta, torch.cat([own, head], 1), state, (40, beside) if beside else (40,))
        moved.append(theta[:, :40])
    assert torch.equal(*moved)


# ---------------------------------------------------------------------------------------------------------- the adapter


def test_what_cuts_fills_or_joins_factors_leaves_them_as_they_are() -> None:
    adapter, wide, narrow = drawn(like(3), 0), LoraShape(5, 10.0), LoraShape(2, 3.0)
    own = LoraShape(3, 8.0)
    for found in (
        cropped(adapter, narrow, own),
        widened(adapter, own, wide),
        widened(adapter, own, wide, rest=drawn(like(5), 1)),
        stacked(adapter, own, lora_of(drawn(like(2), 1)))[0],
    ):
        assert equal(extras_of(found), extras_of(adapter))
        assert list(found) == list(adapter)
        assert rank_of(found) != 3
    assert equal(extras_of(widened(extras_of(adapter), own, wide)), extras_of(adapter))


def test_they_stand_last_in_their_own_order_and_in_float32() -> None:
    extras = {"z": np.ones(2), "a": np.ones((3, 1)).T}
    adapter = initial_adapter(make_base(qwen2)[0], ModelConfig(path="", rank=2, alpha=ALPHA), 0, extras)
    assert [*adapter][-2:] == ["z", "a"]
    assert equal(lora_of(adapter), factors(2))
    assert {tensor.dtype for tensor in adapter.values()} == {np.dtype("float32")}


@pytest.mark.parametrize(
    ("extras", "said"),
    [
        ({"x.lora_A.weight": np.zeros(2)}, r"'x\.lora_A\.weight' beside LoRA.*call it otherwise, such as head\.weight"),
        ({"head.bias": np.array([0.0, np.nan])}, r"'head\.bias' begins with NaN or infinity"),
    ],
)
def test_extras_that_cannot_be_are_refused(extras: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        initial_adapter(make_base(qwen2)[0], ModelConfig(path="", rank=2), 0, extras)


def test_a_first_adapter_has_what_the_client_says_of_the_base(tiny_checkpoint: Path) -> None:
    """The tiny model is 32 wide."""

    def head(base: BaseModel) -> Adapter:
        return {"head.weight": np.full((2, base.model.config.hidden_size), 0.5, np.float32)}

    config = ModelConfig(path=str(tiny_checkpoint), rank=2)
    first = first_adapter(config, 3, head)
    assert first["head.weight"].tolist() == [[0.5] * 32] * 2
    assert equal(lora_of(first), first_adapter(config, 3))


# --------------------------------------------------------------------------------------------------- saving and loading

FRESH = {"head.weight": np.zeros((2, 3)), "head.bias": np.zeros(2)}


@pytest.fixture
def config(tiny_checkpoint: Path) -> ModelConfig:
    return ModelConfig(path=str(tiny_checkpoint), rank=3, alpha=5.0)


@pytest.fixture
def learned(config: ModelConfig) -> Adapter:
    return drawn(initial_adapter(load_base(config.path).model, config, 0, FRESH), 1)


def test_peft_loads_lora_without_a_word_and_the_head_lies_beside(
    config: ModelConfig, learned: Adapter, tmp_path: Path
) -> None:
    save_adapter(tmp_path, learned, config)
    assert not any("head" in name for name in load_file(tmp_path / "adapter_model.safetensors"))
    assert equal(dict(sorted(load_file(tmp_path / HEAD).items())), dict(sorted(extras_of(learned).items())))
    base = load_base(config.path).model
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing")  # of peft itself
        PeftModel.from_pretrained(base, str(tmp_path))


def test_a_run_goes_on_with_the_saved_head_bit_for_bit(config: ModelConfig, learned: Adapter, tmp_path: Path) -> None:
    save_adapter(tmp_path, learned, config)
    base, again = load_base(config.path).model, replace(config, adapter=str(tmp_path))
    found = initial_adapter(base, again, 7, FRESH)
    assert equal(found, learned)
    assert told_of_head(tmp_path, found) is None
    turned = initial_adapter(base, again, 7, dict(reversed(FRESH.items())))  # the order is the run's
    assert [*turned][-2:] == ["head.bias", "head.weight"]


def test_a_folder_without_a_head_gives_a_fresh_one_and_it_is_told(
    config: ModelConfig, learned: Adapter, tmp_path: Path
) -> None:
    save_adapter(tmp_path, learned, config)
    save_adapter(tmp_path, lora_of(learned), config)  # no head of another adapter stays behind
    assert not (tmp_path / HEAD).exists()
    found = initial_adapter(load_base(config.path).model, replace(config, adapter=str(tmp_path)), 0, FRESH)
    assert equal(found, learned | {name: tensor.astype(np.float32) for name, tensor in FRESH.items()})
    said = told_of_head(tmp_path, found)
    assert said == f"model.adapter={str(tmp_path)!r} holds no head.safetensors: head.weight, head.bias begin anew"


def test_a_head_that_nobody_learns_is_left_out_and_it_is_told(
    config: ModelConfig, learned: Adapter, tmp_path: Path
) -> None:
    save_adapter(tmp_path, learned, config)
    found = initial_adapter(load_base(config.path).model, replace(config, adapter=str(tmp_path)), 0)
    assert equal(found, lora_of(learned))
    assert "holds a head.safetensors, which this run's devices do not learn" in str(told_of_head(tmp_path, found))


@pytest.mark.parametrize(
    ("extras", "said"),
    [
        ({**FRESH, "head.weight": np.zeros((2, 4))}, r"head\.weight has shape \(2, 3\), expected \(2, 4\)"),
        ({"head.weight": FRESH["head.weight"]}, r"0 tensors are missing and 1 unknown, first head\.bias"),
    ],
)
def test_a_head_of_another_shape_is_refused(
    config: ModelConfig, learned: Adapter, tmp_path: Path, extras: dict[str, Any], said: str
) -> None:
    save_adapter(tmp_path, learned, config)
    with pytest.raises(ConfigError, match=rf"{HEAD} is not what .* learn beside LoRA: {said}; set client"):
        initial_adapter(load_base(config.path).model, replace(config, adapter=str(tmp_path)), 0, extras)


def test_a_head_that_cannot_be_read_is_refused(config: ModelConfig, learned: Adapter, tmp_path: Path) -> None:
    save_adapter(tmp_path, learned, config)
    (tmp_path / HEAD).write_bytes(b"head")
    with pytest.raises(ConfigError, match="it cannot be read"):
        load_adapter(tmp_path, like=learned)
