"""What prompts begin with alike is read once: a tree of shared tokens, and the same numbers as without it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from experiments.real.checkpoint import FAMILIES, build_tokenizer
from flsim.config.model import ModelConfig
from flsim.config.schema import ConfigError
from flsim.models.adapter import initial_adapter
from flsim.models.base import BaseModel, load_base, load_model
from flsim.models.decoding import Completions, encode, generate, prompts_of, read
from flsim.models.folder import build_tokenizer as built_in_tokenizer
from flsim.models.prefix import prefix_of
from flsim.models.scoring import pull_back, score
from flsim.models.stacked_lora import StackedLora
from tests.flsim.models.small_models import Maker, llama, make_base, qwen2

pytestmark = pytest.mark.usefixtures("one_thread")

SYSTEM, FIRST, SECOND = [3, 4, 5, 6], [7, 8, 9], [9, 8]
PROMPTS = [
    [[*SYSTEM, *FIRST, 10], [*SYSTEM, *SECOND, 11, 12], [*SYSTEM, *FIRST, 13, 14], [*SYSTEM, *SECOND, 15]],
    [[16, 17, 18], [19, 20]],  # nothing in common
    [[*SYSTEM, 21], [*SYSTEM, 21], [22, 23, 24, 25, 26, 27, 28, 29]],  # the same question twice, and another
]
"""Of three devices; the first has two tasks under one system text."""


@settings(max_examples=60)
@given(
    st.lists(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=7), max_size=12), min_size=1, max_size=3),
    st.integers(1, 4),
)
def test_a_path_and_what_a_prompt_has_beside_it_are_the_prompt(tokens: list[list[list[int]]], least: int) -> None:
    prefix = prefix_of(tokens, least)
    if prefix is None:
        return
    for k, row in enumerate(tokens):
        paths = []
        for p, prompt in enumerate(row):
            columns = prefix.seen[k, p].nonzero()[:, 0]
            assert prefix.positions[k, columns].tolist() == list(range(len(columns)))
            paths.append(prefix.ids[k, columns].tolist())
            assert paths[-1] == prompt[: len(columns)]
            assert len(columns) < len(prompt) <= len(columns) + prefix.rest
            assert not columns.numel() or len(columns) >= least
            for place, column in enumerate(columns.tolist()):
                assert prefix.sees[k, column].nonzero()[:, 0].tolist() == columns[: place + 1].tolist()
        spellings = [tuple(path[: end + 1]) for path in paths for end in range(len(path))]
        assert len(set(spellings)) == int(prefix.sees[k].diagonal().sum())  # each shared token is there once
        alike = {spelling: sum(tuple(own[: len(spelling)]) == spelling for own in row) for spelling in spellings}
        assert all(count >= 2 and 8 * count >= len(row) for count in alike.values())


def test_a_tree_by_hand() -> None:
    prefix = prefix_of(PROMPTS, 4)
    assert prefix is not None
    assert prefix.rest == 8
    assert prefix.ids.tolist() == [[*SYSTEM, 7, 9, 8, 8, 9], [0] * 9, [*SYSTEM, 0, 0, 0, 0, 0]]
    assert prefix.seen.sum(-1).tolist() == [[7, 6, 7, 6], [0] * 4, [4, 4, 0, 0]]
    assert prefix_of(PROMPTS, 8) is None


def stacked(make: Maker) -> tuple[Any, StackedLora, Tensor]:
    """A random model with the adapters of three devices, of unequal ranks."""
    model, config = make_base(make)
    rng = np.random.default_rng(0)
    likes = [initial_adapter(model, ModelConfig(path="", rank=rank, targets=config.targets), 0) for rank in (4, 2, 3)]
    lora = StackedLora(model, likes[0], 1.0)
    theta = lora.stack([{n: rng.normal(0, 0.3, t.shape).astype(np.float32) for n, t in one.items()} for one in likes])
    return model, lora, theta


def learned(base: BaseModel, lora: StackedLora, theta: Tensor) -> tuple[Completions, Tensor, Tensor]:
    """What is said to the prompts, its log-probabilities, and the gradient of a loss of them."""
    lora.attach(theta, [4, 2, 3], train=True)
    reading = read(base, prompts_of(base, PROMPTS))
    sources = [torch.Generator().manual_seed(k) for k in range(3)]
    said = generate(base, reading, group_size=4, max_new_tokens=5, temperature=1.5, generators=sources)
    with torch.no_grad():
        scores = score(base, reading, said, temperature=1.5)
    pull = torch.randn(said.logprobs.shape, generator=torch.Generator().manual_seed(9))
    return said, scores, pull_back(base, lora, reading, said, pull, temperature=1.5, tokens=40)


@pytest.mark.parametrize("make", [llama, qwen2])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_sampling_scores_and_gradients_are_those_of_whole_prompts(make: Maker, checkpointing: bool) -> None:
    """Two tasks under one system text, a device without anything shared, and padding everywhere."""
    model, lora, theta = stacked(make)
    tokenizer = built_in_tokenizer()
    bases = [BaseModel(model, tokenizer, 0, 1, shared_prefix=least, checkpointing=checkpointing) for least in (0, 4)]
    assert prompts_of(bases[1], PROMPTS).prefix is not None
    (plain, chances, pulled), (said, scores, gradient) = (learned(base, lora, theta) for base in bases)
    assert torch.equal(said.tokens, plain.tokens)
    assert torch.equal(said.mask, plain.mask)
    assert torch.allclose(said.logprobs, plain.logprobs, atol=1e-5)
    assert torch.allclose(scores, chances, atol=1e-5)
    assert torch.allclose(scores, said.logprobs, atol=1e-5)
    assert all(own.abs().max() > 1e-3 for own in pulled)
    assert torch.allclose(gradient, pulled, rtol=1e-4, atol=1e-5 * float(pulled.abs().max()))


def test_a_part_of_what_was_read_goes_on_with_the_shared_tokens() -> None:
    """Two prompts of the first device, in another order, the first of the second, and one of the third's."""
    model, lora, theta = stacked(llama)
    base, places = BaseModel(model, built_in_tokenizer(), 0, 1, shared_prefix=4), [[3, 0], [0], [2]]
    lora.attach(theta, [4, 2, 3])
    with torch.no_grad():
        reading = read(base, prompts_of(base, PROMPTS))
        parts = [[row[place] for place in own] for row, own in zip(PROMPTS, places, strict=True)]
        alone = read(replace(base, shared_prefix=0), prompts_of(replace(base, shared_prefix=0), parts))
    plain: dict[str, Any] = {"group_size": 1, "max_new_tokens": 5, "temperature": 0.0}
    said, wanted = (generate(base, one, **plain) for one in (reading.of(places), alone))
    assert torch.equal(said.tokens, wanted.tokens)
    assert torch.allclose(said.logprobs, wanted.logprobs, atol=1e-5)


