"""Families of checkpoints from a folder: what is sampled, learned, saved and read is the model's own.

Every check goes against plain forward passes of single sequences by transformers, without cache, padding or a pack. The
prompts are longer than the attention windows (8 tokens) of the families that have them.
"""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import T5Config

from experiments.real.checkpoint import FAMILIES, write_checkpoint
from flsim.config.model import ModelConfig
from flsim.config.schema import ConfigError
from flsim.models.adapter import Adapter, _by_peft, initial_adapter, save_adapter
from flsim.models.base import BaseModel, load_model
from flsim.models.decoding import Completions, encode, generate, read
from flsim.models.llama import LlamaForward
from flsim.models.scoring import pull_back, score
from flsim.models.stacked_lora import StackedLora
from flsim.problems.problem import Problem

pytestmark = pytest.mark.usefixtures("one_thread")

SHORT = ("llama", "smollm2", "qwen2", "qwen3")
"""Those that the short forward passes read."""
HEAT = 2.0


def problem(question: str, instruction: str = "Do it.") -> Problem:
    return Problem("own", "", 0, question, "2", instruction=instruction)


PROBLEMS = [[problem("1+1="), problem("What is 12 + 34?")], [problem("abc")], []]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Any:
    root = tmp_path_factory.mktemp("families")

    @cache
    def folder(family: str) -> Path:
        return write_checkpoint(root / family, family)

    return folder


@dataclass(frozen=True)
class Pack:
    """Three devices with 2, 1 and 0 prompts and adapters of ranks 3, 2 and 3."""

    base: BaseModel
    lora: StackedLora
    theta: Tensor
    ranks: tuple[int, ...]


def pack_of(config: ModelConfig) -> Pack:
    base, rng = load_model(config), np.random.default_rng(0)
    like = initial_adapter(base.model, config, 0)
    lora = StackedLora(base.model, like, config.shape.scale)
    ranks = (3, 2, 3)
    cut = [{n: t[:r] if ".lora_A." in n else t[:, :r] for n, t in like.items()} for r in ranks]
    theta = lora.stack([learned(part, rng) for part in cut])
    return Pack(base, lora, theta, ranks)


def learned(like: Adapter, rng: np.random.Generator) -> Adapter:
    """An adapter that says something (the initial one has B = 0)."""
    return {name: rng.normal(0, 0.2, tensor.shape).astype(np.float32) for name, tensor in like.items()}


def drawn_by(pack: Pack) -> Completions:
    pack.lora.attach(pack.theta, pack.ranks)
    prompts = encode(pack.base, pack.base.prompts(PROBLEMS))
    seeds = [torch.Generator().manual_seed(k + 1) for k in range(len(PROBLEMS))]
    with torch.no_grad():
        reading = read(pack.base, prompts)
    return generate(pack.base, reading, group_size=3, max_new_tokens=12, temperature=HEAT, generators=seeds)


def own_logprobs(pack: Pack, drawn: Completions, theta: Tensor) -> dict[tuple[int, int, int], Tensor]:
    """Of every completion's tokens `(t,)`, by plain forwards with one device's adapter at a time."""
    found = {}
    for k, row in enumerate(PROBLEMS):
        pack.lora.attach(theta[k : k + 1], pack.ranks[k : k + 1])
        for p, of in enumerate(row):
            prompt = pack.base.tokenizer(pack.base.prompt(of))["input_ids"]
            for g in range(drawn.tokens.shape[2]):
                said = drawn.tokens[k, p, g][drawn.mask[k, p, g]]  # (t,)
                ids = torch.cat([torch.tensor(prompt), said])[None]
                logits = pack.base.model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]  # (t, V)
                logprobs = torch.log_softmax(logits / HEAT, -1)
                found[k, p, g] = logprobs.gather(-1, said[:, None])[:, 0]
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_sampling_and_learning_are_the_models_own(family: str, folders: Any) -> None:
    """Log-probabilities to 5e-5 (seen: 7e-6), each device's gradient to 5e-5 of its length (seen: 4e-6)."""
    pack = pack_of(ModelConfig(path=str(folders(family)), rank=3, alpha=6.0))
    assert isinstance(pack.base.forward, LlamaForward) == (family in SHORT)
    drawn = drawn_by(pack)
    pull = torch.randn(drawn.tokens.shape, generator=torch.Generator().manual_seed(0))
    theta = pack.theta.clone().requires_grad_()
    total = torch.zeros(())
    for (k, p, g), logprobs in own_logprobs(pack, drawn, theta).items():
        kept = drawn.mask[k, p, g]
        assert (drawn.logprobs[k, p, g][kept] - logprobs).abs().max() < 5e-5
        total = total + (pull[k, p, g][kept] * logprobs).sum()
    (expected,) = torch.autograd.grad(total, theta)
    pack.lora.attach(pack.theta, pack.ranks, train=True)
    reading = read(pack.base, encode(pack.base, pack.base.prompts(PROBLEMS)))
    gradient = pull_back(pack.base, pack.lora, reading, drawn, pull, temperature=HEAT, tokens=60)
    assert expected[:2].norm(dim=1).min() > 0.1
    assert ((gradient - expected).norm(dim=1)[:2] / expected.norm(dim=1)[:2]).max() < 5e-5
    assert (gradient[2] == 0).all()


