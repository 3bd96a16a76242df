"""Which fields of peft's `LoraConfig` a run may set: those whose mathematics the stacked adapters do."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from peft import LoraConfig

from flsim.config import ConfigError
from flsim.config_model import ModelConfig

ALL_LINEAR = "all-linear"
TAKEN = (
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "init_lora_weights",
    "use_rslora",
)
"""The fields of `model.lora`."""
STARTS = (True, False, "gaussian", "orthogonal")
"""Initialisations that leave the base's weights as they are."""

_ELSEWHERE = {"r": "model.rank", "lora_alpha": "model.alpha"}
_SILENT = (
    *("task_type", "peft_type", "peft_version", "auto_mapping", "base_model_name_or_path", "revision"),
    *("inference_mode", "fan_in_fan_out", "megatron_core", "qalora_group_size", "runtime_config"),
)
_REASONS = {
    "use_dora": "DoRA also scales the columns of the weights, which stacked adapters do not",
    "lora_dropout": "tokens must be scored by the very model that they were sampled from, so nothing is dropped",
    "bias": "only the factors of LoRA are learned and sent",
    "lora_bias": "only the factors of LoRA are learned and sent",
    "modules_to_save": "only the factors of LoRA are learned and sent",
    "trainable_token_indices": "only the factors of LoRA are learned and sent",
    "target_parameters": "only linear layers carry an adapter",
    "rank_pattern": "all layers of a device have one rank (fleet.ranks gives devices ranks of their own)",
    "alpha_pattern": "all layers of a device have one alpha (fleet.alphas gives devices alphas of their own)",
    "init_lora_weights": "it would change the weights of the base, or need data before there are any",
}


def lora_config(config: ModelConfig) -> LoraConfig:
    """The adapter's shape in peft's words.

    Raises:
        ConfigError: for a field in `model.lora` that there is not, that is set elsewhere, or that is not supported.
    """
    given = config.lora
    for name, place in _ELSEWHERE.items():
        if name in given:
            raise ConfigError(f"model.lora.{name}={given[name]!r} has its own place: set {place}")
    known = {field.name for field in fields(LoraConfig)}
    unknown = sorted(given.keys() - known)
    if unknown:
        raise ConfigError(f"model.lora.{unknown[0]} is no field of peft's LoraConfig; set one of: {', '.join(TAKEN)}")
    refuse_unsupported(given, "model.lora")
    if config.targets is not None and "target_modules" in given:
        raise ConfigError("model.targets and model.lora.target_modules say the same thing; leave one of them out")
    targets = ALL_LINEAR if config.targets is None else list(config.targets)
    own = {name: value for name, value in given.items() if name in TAKEN}
    return LoraConfig(**{"target_modules": targets, **own, "task_type": "CAUSAL_LM"} | _size(config))


def _size(config: ModelConfig) -> dict[str, Any]:
    return {"r": config.rank, "lora_alpha": config.alpha, "lora_dropout": 0.0}


def refuse_unsupported(given: Mapping[str, Any], source: str) -> None:
    """Refuse fields of a `LoraConfig` that would act otherwise than the stacked adapters do; unset ones do not count.

    Raises:
        ConfigError: naming `source`, the field and the reason.
    """
    plain = LoraConfig()
    for name, value in given.items():
        default = getattr(plain, name, None)
        unset = value == default or (not value and not default)
        if name in _SILENT or name in _ELSEWHERE or unset or (name in TAKEN and name != "init_lora_weights"):
            continue
        if name == "init_lora_weights" and value in STARTS:
            continue
        why = _REASONS.get(name, "it changes how an adapter acts, in a way that stacked adapters do not know")
        also = f" ({', '.join(map(str, STARTS))} do not)" if name == "init_lora_weights" else ""
        raise ConfigError(f"{source}.{name}={value!r} is not supported: {why}{also}; leave it out")
