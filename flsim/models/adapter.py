"""An adapter is a plain dict of LoRA tensors under peft's own names; here it is made, checked, saved and loaded.

`base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight` is `(r, in)`, `...lora_B.weight` is `(out, r)`.
"""

import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from peft.utils import load_peft_weights
from safetensors.numpy import save_file
from transformers import PreTrainedModel

from flsim.config import ConfigError, ModelConfig
from flsim.seeding import seed_for

Adapter = dict[str, NDArray[np.float32]]


def lora_config(config: ModelConfig) -> LoraConfig:
    """The adapter's shape in peft's words."""
    return LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]
        target_modules=list(config.targets),
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
    )


def initial_adapter(base: PreTrainedModel, config: ModelConfig, seed: int) -> Adapter:
    """The adapter that round 1 starts from: peft's initialisation (A Kaiming-uniform, B zero), or `config.adapter`.

    peft decides which layers are meant and how they are called; `base` is left as it was.

    Raises:
        ConfigError: if no layer matches `config.targets`, or the saved adapter has another rank or base.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(seed, "adapter"))
        try:
            with warnings.catch_warnings():  # transformers 5 deprecates an attribute that peft still reads
                warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
                wrapped = get_peft_model(base, lora_config(config))
        except ValueError as error:
            raise ConfigError(f"model.targets={list(config.targets)} does not fit {config.path!r}: {error}") from error
    state = get_peft_model_state_dict(wrapped)
    fresh = {name: tensor.detach().float().cpu().numpy().copy() for name, tensor in sorted(state.items())}
    wrapped.unload()  # takes the LoRA layers out of `base` again
    if config.adapter is None:
        return fresh
    return load_adapter(Path(config.adapter), like=fresh)


def load_adapter(folder: Path, *, like: Adapter) -> Adapter:
    """Read a saved peft adapter that must have the names and shapes of `like`.

    Raises:
        ConfigError: naming the first tensor that differs, with both shapes.
    """
    if not (folder / "adapter_config.json").is_file():
        raise ConfigError(f"model.adapter={str(folder)!r} holds no peft adapter (no adapter_config.json)")
    loaded = {name: t.float().numpy() for name, t in load_peft_weights(str(folder), device="cpu").items()}
    reason = mismatch(loaded, like)
    if reason is not None:
        raise ConfigError(
            f"model.adapter={str(folder)!r} does not fit: {reason}; set model.rank, model.targets and model.path "
            f"as in its adapter_config.json"
        )
    return {name: loaded[name] for name in like}


def mismatch(adapter: Adapter, like: Adapter) -> str | None:
    """Why `adapter` cannot stand where `like` stands (names, shapes), or None if it can."""
    if adapter.keys() != like.keys():
        missing, extra = sorted(like.keys() - adapter.keys()), sorted(adapter.keys() - like.keys())
        return f"{len(missing)} tensors are missing and {len(extra)} unknown, first {(missing + extra)[0]}"
    for name, expected in like.items():
        if adapter[name].shape != expected.shape:
            return f"{name} has shape {adapter[name].shape}, expected {expected.shape}"
    return None


def save_adapter(folder: Path, adapter: Adapter, config: ModelConfig) -> None:
    """Write the adapter so that `PeftModel.from_pretrained(base, folder)` loads it."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(adapter, folder / "adapter_model.safetensors")
    settings = lora_config(config)
    settings.base_model_name_or_path = config.path
    settings.inference_mode = True
    settings.save_pretrained(str(folder))


def size_in_bytes(adapter: Adapter) -> int:
    """Bytes of the tensors, as they travel."""
    return sum(tensor.nbytes for tensor in adapter.values())
