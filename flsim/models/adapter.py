"""An adapter is a plain dict of LoRA tensors under peft's own names; here it is made, checked, saved and loaded.

`base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight` is `(r, in)`, `...lora_B.weight` is `(out, r)`. After
them may stand extras, whatever else devices learn, under names that no LoRA factor has: `head.weight`, `head.bias`, of
any shape. They have no rank: what cuts, fills or multiplies factors leaves them as they are.
"""

import json
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save
from safetensors.torch import load_file

from flsim.config.model import LoraShape, ModelConfig
from flsim.config.schema import ConfigError
from flsim.files import write_atomically
from flsim.models.builtin_llama import AnyModel, BuiltinLlama, whole_model
from flsim.models.llama import fits
from flsim.models.lora_settings import LINEAR, lora_config, refuse_unsupported, saved_settings
from flsim.seeding import seed_for

WEIGHTS, HEAD = "adapter_model.safetensors", "head.safetensors"
"""The files of an adapter's factors, and of its extras, which peft does not know."""
PREFIX = "base_model.model."
"""What peft puts before the name of a layer."""

Adapter = dict[str, NDArray[np.float32]]


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Around peft's wrapping of a model: transformers 5 deprecates an attribute that peft still reads."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        yield


def initial_adapter(base: AnyModel, config: ModelConfig, seed: int, extras: Mapping[str, NDArray[Any]] = {}) -> Adapter:
    """The adapter that round 1 starts from: peft's initialisation (by default B is zero), or a saved one.

    peft decides which layers are meant and how they are called, but for those of the Llama family, which are known;
    `base` is left as it was.

    Args:
        base: the frozen model.
        config: the adapter's shape, and where a saved one lies.
        seed: of the run.
        extras: what devices learn beside LoRA, as it is at first; they stand last, in this order.

    Raises:
        ConfigError: if a field of `config.lora` is not supported, no layer matches the targets, one that matches is not
            linear, an extra has the name of a LoRA factor or holds NaN, or the saved adapter (`config.adapter`) has
            another rank, alpha or base, or extras of other shapes.
    """
    more = _checked(extras)
    fresh = (_drawn(base, config, seed) if _is_plain(base, config) else _by_peft(base, config, seed)) | more
    if config.adapter is None:
        return fresh
    return load_adapter(Path(config.adapter), like=fresh, config=config)


def _is_plain(base: AnyModel, config: ModelConfig) -> bool:
    """Whether it is known without peft, which takes seconds to import, which layers are meant, and how they begin."""
    if not fits(base) or config.lora or not set(config.targets or LINEAR) <= set(LINEAR):
        return False
    return all(type(layer) is torch.nn.Linear for _, layer in _layers(base, LINEAR))  # another may be quantized


def _layers(base: AnyModel, names: Sequence[str]) -> list[tuple[str, torch.nn.Module]]:
    """The layers of these names in all blocks, in their order."""
    ends = tuple(f".{name}" for name in names)
    return [(name, layer) for name, layer in base.named_modules() if name.endswith(ends)]


def _drawn(base: AnyModel, config: ModelConfig, seed: int) -> Adapter:
    """What `_by_peft` gives of a model of the Llama family, without peft."""
    found: Adapter = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(seed, "adapter"))
        for name, layer in _layers(base, config.targets or LINEAR):
            if isinstance(layer, torch.nn.Linear):
                a = torch.nn.Linear(layer.in_features, config.rank, bias=False)
                torch.nn.Linear(config.rank, layer.out_features, bias=False)  # peft draws B before it sets it to zero
                torch.nn.init.kaiming_uniform_(a.weight, a=math.sqrt(5))
                found[f"{PREFIX}{name}.lora_A.weight"] = a.weight.detach().to(base.dtype).float().numpy()  # (r, in)
                found[f"{PREFIX}{name}.lora_B.weight"] = np.zeros((layer.out_features, config.rank), np.float32)
    return dict(sorted(found.items()))


