"""A LoRA adapter as one GGUF file, as llama.cpp takes it (`--lora FILE`): what its `convert_lora_to_gguf.py` writes.

    general.type = adapter      general.architecture = of the base      adapter.type = lora
    adapter.lora.alpha = alpha as float32; llama.cpp adds alpha / rank B A to a weight
    blk.0.attn_q.weight.lora_a  A (r, in)      blk.0.attn_q.weight.lora_b  B (out, r), both float32

llama.cpp turns the rows of a Llama's queries and keys round within each head, since it rotates neighbouring pairs and
transformers rotates halves; the rows of their B turn with them.
"""

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from flsim.config.schema import ConfigError
from flsim.files import writing
from flsim.models.adapter import factor_of

_PEFT = "base_model.model."
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""Model types of transformers whose layers are named and turned as here -> what llama.cpp calls them."""
_TURNED = "llama"  # the architecture whose queries and keys are


def refuse_gguf(settings: dict[str, Any]) -> None:
    """Refuse what cannot be written, before anything is.

    Args:
        settings: of the base, its `config.json`.

    Raises:
        ConfigError: if the package `gguf` is missing, or the base is of another architecture.
    """
    if importlib.util.find_spec("gguf") is None:
        raise ConfigError("--gguf is written by the package gguf: pip install gguf (the extra gguf)")
    kind = settings.get("model_type")
    if kind not in ARCHITECTURES:
        raise ConfigError(
            f"--gguf knows the layers of {', '.join(ARCHITECTURES)}, and the base is of type {kind!r}; give the "
            f"exported adapter/ to llama.cpp's own convert_lora_to_gguf.py"
        )


def write_gguf(adapter: Path, settings: dict[str, Any], path: Path, *, name: str) -> None:
    """Write the file.

    Args:
        adapter: folder of an adapter in peft's format.
        settings: of the base, its `config.json`.
        path: of the file.
        name: what the adapter is called in it.

    Raises:
        ConfigError: as `refuse_gguf`, or for a layer that llama.cpp has no name for.
        UnwritableError: if it cannot be written.
    """
    refuse_gguf(settings)
    from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, GGUFType, GGUFWriter, Keys, LlamaFileType, get_tensor_name_map

    called = ARCHITECTURES[settings["model_type"]]
    architecture = next(one for one in MODEL_ARCH if MODEL_ARCH_NAMES[one] == called)
    names = get_tensor_name_map(architecture, int(settings["num_hidden_layers"]))
    tensors: dict[str, NDArray[np.float32]] = {}
    for peft_name, tensor in sorted(load_file(adapter / "adapter_model.safetensors").items()):
        layer, _, _ = peft_name.removeprefix(_PEFT).rpartition(".lora_")
        ours = names.get_name(layer)
        if ours is None:
            raise ConfigError(f"--gguf: llama.cpp has no name for {layer}; leave it out of model.targets")
        factor = factor_of(peft_name)
        own = tensor.astype(np.float32)
        tensors[f"{ours}.weight.lora_{factor.lower()}"] = _turned(layer, own, settings) if factor == "B" else own
    with writing("the adapter for llama.cpp", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = GGUFWriter(path, called)
        writer.add_type(GGUFType.ADAPTER)
        writer.add_name(name)
        writer.add_file_type(LlamaFileType.ALL_F32)
        writer.add_string(Keys.Adapter.TYPE, "lora")
        writer.add_float32(Keys.Adapter.LORA_ALPHA, alpha_of(adapter))
        for own_name, tensor in tensors.items():
            writer.add_tensor(own_name, tensor)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def alpha_of(adapter: Path) -> float:
    """The alpha whose quotient by the rank is the adapter's scale, which with rsLoRA is alpha / sqrt(r)."""
    said = json.loads((adapter / "adapter_config.json").read_text())
    rank, alpha = int(said["r"]), float(said["lora_alpha"])
    return alpha * rank**0.5 if said.get("use_rslora") else alpha


def _turned(layer: str, b: NDArray[np.float32], settings: dict[str, Any]) -> NDArray[np.float32]:
    """B `(out, r)` of a layer with its rows as llama.cpp has them: of each head, one of its halves after the other."""
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(layer.rpartition(".")[2])
    if heads is None or ARCHITECTURES[settings["model_type"]] != _TURNED:
        return b
    count = int(settings.get(heads) or settings["num_attention_heads"])
    pairs = b.reshape(count, 2, len(b) // count // 2, b.shape[1])  # (heads, halves, pairs, r)
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(b.shape))  # (out, r)
