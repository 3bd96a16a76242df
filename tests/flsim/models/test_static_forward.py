"""Passes of static shapes against the plain ones, and captured on a pretended card against themselves."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

import flsim.models.static.forward as static
from experiments.real.checkpoint import write_checkpoint
from flsim.config.load import load_config
from flsim.config.model import ModelConfig
from flsim.config.schema import ConfigError
from flsim.loop.checks import check_settings
from flsim.models.adapter import initial_adapter
from flsim.models.base import BaseModel, load_model
from flsim.models.decoding import Completions, encode, generate, read
from flsim.models.llama import LlamaForward
from flsim.models.scoring import pull_back
from flsim.models.stacked_lora import StackedLora
from flsim.models.static.capturing import CudaGraphs, NoGraphs
from flsim.models.static.decoding import StaticDecoder, rounded
from flsim.models.static.forward import StaticForward, can_be_captured
from tests.flsim.models.pretended_card import pretend
from tests.flsim.models.test_forward import (
    FAMILY,
    TINY,
    UNEVEN,
    Maker,
    decode,
    followed,
    largest,
    prompts,
    random_model,
    with_adapters,
)

pytestmark = pytest.mark.usefixtures("one_thread")

LONG, SHORT = "What is the sum of all numbers from one to twelve? ", "1+1="
QUESTIONS = [[LONG + "a", LONG + SHORT], [LONG, SHORT]]


@FAMILY
def test_decoding_is_that_of_the_plain_passes_also_while_rows_leave(make: Maker) -> None:
    """Logits and states to 1e-5 of the largest (seen: 9e-7)."""
    model, _ = with_adapters(make)
    mine, plain = (decode(way(model), model, *prompts()) for way in (StaticForward, LlamaForward))
    assert [len(step) for step in mine] == [18, 12, 4, 4, 2]
    for step, expected in zip(mine, plain, strict=True):
        assert largest(step, expected) < 1e-5


@FAMILY
def test_following_and_its_gradient_are_those_of_the_plain_passes(make: Maker) -> None:
    """To 1e-5 of the largest (seen: 3e-7 and, of a device's gradient, 2e-6); the device without tokens has none."""
    model, theta = with_adapters(make)
    way = StaticForward(model)
    judged, gradient = followed(way, theta, UNEVEN)
    expected, own = followed(LlamaForward(model), theta, UNEVEN)
    assert len(way._passes) == 2  # reading and following
    assert largest(judged, expected) < 1e-5
    assert (gradient[2] == 0).all()
    assert max(largest(gradient[k], own[k]) for k in range(2)) < 1e-5


@FAMILY
def test_a_pretended_card_gives_the_same_bits_at_every_launch(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A launch does the captured operations again, and no Python: what is captured depends on tensors alone."""
    graphs = pretend(monkeypatch)
    model, theta = with_adapters(make)
    card, none = StaticForward(model, CudaGraphs), StaticForward(model, NoGraphs)
    for _ in range(2):
        for step, expected in zip(decode(card, model, *prompts()), decode(none, model, *prompts()), strict=True):
            assert torch.equal(step, expected)
        for found, expected in zip(followed(card, theta, UNEVEN), followed(none, theta, UNEVEN), strict=True):
            assert torch.equal(found, expected)
    assert len(graphs) == 5  # a step; forward and backward of reading and of following


def test_what_looks_at_a_number_cannot_be_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    with pytest.raises(AssertionError, match="_local_scalar_dense cannot be captured"):
        CudaGraphs().capture(lambda: torch.ones(1).item())


def test_libraries_are_warmed_up_by_three_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs, calls = pretend(monkeypatch), list[int]()
    CudaGraphs().warm_up(lambda: calls.append(0))
    assert (len(calls), graphs) == (3, [])


class Pack:
    """Two devices with adapters of their own on one base."""

    def __init__(self, folder: Path, *, dtype: str = "float32") -> None:
        config = ModelConfig(path=str(folder), rank=3, alpha=6.0, dtype=dtype)
        self.base = load_model(config)
        self._like = initial_adapter(self.base.model, config, 0)
        self.lora = StackedLora(self.base.model, self._like, config.shape.scale)

    def theta(self, seed: int) -> Tensor:
        rng = np.random.default_rng(seed)
        own = [{n: rng.normal(0, 0.2, t.shape).astype(np.float32) for n, t in self._like.items()} for _ in QUESTIONS]
        return self.lora.stack(own)

    def learned(self, base: BaseModel, theta: Tensor, tokens: int = 12) -> tuple[Completions, Tensor]:
        """What they say, and the gradient `(K, n)` of a random pull."""
        self.lora.attach(theta, train=True)
        reading = read(base, encode(base, QUESTIONS))
        sources = [torch.Generator().manual_seed(k) for k in range(len(QUESTIONS))]
        how: dict[str, Any] = {"max_new_tokens": tokens, "temperature": 2.0, "generators": sources}
        said = generate(base, reading, group_size=4, **how)
        pull = torch.randn(said.tokens.shape, generator=torch.Generator().manual_seed(0))
        return said, pull_back(base, self.lora, reading, said, pull, temperature=2.0, tokens=60)


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    return Pack(write_checkpoint(tmp_path, "qwen2"))


def by(pack: Pack, way: Callable[[Any], Any], **changes: Any) -> BaseModel:
    """The same base, read by another way."""
    base = replace(pack.base, **changes)
    base.__dict__["forward"] = way(base.model)
    return base


@pytest.mark.parametrize("prefix", [0, 8], ids=["whole prompts", "a shared prefix"])
def test_a_step_of_learning_is_that_of_the_plain_passes(
    prefix: int, pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal tokens; log-probabilities and gradients to 1e-4 of the largest (seen: 4e-6).

    Then again with other adapters, whose launches are the same: nothing of the first step is left.
    """
    graphs = pretend(monkeypatch)
    plain, card = by(pack, LlamaForward, shared_prefix=prefix), by(pack, static_on_card, shared_prefix=prefix)
    assert (encode(card, QUESTIONS).prefix is not None) == bool(prefix)
    counts = []
    for seed in (1, 2, 1):
        said, gradient = pack.learned(card, pack.theta(seed))
        expected, own = pack.learned(plain, pack.theta(seed))
        assert torch.equal(said.tokens, expected.tokens)
        assert said.texts == expected.texts
        assert largest(said.logprobs, expected.logprobs) < 1e-4
        assert max(largest(gradient[k], own[k]) for k in range(2)) < 1e-4
        counts.append(len(graphs))
    assert 0 < counts[0] == counts[2]


def test_a_pack_and_the_base_alone_in_turn_are_captured_once(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a round and its test are; both say what they say by the plain passes."""
    graphs = pretend(monkeypatch)
    card, plain, counts = by(pack, static_on_card), by(pack, LlamaForward), []
    for seed in (1, 2):
        pack.learned(card, pack.theta(seed))
        pack.lora.attach(None)
        alone = [
            generate(base, read(base, encode(base, QUESTIONS)), group_size=1, max_new_tokens=12, temperature=0.0)
            for base in (card, plain)
        ]
        assert alone[0].texts == alone[1].texts
        counts.append(len(graphs))
    assert counts[0] == counts[1]


def static_on_card(model: Any) -> StaticForward:
    return StaticForward(model, CudaGraphs)


def test_nothing_is_left_of_a_device_that_diverged(pack: Pack) -> None:
    """Its NaN lie in columns that later calls give no weight, and zero times NaN is NaN."""
    base, theta = by(pack, StaticForward), pack.theta(1)
    expected, own = pack.learned(by(pack, StaticForward), theta)
    said, gradient = pack.learned(base, torch.full_like(theta, torch.nan), tokens=15)
    assert bool(said.logprobs.isnan().any())
    assert bool(gradient.isnan().any())
    said, gradient = pack.learned(base, theta)
    assert torch.equal(said.logprobs, expected.logprobs)
    assert torch.equal(gradient, own)


def test_a_second_pass_leaves_alone_what_the_backward_of_the_first_needs(pack: Pack) -> None:
    """Both of one shape; the later one, with other adapters, goes the plain way."""
    base = by(pack, StaticForward)
    asked = encode(base, QUESTIONS)

    def pulled(second: bool) -> Tensor:
        theta = pack.theta(1)
        pack.lora.attach(theta, train=True)
        reading = read(base, asked)
        if second:
            attached = pack.lora._attached
            pack.lora.attach(pack.theta(2), train=True)
            other = read(base, asked)
            assert largest(other.logits, reading.logits) > 1e-2
            pack.lora._attached = attached
        reading.logits.sum().backward()
        return pack.lora.gradient()

    assert torch.equal(pulled(second=True), pulled(second=False))


def test_of_two_decodings_at_a_time_the_second_goes_the_plain_way(pack: Pack) -> None:
    base = by(pack, StaticForward)
    pack.lora.attach(pack.theta(1))
    with torch.no_grad():
        reading = read(base, encode(base, QUESTIONS))
    parts = reading.prompts.seen, reading.past, 1, 3
    first, second = base.forward.decoder(*parts), base.forward.decoder(*parts)
    assert isinstance(first, StaticDecoder)
    assert not isinstance(second, StaticDecoder)
    del first
    assert isinstance(base.forward.decoder(*parts), StaticDecoder)


def test_few_captures_are_kept_and_large_passes_are_not_captured(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    base, theta = by(pack, StaticForward), pack.theta(1)
    monkeypatch.setattr(static, "_KEPT", 2)
    for tokens in (12, 20, 40):
        pack.learned(base, theta, tokens=tokens)
    assert isinstance(base.forward, StaticForward)
    assert len(base.forward._rooms) == len(base.forward._passes) == 2
    monkeypatch.setattr(static, "_MOST", 10)
    large = by(pack, StaticForward)
    pack.learned(large, theta)
    assert isinstance(large.forward, StaticForward)
    assert not large.forward._passes


@pytest.mark.parametrize(("columns", "room"), [(1, 16), (16, 16), (17, 32), (64, 64), (65, 128)])
def test_there_is_room_for_the_next_power_of_two(columns: int, room: int) -> None:
    assert rounded(columns) == room


def test_the_setting_chooses_the_way_where_there_is_a_card(tmp_path: Path) -> None:
    """A processor has nothing to capture, such as the server's when a warm-up reads the base."""
    base = load_model(ModelConfig(path=str(write_checkpoint(tmp_path, "smollm2")), cuda_graphs=True))
    assert type(base.forward) is LlamaForward
    assert type(replace(base, cuda_graphs=True).forward) is StaticForward


def test_models_that_cannot_be_captured_are_refused(tmp_path: Path) -> None:
    config = ModelConfig(path=str(write_checkpoint(tmp_path, "gemma2")), cuda_graphs=True)
    with pytest.raises(ConfigError, match=r"model\.cuda_graphs works for plain Llama.* another Gemma2ForCausalLM"):
        load_model(config)
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    assert not can_be_captured(random_model(lambda: LlamaForCausalLM(LlamaConfig(**TINY, rope_parameters=rope))))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((), r"model\.cuda_graphs=true captures the work of a GPU, and with engine\.gpus=0 .* set engine\.gpus=1"),
        (("engine.gpus=1", "model.gradient_checkpointing=true"), "computes parts of them again; set one of them"),
    ],
)
def test_a_run_without_a_card_or_that_computes_again_is_refused(more: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_settings(load_config("demo", ["model.cuda_graphs=true", *more]))
    check_settings(load_config("demo", ["model.cuda_graphs=true", "engine.gpus=1"]))