def _by_peft(base: AnyModel, config: ModelConfig, seed: int) -> Adapter:
    """LoRA's factors as peft makes them; `base` is left as it was."""
    from peft import get_peft_model, get_peft_model_state_dict

    settings = lora_config(config)
    whole = whole_model(base.folder, base.dtype) if isinstance(base, BuiltinLlama) else base
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(seed, "adapter"))
        try:
            with quiet_peft():
                wrapped = get_peft_model(whole, settings)
        except (ValueError, re.error) as error:  # a target may be a regular expression
            given = "lora.target_modules" if config.targets is None else "targets"
            named = settings.target_modules if config.targets is None else list(config.targets)
            raise ConfigError(f"model.{given}={named!r} does not fit {config.path!r}: {error}") from error
    strange = next((name for name, module in wrapped.named_modules() if _is_strange(module)), None)
    if strange is not None:
        wrapped.unload()
        raise ConfigError(f"the targets match {strange}, which is no linear layer; leave it out of model.targets")
    state = get_peft_model_state_dict(wrapped)
    fresh = {name: tensor.detach().float().cpu().numpy().copy() for name, tensor in sorted(state.items())}
    wrapped.unload()  # takes the LoRA layers out of `base` again
    return fresh


def _checked(extras: Mapping[str, NDArray[Any]]) -> Adapter:
    """Extras in float32, if they may stand beside LoRA's tensors."""
    for name, tensor in extras.items():
        if factor_of(name):
            raise ConfigError(
                f"the client's devices learn {name!r} beside LoRA, and that is the name of a LoRA factor; call it "
                f"otherwise, such as head.weight"
            )
        if not np.isfinite(tensor).all():
            raise ConfigError(f"the client's {name!r} begins with NaN or infinity; let it begin with finite numbers")
    return {name: np.array(tensor, np.float32, order="C") for name, tensor in extras.items()}


def _is_strange(module: torch.nn.Module) -> bool:
    """Whether it carries an adapter and is no linear layer."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return isinstance(module, BaseTunerLayer) and not isinstance(module.get_base_layer(), torch.nn.Linear)


def load_adapter(folder: Path, *, like: Adapter, config: ModelConfig | None = None) -> Adapter:
    """Read a saved peft adapter that must have the names and shapes of `like`, and the scale that a `config` asks for.

    Extras of `like` are read from the folder, too, if it holds any; else they are those of `like` (`told_of_head`).

    Raises:
        ConfigError: naming the first tensor that differs, with both shapes, or the setting that does; and for an
            adapter that peft would apply otherwise than by its factors alone.
    """
    if not (folder / "adapter_config.json").is_file():
        raise ConfigError(f"model.adapter={str(folder)!r} holds no peft adapter (no adapter_config.json)")
    saved = json.loads((folder / "adapter_config.json").read_text())
    refuse_unsupported(saved, f"model.adapter={str(folder)!r}: its adapter_config.json")
    loaded = {name: tensor.float().numpy() for name, tensor in _weights(folder).items()}
    reason = mismatch(loaded, lora_of(like))
    theirs = LoraShape(int(saved["r"]), float(saved["lora_alpha"]), bool(saved.get("use_rslora", False)))
    if reason is None and config is not None and theirs != config.shape:
        reason = f"it is of {theirs}, the run asks for {config.shape}"
    if reason is not None:
        raise ConfigError(
            f"model.adapter={str(folder)!r} does not fit: {reason}; set model.rank, model.targets and model.path "
            f"as in its adapter_config.json: model.rank={theirs.rank}, model.alpha={theirs.alpha:g}, "
            f"model.lora.use_rslora={str(theirs.rslora).lower()}, target_modules {saved.get('target_modules')}, "
            f"base {saved.get('base_model_name_or_path')!r}"
        )
    loaded |= _loaded_head(folder / HEAD, extras_of(like))
    return {name: loaded[name] for name in like}


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of a saved adapter; in an older format than that of safetensors, peft reads them."""
    file = folder / WEIGHTS
    if file.is_file():
        return load_file(file)
    from peft.utils import load_peft_weights

    return dict(load_peft_weights(str(folder), device="cpu"))


def _loaded_head(file: Path, fresh: Adapter) -> Adapter:
    """The extras that a file holds; `fresh` where there are none to read."""
    if not fresh or not file.is_file():
        return fresh
    try:
        loaded = {name: tensor.astype(np.float32) for name, tensor in load(file.read_bytes()).items()}
        reason = mismatch(loaded, fresh)
    except (OSError, SafetensorError) as error:
        reason = f"it cannot be read ({error})"
    if reason is not None:
        raise ConfigError(
            f"{file} is not what the run's devices learn beside LoRA: {reason}; set client as in the run that saved "
            f"it, or move the file away and begin with fresh ones"
        )
    return loaded


