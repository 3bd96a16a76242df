"""The two sides of `experiments/benchmark/gpu.py`: a stacked pack, and peft's own LoRA model one device at a time.

Both sample G completions of T tokens for each of a device's P prompts of L tokens, then carry one given weight per
token back to the adapter and step Adam. The base has random weights and no tokenizer; nothing on either side ends
early, since no token is an end: ours looks for the number -1, which no token has, and peft's model knows none.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
import torch
from peft import get_peft_model, set_peft_model_state_dict
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase, Qwen2Config

from flsim.config.model import ModelConfig
from flsim.learning.adam import Adam, AdamState
from flsim.models.adapter import Adapter, initial_adapter, lora_config, quiet_peft
from flsim.models.base import BaseModel
from flsim.models.decoding import Completions, Prompts, Reading, generate, read
from flsim.models.scoring import pull_back
from flsim.models.stacked_lora import StackedLora
from flsim.seeding import seed_for

NEVER = -1
"""An id that no token has."""
_GATED = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LORA = ModelConfig(path="random weights", rank=16, alpha=32.0, targets=_GATED)


@dataclass(frozen=True)
class Shape:
    """A model's; all have tied embeddings, biases in q, k and v, and a rotary base of a million."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_heads: int
    vocabulary: int

    @property
    def config(self) -> Qwen2Config:
        """As transformers has it; no token begins or ends a text."""
        return Qwen2Config(
            hidden_size=self.hidden,
            intermediate_size=self.intermediate,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.key_heads,
            vocab_size=self.vocabulary,
            rope_parameters={"rope_type": "default", "rope_theta": 1e6},
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=None,
        )


SHAPES = {"qwen2.5-0.5b": Shape(896, 4864, 24, 14, 2, 151936), "tiny": Shape(64, 96, 2, 4, 2, 300)}

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


class _Mute:
    """Stands where a tokenizer does: sampling asks for texts, and nobody reads them."""

    def batch_decode(self, sequences: Sequence[object], **_: Any) -> list[str]:
        """An empty text for each."""
        return [""] * len(sequences)


class Stacked:
    """Ours: K devices in one pack."""

    def __init__(self, case: Case, devices: int) -> None:
        self.case, self.devices = case, devices
        model = case.model()
        tokenizer = cast(PreTrainedTokenizerBase, _Mute())
        self.base = BaseModel(model, tokenizer, pad_id=0, eos_id=NEVER)
        like = initial_adapter(model, LORA, 0)
        self.lora = StackedLora(model, like, LORA.alpha / LORA.rank)
        self.theta = self.lora.stack([case.adapter(k, like) for k in range(devices)])  # (K, n)
        self._moments = AdamState(
            torch.zeros_like(self.theta), torch.zeros_like(self.theta), torch.zeros(devices, device=case.place)
        )
        ids = torch.stack([case.prompt_ids(k) for k in range(devices)]).to(case.place)  # (K, P, L)
        self.prompts = Prompts(ids, torch.ones_like(ids, dtype=torch.bool), (case.prompts,) * devices)
        pull = torch.stack([case.weights(k) for k in range(devices)])[..., None]  # (K, P, G, 1)
        self._pull = pull.expand(-1, -1, -1, case.new_tokens).to(case.place)  # (K, P, G, T)
        self._sources = [torch.Generator().manual_seed(seed_for(0, "sampling", k)) for k in range(devices)]

    def step(self) -> Seconds:
        """Sample and learn once."""
        reading, in_read = self.case.timed(self.read)
        completions, in_generate = self.case.timed(lambda: self.sample(reading))
        _, in_train = self.case.timed(lambda: self._train(reading, completions))
        return Seconds(in_read, in_generate, in_train)

    def read(self) -> Reading:
        """The prompts, with the graph that the gradient needs."""
        self.lora.attach(self.theta, train=True)
        return read(self.base, self.prompts)

    def sample(self, reading: Reading) -> Completions:
        """All completions."""
        case = self.case
        return generate(
            self.base,
            reading,
            group_size=case.group_size,
            max_new_tokens=case.new_tokens,
            temperature=1.0,
            generators=self._sources,
        )

    def gradient(self, reading: Reading, completions: Completions) -> Tensor:
        """`(K, n)`."""
        parts = reading, completions, self._pull
        return pull_back(self.base, self.lora, *parts, temperature=1.0, tokens=self.case.micro_batch)

    def _train(self, reading: Reading, completions: Completions) -> None:
        Adam(lr=1e-4).step(self.theta, self.gradient(reading, completions), self._moments)


class OneAtATime:
    """peft's LoRA model by transformers' `generate`, a plain forward and backward, and torch's fused Adam.

    Making the optimizer and putting a device's adapter on happens before the clock starts.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        base = case.model()
        self._like = initial_adapter(base, LORA, 0)
        with quiet_peft():
            self.model: Any = get_peft_model(base, lora_config(LORA)).eval()
        self.parameters = [part for part in self.model.parameters() if part.requires_grad]

    def step(self, device: int) -> Seconds:
        """Sample and learn once, as one device."""
        case = self.case
        self.put_on(device)
        optimizer = torch.optim.Adam(self.parameters, lr=1e-4, betas=(0.9, 0.99), fused=True)
        ids = case.prompt_ids(device).to(case.place)  # (P, L)
        weights = case.weights(device).flatten().to(case.place)  # (P * G,)
        rows, in_generate = case.timed(lambda: self.sample(ids))

        def train() -> None:
            optimizer.zero_grad()
            self.pull_back(rows, weights)
            clip_grad_norm_(self.parameters, 1.0)
            optimizer.step()

        _, in_train = case.timed(train)
        return Seconds(0.0, in_generate, in_train)

    def put_on(self, device: int) -> None:
        """The adapter of a device."""
        adapter = self.case.adapter(device, self._like)
        set_peft_model_state_dict(self.model, {name: torch.from_numpy(tensor) for name, tensor in adapter.items()})

    def sample(self, ids: Tensor) -> Tensor:
        """Prompts and completions, `(P * G, L + T)`."""
        case = self.case
        settings = GenerationConfig(
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=case.new_tokens,
            num_return_sequences=case.group_size,
            pad_token_id=0,
        )
        mask = torch.ones_like(ids)
        rows: Tensor = self.model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)
        return rows

    def pull_back(self, rows: Tensor, weights: Tensor) -> None:
        """Add up the gradients, in as many parts as keep to the micro-batch."""
        tokens = self.case.new_tokens
        size = max(1, self.case.micro_batch // tokens)
        for ids, weight in zip(rows.split(size), weights.split(size), strict=True):  # (m, L + T) and (m,)
            kept = self.model(input_ids=ids, use_cache=False, logits_to_keep=tokens + 1).logits[:, :-1]  # (m, T, V)
            logprobs = torch.log_softmax(kept.float(), -1).gather(-1, ids[:, -tokens:, None])[..., 0]  # (m, T)
            (logprobs.sum(-1) * weight).sum().backward()


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