def test_the_built_in_model_could_share_and_does_not() -> None:
    plain = load_base("builtin:slm")
    assert plain.shared_prefix == 0
    base = load_model(ModelConfig(path="builtin:slm", shared_prefix=3))
    asked = [["max([17,9,32])=", "max([17,9,8])=", "59+6="]]
    said = []
    for one in (plain, base):
        prompts = encode(one, asked)
        assert (prompts.prefix is None) == (one is plain)
        reading = read(one, prompts)
        said.append(generate(one, reading, group_size=1, max_new_tokens=6, temperature=0.0))
    assert said[0].texts == said[1].texts
    assert torch.allclose(said[0].logprobs, said[1].logprobs, atol=1e-4)


def test_a_model_that_reads_by_its_own_forward_reads_whole_prompts(tmp_path: Any) -> None:
    from experiments.real.checkpoint import write_checkpoint

    folder = str(write_checkpoint(tmp_path, "phi"))
    assert load_base(folder).shared_prefix == 0
    with pytest.raises(ConfigError, match=r"model\.shared_prefix works for plain Llama"):
        load_model(ModelConfig(path=folder, shared_prefix=8))


def test_a_chat_shares_its_frame(tmp_path: Any) -> None:
    from experiments.real.checkpoint import write_checkpoint

    base = load_base(str(write_checkpoint(tmp_path, "smollm2")))
    assert base.shared_prefix == 16
    tokenizer = build_tokenizer(FAMILIES["smollm2"])
    frame = "<|im_start|>user\nA sentence that all of them begin with: "
    prompts = encode(base, [[f"{frame}{word}" for word in ("hot", "cold")]])
    assert prompts.prefix is not None
    assert prompts.prefix.ids.shape[1] == len(tokenizer(frame)["input_ids"])
    assert prompts.own[1].sum() + prompts.prefix.seen.sum() == prompts.mask.sum()