def told_of_head(folder: Path, adapter: Adapter) -> str | None:
    """What a user should know of the extras of a run that begins with the adapter saved in a folder; None is nothing.

    Args:
        folder: the saved one's.
        adapter: the run's first.
    """
    extras, there = extras_of(adapter), (folder / HEAD).is_file()
    if extras and not there:
        return f"model.adapter={str(folder)!r} holds no {HEAD}: {', '.join(extras)} begin anew"
    if there and not extras:
        return f"model.adapter={str(folder)!r} holds a {HEAD}, which this run's devices do not learn: it is left out"
    return None


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
    """Write the adapter so that `PeftModel.from_pretrained(base, folder)` loads it; extras go into a file of their own.

    It is there only if there are any, so that nobody goes on with those of another adapter.
    """
    factors, extras = lora_of(adapter), extras_of(adapter)
    write_atomically(folder / WEIGHTS, save(factors), what="the adapter")
    if extras:
        write_atomically(folder / HEAD, save(extras), what="what is learned beside LoRA")
    else:
        (folder / HEAD).unlink(missing_ok=True)
    settings = json.dumps(saved_settings(config, factors), indent=2, sort_keys=True)
    write_atomically(folder / "adapter_config.json", settings.encode(), what="the adapter's settings")


def factor_of(name: str) -> str:
    """Which factor of the product a tensor is by its name: `A` or `B`; of no LoRA tensor of the run's shape, nothing.

    What a module has of its own LoRA (`...lora_A.default.weight`) is of another rank, and learned as any parameter is.
    """
    return "A" if name.endswith(".lora_A.weight") else "B" if name.endswith(".lora_B.weight") else ""


def lora_of(adapter: Adapter) -> Adapter:
    """LoRA's tensors alone."""
    return {name: tensor for name, tensor in adapter.items() if factor_of(name)}


def extras_of(adapter: Adapter) -> Adapter:
    """What is learned beside them."""
    return {name: tensor for name, tensor in adapter.items() if not factor_of(name)}


def only(adapter: Adapter, factors: str) -> Adapter:
    """The tensors of some factors: `A`, `B`, `AB` for all, or the empty string for none.

    Tensors that are no LoRA factors go with everything but nothing.
    """
    return {name: tensor for name, tensor in adapter.items() if factors and factor_of(name) in factors}


def cropped(adapter: Adapter, shape: LoraShape, old: LoraShape) -> Adapter:
    """The first directions of an adapter, for a device of another rank and alpha; the adapter itself if both are equal.

    Its product is the same as that of the first `shape.rank` directions was: B takes up the quotient of the scales.
    """
    if shape == old:
        return adapter
    factor = np.float32(old.scale / shape.scale)
    part = {
        name: tensor[: shape.rank].copy() if factor_of(name) == "A" else tensor[:, : shape.rank] * factor
        for name, tensor in lora_of(adapter).items()
    }
    return part | extras_of(adapter)


def widened(adapter: Adapter, shape: LoraShape, new: LoraShape, rest: Adapter | None = None) -> Adapter:
    """The inverse of `cropped`: filled up to a larger rank, B divided by the quotient of the scales.

    Args:
        adapter: of `shape`; it may hold a part of the tensors only.
        shape: rank and alpha that it has.
        new: those that it gets.
        rest: an adapter of `new` that has the missing directions; None fills with zeros.
    """
    if shape == new:
        return adapter
    factor, missing = np.float32(shape.scale / new.scale), new.rank - shape.rank
    wide = {}
    for name, tensor in lora_of(adapter).items():
        if factor_of(name) == "A":
            more = np.zeros((missing, tensor.shape[1]), np.float32) if rest is None else rest[name][shape.rank :]
            wide[name] = np.concatenate([tensor, more], 0)
        else:
            more = np.zeros((len(tensor), missing), np.float32) if rest is None else rest[name][:, shape.rank :]
            wide[name] = np.concatenate([tensor * factor, more], 1)
    return wide | extras_of(adapter)


def stacked(adapter: Adapter, shape: LoraShape, residual: Adapter) -> tuple[Adapter, int]:
    """Adapter and residual (of scale 1) as one adapter of scale 1, and its rank, the sum of both."""
    most = max(len(tensor) for name, tensor in residual.items() if factor_of(name) == "A")
    joined = {}
    for name, tensor in lora_of(adapter).items():
        axis = 0 if factor_of(name) == "A" else 1
        own = tensor if axis == 0 else tensor * np.float32(shape.scale)
        missing = [(0, 0), (0, 0)]
        missing[axis] = (0, most - residual[name].shape[axis])
        joined[name] = np.ascontiguousarray(np.concatenate([own, np.pad(residual[name], missing)], axis))
    return joined | extras_of(adapter), shape.rank + most
