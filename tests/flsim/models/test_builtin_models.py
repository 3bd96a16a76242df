"""The built-in models and their tokenizer say in our own modules, to the last bit, what transformers makes of them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from flsim.config.model import ModelConfig
from flsim.models.adapter import _by_peft, extras_of, initial_adapter, lora_of
from flsim.models.base import load_base, load_model
from flsim.models.builtin_llama import BuiltinLlama, LlamaSizes
from flsim.models.builtin_tokenizer import PIECES, BuiltinTokenizer
from flsim.models.folder import CLOUD_DIR, SLM_DIR, SLM_DRAFT_DIR, config_of
from flsim.models.llama import LlamaForward
from flsim.models.lora_settings import LINEAR
from flsim.models.stacked_lora import StackedLora
from flsim.seeding import seed_for

FOLDERS = (SLM_DIR, SLM_DRAFT_DIR, CLOUD_DIR)
TEXTS = ["", "12+34=", "sorted('cab')[::-1]=", "?", "a<eos>b", "unknown: zß\n ", "<pad>]["]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.name))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_turns_and_sizes_are_those_of_transformers(folder: Path, dtype: torch.dtype) -> None:
    own = BuiltinLlama(folder, dtype)
    theirs: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    state = theirs.state_dict()
    assert own.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in own.state_dict().items())
    positions = torch.arange(64)[None]
    x = torch.randn(1, 64, own.config.hidden_size, dtype=dtype, generator=torch.Generator().manual_seed(0))
    for mine, other in zip(own.model.rotary_emb(x, positions), theirs.model.rotary_emb(x, positions), strict=True):
        assert mine.dtype == other.dtype
        assert torch.equal(mine, other)
    assert torch.equal(own.model.norm(x), theirs.model.norm(x))
    config = AutoConfig.from_pretrained(folder).to_dict() | {"rope_theta": 10000.0}
    assert {name: config[name] for name in own.config.to_dict()} == own.config.to_dict()
    assert own.generation_config.eos_token_id == theirs.generation_config.eos_token_id


def test_forward_passes_are_those_on_transformers_modules_bit_for_bit() -> None:
    base = load_base("builtin:cloud")
    ids, mask = torch.randint(3, 44, (2, 3, 7)), torch.ones(2, 3, 7, dtype=torch.bool)
    mask[:, 1, :3] = False
    own, past = LlamaForward(base.model).read(ids, mask)
    theirs, other = LlamaForward(AutoModelForCausalLM.from_pretrained(CLOUD_DIR, dtype=torch.float32)).read(ids, mask)
    assert torch.equal(own.logits, theirs.logits)
    assert all(torch.equal(mine, one) for mine, one in zip(past.tensors, other.tensors, strict=True))


def test_called_it_is_transformers_model_with_the_adapters_that_are_on() -> None:
    config = ModelConfig(rank=2)
    base = load_model(config)
    lora = StackedLora(base.model, initial_adapter(base.model, config, 0), config.shape.scale)
    ids = torch.randint(3, 44, (1, 9), generator=torch.Generator().manual_seed(0))
    every = torch.ones(1, 1, 9, dtype=torch.bool)
    theirs = AutoModelForCausalLM.from_pretrained(SLM_DIR, dtype=torch.float32)
    assert torch.equal(base.model(input_ids=ids).logits, theirs(input_ids=ids).logits)
    lora.attach(torch.randn(1, lora.size(2), generator=torch.Generator().manual_seed(1)) / 9)
    changed = base.model(input_ids=ids).logits
    assert not torch.allclose(changed, theirs(input_ids=ids).logits, atol=1e-2)
    torch.testing.assert_close(changed[:, -1], base.forward.read(ids[None], every)[0].logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("targets", [None, ("down_proj", "q_proj")], ids=["all", "two"])
def test_the_first_adapter_is_that_of_peft(dtype: str, targets: tuple[str, ...] | None) -> None:
    config = ModelConfig(rank=3, alpha=6.0, dtype=dtype, targets=targets)
    extras = {"head.weight": np.ones((2, 2), np.float32)}
    own = initial_adapter(load_model(config).model, config, 7, extras)
    theirs = AutoModelForCausalLM.from_pretrained(SLM_DIR, dtype=getattr(torch, dtype))
    expected = _by_peft(theirs, config, 7) | extras
    assert list(own) == list(expected)
    assert all(np.array_equal(own[name], expected[name]) for name in own)
    assert {name.split(".")[-3] for name in lora_of(own)} == set(targets or LINEAR)
    assert own["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"].std() > 0
    assert list(extras_of(own)) == ["head.weight"]


def test_settings_that_only_peft_knows_are_left_to_peft() -> None:
    config = ModelConfig(rank=2, lora={"init_lora_weights": "gaussian"})
    drawn = initial_adapter(load_model(config).model, config, 0)
    theirs = initial_adapter(AutoModelForCausalLM.from_pretrained(SLM_DIR, dtype=torch.float32), config, 0)
    assert all(np.array_equal(drawn[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.name))
def test_the_tokenizer_reads_and_writes_as_transformers_does(folder: Path) -> None:
    own, theirs = BuiltinTokenizer(folder), AutoTokenizer.from_pretrained(folder)
    assert own.get_vocab() == theirs.get_vocab() == {piece: place for place, piece in enumerate(PIECES)}
    assert len(own) == len(theirs)
    assert (own.pad_token_id, own.eos_token_id) == (theirs.pad_token_id, theirs.eos_token_id)
    assert (own.bos_token_id, own.chat_template) == (theirs.bos_token_id, theirs.chat_template)
    for more in ({}, {"add_special_tokens": False}, {"return_offsets_mapping": True}):
        assert own(TEXTS, **more).items() <= dict(theirs(TEXTS, **more)).items()
        assert all(own(text, **more).items() <= dict(theirs(text, **more)).items() for text in TEXTS)
    rows = torch.randint(0, len(own), (40, 9), generator=torch.Generator().manual_seed(seed_for(0, folder.name)))
    for skip in (True, False):
        assert own.batch_decode(rows, skip_special_tokens=skip) == theirs.batch_decode(rows, skip_special_tokens=skip)
        assert own.decode(rows[0], skip_special_tokens=skip) == theirs.decode(rows[0], skip_special_tokens=skip)
        assert own.decode([], skip_special_tokens=skip) == ""


def test_transformers_reads_what_the_tokenizer_saves(tmp_path: Path) -> None:
    own = BuiltinTokenizer(SLM_DIR)
    own.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)(TEXTS)["input_ids"] == own(TEXTS)["input_ids"]


def test_sizes_are_read_without_transformers_for_built_in_models_alone() -> None:
    assert isinstance(config_of("builtin:slm"), LlamaSizes)
    assert type(config_of(str(SLM_DIR))).__name__ == "LlamaConfig"


def test_a_process_that_answers_with_built_in_models_imports_nothing_of_transformers() -> None:
    code = """
import sys
import flsim.flower.ray_grid, flsim.loop.run, clients.da_grpo
from flsim.cloud.builtin import Builtin
from flsim.config.model import ModelConfig
from flsim.models.base import first_adapter
from flsim.problems.problem import Problem
first_adapter(ModelConfig(), 0)
assert Builtin().answer([Problem("arithmetic", "add", 2, "12+34=", "64")])[0].text == "64"
print(*sorted({"transformers", "peft", "scipy", "sympy", "torch._dynamo", "accelerate"} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.split() == []