@pytest.mark.parametrize("family", SHORT)
def test_the_first_adapter_is_that_of_peft_which_is_not_asked(
    family: str, folders: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ModelConfig(
        path=str(folders(family)), rank=3, alpha=6.0, targets=("down_proj", "q_proj"), dtype="bfloat16"
    )
    model: Any = load_model(config).model
    expected = [(one, _by_peft(model, one, 7)) for one in (config, replace(config, targets=None))]
    monkeypatch.setattr("flsim.models.adapter._by_peft", None)
    for one, adapter in expected:
        own = initial_adapter(model, one, 7)
        assert list(own) == list(adapter)
        assert all(np.array_equal(own[name], adapter[name]) for name in own)


def test_a_layer_that_is_not_plain_is_left_to_peft(folders: Any) -> None:
    """A quantized one may be no linear layer, and peft knows how it is called all the same."""
    config = ModelConfig(path=str(folders("llama")), rank=3)
    model: Any = load_model(config).model
    model.model.layers[1].mlp.up_proj = torch.nn.Conv1d(2, 2, 1)
    with pytest.raises(ConfigError, match=r"layers\.1\.mlp\.up_proj, which is no linear layer"):
        initial_adapter(model, replace(config, targets=("up_proj",)), 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_adapter_speaks_alike_in_peft(family: str, folders: Any, tmp_path: Path) -> None:
    """On every linear layer of the family but the head; and a run starts from what peft has saved, bit for bit."""
    config = ModelConfig(path=str(folders(family)), rank=3, alpha=6.0)
    base = load_model(config)
    like = initial_adapter(base.model, config, 0)
    adapter = learned(like, np.random.default_rng(0))
    save_adapter(tmp_path / "ours", adapter, config)
    theirs = PeftModel.from_pretrained(load_model(config).model, str(tmp_path / "ours")).eval()
    lora = StackedLora(base.model, like, config.shape.scale)
    lora.attach(lora.stack([adapter]))
    ids = torch.tensor([base.tokenizer("What is 12 + 34?")["input_ids"]])
    with torch.no_grad():
        torch.testing.assert_close(base.model(input_ids=ids).logits, theirs(input_ids=ids).logits, atol=1e-4, rtol=0)
        assert (theirs(input_ids=ids).logits - load_model(config).model(input_ids=ids).logits).abs().max() > 0.1
    theirs.save_pretrained(str(tmp_path / "theirs"))
    again = ModelConfig(path=config.path, rank=3, alpha=6.0, adapter=str(tmp_path / "theirs"))
    loaded = initial_adapter(load_model(again).model, again, 5)
    assert all(np.array_equal(loaded[name], adapter[name]) for name in adapter)
    assert not any("lm_head" in name for name in adapter)


@pytest.mark.parametrize("family", ["qwen2", "gemma3"])
def test_a_device_map_changes_nothing_on_one_device(family: str, folders: Any) -> None:
    """Layers that are placed one by one compute what the whole computes; adapters follow them."""
    path, place = str(folders(family)), {"": "cpu"}
    drawn = [drawn_by(pack_of(ModelConfig(path=path, rank=3, alpha=6.0, device_map=at))) for at in (None, place)]
    assert torch.equal(drawn[0].tokens, drawn[1].tokens)
    assert torch.equal(drawn[0].logprobs, drawn[1].logprobs)


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    T5Config(d_model=16, d_ff=16, num_layers=1, num_heads=2).save_pretrained(tmp_path)
    write_checkpoint(tmp_path / "words", "qwen2")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "words" / name).rename(tmp_path / name)
    with pytest.raises(ConfigError, match=r"model\.path=.* cannot be loaded as a decoder-only model"):
        load_model(ModelConfig(path=str(tmp_path)))


def test_sixteen_bits_are_near(folders: Any) -> None:
    """In bfloat16 (8 bits of precision) log-probabilities are those of float32 to 0.1 on average (seen: 0.02)."""
    config = ModelConfig(path=str(folders("qwen2")), rank=3, alpha=6.0)
    drawn = drawn_by(pack_of(config))
    pack = pack_of(replace(config, dtype="bfloat16"))
    assert pack.base.model.dtype == torch.bfloat16
    pack.lora.attach(pack.theta, pack.ranks)
    with torch.no_grad():
        reading = read(pack.base, encode(pack.base, pack.base.prompts(PROBLEMS)))
        scores = score(pack.base, reading, drawn, temperature=HEAT)
    apart = (scores - drawn.logprobs)[drawn.mask].abs()
    assert 0 < apart.mean() < 0.1
