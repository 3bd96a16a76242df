"""The settings of LoRA in peft's words: what a config asks for, what is refused, and the file beside a saved adapter.

peft brings all of transformers with it, which takes seconds, so it is asked only about fields that a config sets by
itself (`model.lora`). Its defaults stand here, and a test compares them with those of the peft that is installed.
"""

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from flsim.config.model import ModelConfig
from flsim.config.schema import ConfigError
from flsim.models.hub import BUILTIN, layers_of

if TYPE_CHECKING:
    from peft import LoraConfig

ALL_LINEAR = "all-linear"
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""What that means of the Llama family."""
DEFAULTS: Mapping[str, Any] = MappingProxyType(
    dict.fromkeys(
        (
            *("task_type", "auto_mapping", "base_model_name_or_path", "revision", "target_modules", "exclude_modules"),
            *("modules_to_save", "layers_to_transform", "layers_pattern", "megatron_config", "trainable_token_indices"),
            *("eva_config", "corda_config", "lora_ga_config", "velora_config", "alora_invocation_tokens"),
            *("monteclora_config", "layer_replication", "target_parameters", "use_bdlora", "arrow_config"),
            "kasa_config",
        )
    )
    | dict.fromkeys(("inference_mode", "fan_in_fan_out", "use_rslora", "use_dora", "use_qalora", "lora_bias"), False)
    | {"peft_type": "LORA", "r": 8, "lora_alpha": 8, "lora_dropout": 0.0, "bias": "none", "init_lora_weights": True}
    | {"rank_pattern": {}, "alpha_pattern": {}, "loftq_config": {}, "megatron_core": "megatron.core"}
    | {"qalora_group_size": 16, "ensure_weight_tying": False}
)
"""What peft 0.21 says of a `LoraConfig` of which nothing is set; to it belong `peft_version` and `runtime_config`."""
TAKEN = (
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "init_lora_weights",
    "use_rslora",
)
"""The fields of peft's `LoraConfig` that `model.lora` may set: those whose mathematics the stacked adapters do."""
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


def lora_config(config: ModelConfig) -> "LoraConfig":
    """The adapter's shape in peft's words.

    Raises:
        ConfigError: for what `refuse_lora` refuses, or peft.
    """
    refuse_lora(config)
    from peft import LoraConfig

    targets = ALL_LINEAR if config.targets is None else list(config.targets)
    own = {name: value for name, value in config.lora.items() if name in TAKEN}
    try:
        return LoraConfig(**{"target_modules": targets, **own, "task_type": "CAUSAL_LM"} | _size(config))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"model.lora={config.lora} is refused by peft: {error}") from error


def refuse_lora(config: ModelConfig) -> None:
    """Refuse what is wrong with an adapter's settings, as far as that can be told at once, without peft.

    Raises:
        ConfigError: for a field in `model.lora` that there is not, that is set elsewhere, or that is not supported, and
            for targets of which a built-in model has none.
    """
    given = config.lora
    for name, place in _ELSEWHERE.items():
        if name in given:
            raise ConfigError(f"model.lora.{name}={given[name]!r} has its own place: set {place}")
    unknown = sorted(given.keys() - {*DEFAULTS, "peft_version", "runtime_config"})
    if unknown:
        raise ConfigError(f"model.lora.{unknown[0]} is no field of peft's LoraConfig; set one of: {', '.join(TAKEN)}")
    refuse_unsupported(given, "model.lora")
    if config.targets is not None and "target_modules" in given:
        raise ConfigError("model.targets and model.lora.target_modules say the same thing; leave one of them out")
    layers = layers_of(config.path) if config.path.startswith(BUILTIN) and config.targets is not None else []
    if layers and not any(f".{layer}".endswith(f".{target}") for layer in layers for target in config.targets or ()):
        raise ConfigError(
            f"model.targets={list(config.targets or ())} does not fit {config.path!r}, which has no such layer; its "
            f"linear layers are: {', '.join(LINEAR)}"
        )


def _size(config: ModelConfig) -> dict[str, Any]:
    return {"r": config.rank, "lora_alpha": config.alpha, "lora_dropout": 0.0}


def refuse_unsupported(given: Mapping[str, Any], source: str) -> None:
    """Refuse fields of a `LoraConfig` that would act otherwise than the stacked adapters do; unset ones do not count.

    Raises:
        ConfigError: naming `source`, the field and the reason.
    """
    for name, value in given.items():
        default = DEFAULTS.get(name)
        unset = value == default or (not value and not default)
        if name in _SILENT or name in _ELSEWHERE or unset or (name in TAKEN and name != "init_lora_weights"):
            continue
        if name == "init_lora_weights" and value in STARTS:
            continue
        why = _REASONS.get(name, "it changes how an adapter acts, in a way that stacked adapters do not know")
        also = f" ({', '.join(map(str, STARTS))} do not)" if name == "init_lora_weights" else ""
        raise ConfigError(f"{source}.{name}={value!r} is not supported: {why}{also}; leave it out")


def saved_settings(config: ModelConfig, factors: Iterable[str]) -> dict[str, Any]:
    """What `adapter_config.json` says beside an adapter.

    Args:
        config: of the model.
        factors: names of the adapter's tensors, from which come the names of its layers where all linear ones are
            meant: these every version of peft reads alike.
    """
    given = {**DEFAULTS, **_size(config), "task_type": "CAUSAL_LM"}
    if config.lora:
        given = dict(lora_config(config).to_dict())  # type: ignore[no-untyped-call]
    targets = config.targets or given["target_modules"] or ALL_LINEAR
    if targets == ALL_LINEAR:
        targets = {name.split(".lora_")[0].rpartition(".")[2] for name in factors}
    own = {"target_modules": targets if isinstance(targets, str) else sorted(targets), "inference_mode": True}
    own |= {"base_model_name_or_path": config.path, "peft_version": version("peft")}
    return {name: sorted(value) if isinstance(value, set) else value for name, value in {**given, **own}.items()}
