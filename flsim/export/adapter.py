"""What a run learned as others load it: peft's adapter, the merged checkpoint, one GGUF file; extras lie apart."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from flsim.config.model import ModelConfig
from flsim.config.schema import ConfigError
from flsim.export.gguf_lora import refuse_gguf, write_gguf
from flsim.files import writing
from flsim.models.adapter import HEAD, quiet_peft
from flsim.models.base import load_model
from flsim.models.hub import folder_of, loading

ADAPTER, MERGED, GGUF, APART = "adapter", "merged", "adapter.gguf", "head"
"""What an export calls them; the last holds what devices learned beside LoRA."""
_WEIGHTS, _SETTINGS = "adapter_model.safetensors", "adapter_config.json"


def is_lora(run: Path) -> bool:
    """Whether a run's devices learned a LoRA adapter, and no model of their own."""
    return (run / ADAPTER / _SETTINGS).is_file()


def refuse_formats(run: Path, model: ModelConfig, *, merged: bool, gguf: bool) -> None:
    """Refuse what cannot be made of a run, before anything is written.

    Raises:
        ConfigError: for a run that has not ended, formats of LoRA where there is none, or a base that GGUF cannot name.
    """
    if not (run / ADAPTER).is_dir():
        raise ConfigError(f"{run} has no adapter yet, since it has not ended; go on with it by flsim resume {run}")
    if (merged or gguf) and not is_lora(run):
        raise ConfigError(
            f"{run} learned a module of its own and no LoRA adapter; leave out --merged and --gguf, the module's "
            f"weights are exported as they are"
        )
    if gguf:
        refuse_gguf(base_settings(model))


def export_adapter(run: Path, out: Path) -> list[Path]:
    """Copy what a run learned, what is beside LoRA into a folder of its own; returns the files."""
    made = []
    for file in sorted((run / ADAPTER).iterdir()):
        folder = out / (APART if file.name == HEAD else ADAPTER)
        with writing("the adapter", folder / file.name):
            folder.mkdir(parents=True, exist_ok=True)
            made.append(Path(shutil.copyfile(file, folder / file.name)))
    return made


def export_gguf(run: Path, model: ModelConfig, out: Path, *, name: str) -> Path:
    """Write the adapter as one GGUF file."""
    write_gguf(run / ADAPTER, base_settings(model), out / GGUF, name=name)
    return out / GGUF


def export_merged(run: Path, model: ModelConfig, out: Path) -> Path:
    """Write the base, in its dtype, with the adapter added to its weights, and its tokenizer, as a checkpoint's folder.

    Raises:
        ConfigError: if the base cannot be loaded.
        UnwritableError: if the folder cannot be written.
    """
    from peft import PeftModel

    base = load_model(replace(model, adapter=None))
    with quiet_peft():
        whole: Any = PeftModel.from_pretrained(base.as_transformers(), str(run / ADAPTER)).merge_and_unload()
    with writing("the merged model", out / MERGED):
        whole.save_pretrained(out / MERGED)
        base.tokenizer.save_pretrained(out / MERGED)
    return out / MERGED


def base_settings(model: ModelConfig) -> dict[str, Any]:
    """The base's `config.json`.

    Raises:
        ConfigError: if there is no checkpoint.
    """
    from transformers import AutoConfig

    with loading(model.path):
        settings: dict[str, Any] = AutoConfig.from_pretrained(folder_of(model.path)).to_dict()
    return settings


def scale_of(adapter: Path) -> tuple[int, float]:
    """Rank, and by what the product B A is multiplied."""
    said = json.loads((adapter / _SETTINGS).read_text())
    rank, alpha = int(said["r"]), float(said["lora_alpha"])
    return rank, alpha / (rank**0.5 if said.get("use_rslora") else rank)
