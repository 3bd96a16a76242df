"""What a device's step is on all sides of `flsim benchmark gpu`: shapes, sizes, prompts, adapters, and its work."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)

from flsim.config.model import ModelConfig
from flsim.models.adapter import Adapter
from flsim.seeding import seed_for

_GATED = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LORA = ModelConfig(path="random weights", rank=16, alpha=32.0, targets=_GATED)


@dataclass(frozen=True)
class Shape:
    """A model's; all have tied embeddings. Qwen2's have biases in q, k and v."""

    family: type[Qwen2Config] | type[LlamaConfig]
    rotary: float
    """The base of its rotary angles."""
    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_heads: int
    vocabulary: int

    @property
    def config(self) -> PreTrainedConfig:
        """As transformers has it; no token begins or ends a text."""
        return self.family(
            hidden_size=self.hidden,
            intermediate_size=self.intermediate,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.key_heads,
            vocab_size=self.vocabulary,
            rope_parameters={"rope_type": "default", "rope_theta": self.rotary},
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=None,
        )


SHAPES = {
    "qwen2.5-0.5b": Shape(Qwen2Config, 1e6, 896, 4864, 24, 14, 2, 151936),
    "smollm2-135m": Shape(LlamaConfig, 1e5, 576, 1536, 30, 9, 3, 49152),
    "tiny": Shape(Qwen2Config, 1e6, 64, 96, 2, 4, 2, 300),
}

T = TypeVar("T")


@dataclass(frozen=True)
class Case:
    """What a device's step is, and where it is computed."""

    shape: str
    place: str
    prompts: int
    """P, per device."""
    group_size: int
    """G."""
    prompt_tokens: int
    """L."""
    new_tokens: int
    """T."""
    micro_batch: int
    """Most tokens of completions in one forward pass of training, if a completion per prompt has no more."""
    dtype: torch.dtype = torch.bfloat16
    """Of the base; adapters are float32."""

    @property
    def tokens(self) -> int:
        """Generated tokens of one device."""
        return self.prompts * self.group_size * self.new_tokens

    def model(self, place: str | None = None) -> PreTrainedModel:
        """A base with random weights, the same at every call."""
        torch.manual_seed(seed_for(0, "base"))
        with torch.device(place or self.place):
            model: PreTrainedModel = AutoModelForCausalLM.from_config(SHAPES[self.shape].config, dtype=self.dtype)
        model.generation_config = GenerationConfig(pad_token_id=0)
        model.eval().requires_grad_(False)
        return model

    def prompt_ids(self, device: int) -> Tensor:
        """`(P, L)`, a device's own."""
        source = torch.Generator().manual_seed(seed_for(0, "prompts", device))
        return torch.randint(SHAPES[self.shape].vocabulary, (self.prompts, self.prompt_tokens), generator=source)

    def weights(self, device: int) -> Tensor:
        """`(P, G)`, how a device's loss weighs the log-probability of each completion's tokens; none is zero."""
        source = torch.Generator().manual_seed(seed_for(0, "weights", device))
        return torch.randn(self.prompts, self.group_size, generator=source) / (self.prompts * self.group_size)

    def adapter(self, device: int, like: Adapter) -> Adapter:
        """A device's own, whose B is not zero."""
        source = np.random.default_rng(seed_for(0, "adapter", device))
        return {name: source.normal(0, 0.01, tensor.shape).astype(np.float32) for name, tensor in like.items()}

    def timed(self, work: Callable[[], T]) -> tuple[T, float]:
        """What `work` gives, and the seconds until the card is done with it."""
        self._wait()
        started = time.perf_counter()
        result = work()
        self._wait()
        return result, time.perf_counter() - started

    def _wait(self) -> None:
        if self.place != "cpu":
            torch.cuda.synchronize()


@dataclass(frozen=True)
class Seconds:
    """Of one step of a side."""

    read: float
    """Of the prompts; zero where it is part of `generate`."""
    generate: float
    train: float


@dataclass(frozen=True)
class Work:
    """What K devices' step has to compute and to read, at the least."""

    sample_flops: float
    train_flops: float
    decode_bytes: float


def work_of(case: Case, devices: int) -> Work:
    """Count it: 2 FLOP per parameter and token forward, 2 more for the gradient of the input.

    The base is frozen, so there is no gradient of its weights. A parameter of the head counts where a distribution is
    needed, and adapters and attention do not count. Prompts are read once per group; the last token of a completion is
    not read. A decoding step reads the base, the adapters, each prompt's keys and values once, and each completion's.
    """
    model, shape = case.model("meta"), SHAPES[case.shape]
    layers = sum(part.numel() for part in model.get_submodule("model.layers").parameters())
    head = shape.vocabulary * shape.hidden
    prompts = devices * case.prompts
    rows, steps = prompts * case.group_size, case.new_tokens - 1
    once = layers * prompts * case.prompt_tokens + head * prompts
    read_on = (layers + head) * rows * steps
    width = case.dtype.itemsize
    cached = 2 * shape.layers * shape.key_heads * (shape.hidden // shape.heads) * width  # bytes per token
    wrapped = [part for name, part in model.named_modules() if name.endswith(_GATED) and isinstance(part, nn.Linear)]
    adapter = sum(LORA.rank * (part.in_features + part.out_features) for part in wrapped)
    resident = (layers + head) * width + devices * adapter * 4
    tokens = prompts * case.prompt_tokens * steps + rows * steps * (steps + 1) // 2
    return Work(2.0 * (once + read_on), 4.0 * read_on + 2.0 * once, float(steps * resident + cached * tokens))
