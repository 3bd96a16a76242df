"""The Llama of the built-in models in modules of our own, named as in transformers, and the same in every bit.

`flsim/models/llama.py` reads by a model's weights and small modules alone. To have these, transformers would import the
compiler of torch, distributed tensors, sympy and scipy: four seconds of processor time in every process of a run. So
a built-in model does without, and turns into transformers' own class only where somebody calls it or asks for that.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

AnyModel: TypeAlias = Union["PreTrainedModel", "BuiltinLlama"]
"""What a base is made of."""
AnyConfig: TypeAlias = Union["PretrainedConfig", "LlamaSizes"]
"""What its `config.json` says."""


@dataclass(frozen=True)
class LlamaSizes:
    """What is read of a built-in model's `config.json`; under transformers' names, whose configs stand elsewhere."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    rms_norm_eps: float
    rope_theta: float
    tie_word_embeddings: bool = False
    hidden_act: str = "silu"
    model_type: str = "llama"

    @classmethod
    def read(cls, folder: Path) -> "LlamaSizes":
        """Those of a checkpoint's folder."""
        said: Mapping[str, Any] = json.loads((folder / "config.json").read_text())
        told = {name: said[name] for name in (one.name for one in fields(cls)) if name != "rope_theta"}
        return cls(**told, rope_theta=said["rope_parameters"]["rope_theta"])

    def get_text_config(self) -> "LlamaSizes":
        """Itself, as it reads nothing but text."""
        return self

    def to_dict(self) -> dict[str, Any]:
        """By name."""
        return asdict(self)


@dataclass(frozen=True)
class Ends:
    """What `generation_config.json` says of the end."""

    eos_token_id: int


class _Norm(nn.Module):
    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))
        self.variance_epsilon = epsilon

    def forward(self, states: Tensor) -> Tensor:
        """In the order of transformers' operations, for the sake of the bits."""
        whole = states.float()
        whole = whole * torch.rsqrt(whole.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * whole.to(states.dtype)  # (..., D)


class _Rotary(nn.Module):
    def __init__(self, sizes: LlamaSizes) -> None:
        super().__init__()
        places = torch.arange(0, sizes.head_dim, 2, dtype=torch.float) / sizes.head_dim  # (d / 2,)
        self._frequencies = 1.0 / (sizes.rope_theta**places)  # (d / 2,); in float32 whatever the model's dtype

    @torch.no_grad()
    def forward(self, states: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine `(..., d)` of positions `(...)`, in the dtype of the states."""
        angles = positions[..., None].float() * self._frequencies.to(positions.device)  # (..., d / 2)
        both = torch.cat([angles, angles], -1)  # (..., d)
        return both.cos().to(states.dtype), both.sin().to(states.dtype)


class _Attention(nn.Module):
    def __init__(self, sizes: LlamaSizes) -> None:
        super().__init__()
        self.head_dim = sizes.head_dim
        self.scaling = sizes.head_dim**-0.5
        wide, narrow = sizes.num_attention_heads * sizes.head_dim, sizes.num_key_value_heads * sizes.head_dim
        self.q_proj = nn.Linear(sizes.hidden_size, wide, bias=False)
        self.k_proj = nn.Linear(sizes.hidden_size, narrow, bias=False)
        self.v_proj = nn.Linear(sizes.hidden_size, narrow, bias=False)
        self.o_proj = nn.Linear(wide, sizes.hidden_size, bias=False)


class _Gated(nn.Module):
    def __init__(self, sizes: LlamaSizes) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(sizes.hidden_size, sizes.intermediate_size, bias=False)
        self.up_proj = nn.Linear(sizes.hidden_size, sizes.intermediate_size, bias=False)
        self.down_proj = nn.Linear(sizes.intermediate_size, sizes.hidden_size, bias=False)


class _Layer(nn.Module):
    def __init__(self, sizes: LlamaSizes) -> None:
        super().__init__()
        self.self_attn = _Attention(sizes)
        self.mlp = _Gated(sizes)
        self.input_layernorm = _Norm(sizes.hidden_size, sizes.rms_norm_eps)
        self.post_attention_layernorm = _Norm(sizes.hidden_size, sizes.rms_norm_eps)


class _Body(nn.Module):
    def __init__(self, sizes: LlamaSizes) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(sizes.vocab_size, sizes.hidden_size)
        self.layers = nn.ModuleList(_Layer(sizes) for _ in range(sizes.num_hidden_layers))
        self.norm = _Norm(sizes.hidden_size, sizes.rms_norm_eps)
        self.rotary_emb = _Rotary(sizes)


class BuiltinLlama(nn.Module):
    """A built-in model with its weights."""

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        """Load it.

        Args:
            folder: of its checkpoint.
            dtype: of its weights here, whatever they were saved in.
        """
        super().__init__()
        self.folder, self.config = folder, LlamaSizes.read(folder)
        self.generation_config = Ends(json.loads((folder / "generation_config.json").read_text())["eos_token_id"])
        with torch.random.fork_rng(devices=[]):  # what is drawn here, the checkpoint overwrites
            self.model = _Body(self.config)
            self.lm_head = nn.Linear(self.config.hidden_size, self.config.vocab_size, bias=False)
        weights = {name: tensor.to(dtype) for name, tensor in load_file(folder / "model.safetensors").items()}
        self.load_state_dict(weights, assign=True)

    @property
    def device(self) -> torch.device:
        """Where it lies."""
        return self.model.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Of its weights."""
        return self.model.embed_tokens.weight.dtype

    def get_output_embeddings(self) -> nn.Linear:
        """The head."""
        return self.lm_head

    def forward(self, *args: Any, **named: Any) -> Any:
        """What transformers' class makes of it."""
        return self.as_transformers()(*args, **named)

    @property
    def base_model(self) -> Any:
        """The body of transformers' class, without the head."""
        return self.as_transformers().base_model

    def as_transformers(self) -> "PreTrainedModel":
        """The same model in transformers' class, on the same weights, with the adapters that lie in its layers."""
        twin = self._twin
        for name, module in self.named_modules():
            for child, part in module.named_children() if isinstance(module, _Attention | _Gated) else ():
                setattr(twin.get_submodule(name), child, part)
        return twin

    @cached_property
    def _twin(self) -> "PreTrainedModel":
        twin: Any = whole_model(self.folder, self.dtype)
        twin.to(self.device)
        twin.set_input_embeddings(self.model.embed_tokens)
        twin.set_output_embeddings(self.lm_head)
        for name, module in self.named_modules():
            if isinstance(module, _Norm):
                twin.get_submodule(name).weight = module.weight
        whole: PreTrainedModel = twin
        return whole


def whole_model(folder: Path, dtype: torch.dtype) -> "PreTrainedModel":
    """A built-in model as transformers loads it, frozen and in evaluation mode; apart from every other."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    model.eval().requires_grad_(False)
    return model
