"""Random models of three architectures, as small as they get, with the LoRA settings that tests put on them."""

from collections.abc import Callable

import torch
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from flsim.config.model import ModelConfig

GATED = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def llama() -> tuple[PreTrainedModel, ModelConfig]:
    config = LlamaConfig(
        vocab_size=30,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config), ModelConfig(path="", rank=3, alpha=5.0, targets=GATED)


def qwen2() -> tuple[PreTrainedModel, ModelConfig]:
    """Biases in q, k and v, and fewer key heads than query heads."""
    config = Qwen2Config(
        vocab_size=30,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
    )
    return Qwen2ForCausalLM(config), ModelConfig(path="", rank=2, alpha=4.0, targets=GATED)


def gpt_neox() -> tuple[PreTrainedModel, ModelConfig]:
    """One fused projection for query, key and value, attention and MLP in parallel."""
    config = GPTNeoXConfig(
        vocab_size=30,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.3,
    )
    targets = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")
    return GPTNeoXForCausalLM(config), ModelConfig(path="", rank=4, alpha=8.0, targets=targets)


Maker = Callable[[], tuple[PreTrainedModel, ModelConfig]]


def make_base(make: Maker) -> tuple[PreTrainedModel, ModelConfig]:
    """The same weights at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, config = make()
    return model.eval(), config
