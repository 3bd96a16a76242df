"""What an export holds loads elsewhere with the same numbers: in peft, merged, for vLLM and llama.cpp, as tables."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from peft import PeftModel
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM

import flsim
from experiments.command.__main__ import main
from flsim.config.model import ModelConfig
from flsim.config.schema import ConfigError
from flsim.export.adapter import export_merged
from flsim.export.gguf_lora import alpha_of, refuse_gguf
from flsim.export.write import export
from flsim.metrics.measures import MEASURES
from flsim.models.adapter import quiet_peft, save_adapter
from flsim.models.base import first_adapter, load_model
from flsim.models.stacked_lora import StackedLora
from tests.tiny import TinyRun, without_pictures

TINY = ("client={path: 'clients.da_grpo:DaGrpo', steps: 2, prompts: 3, max_new_tokens: 4, lr: 0.05}",)
TOKENS = torch.arange(2, 26).reshape(2, 12)
LAYER = re.compile(r"base_model\.model\.model\.layers\.(\d+)\.(self_attn|mlp)\.(\w+)\.lora_([AB])\.weight")
OURS = {
    **{f"{one}_proj": f"attn_{one}" for one in "qkv"},
    "o_proj": "attn_output",
    **{f"{one}_proj": f"ffn_{one}" for one in ("gate", "up", "down")},
}
"""Layers of a Llama in transformers -> in llama.cpp."""


@pytest.fixture(scope="module")
def run(tiny_runs: TinyRun) -> flsim.Run:
    with without_pictures():
        return flsim.run(tiny_runs("run"), progress=False)


@pytest.fixture(scope="module")
def out(run: flsim.Run) -> Path:
    folder = run.folder.parent / "shared" / "run"
    assert main(["export", str(run.folder), str(folder), "--merged", "--gguf"]) == 0
    return folder


def base_of(checkpoint: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(checkpoint).eval()


@torch.no_grad()
def test_peft_and_the_merged_model_say_what_the_run_s_factors_say(out: Path, tiny_checkpoint: Path) -> None:
    """By hand: every layer's weight plus alpha / r B A, with alpha 16 and r 2."""
    plain = base_of(tiny_checkpoint)
    before = plain(TOKENS).logits
    factors = load_file(out / "adapter" / "adapter_model.safetensors")
    for name, module in plain.named_modules():
        a, b = (factors.get(f"base_model.model.{name}.lora_{one}.weight") for one in "AB")
        if a is not None and b is not None:
            module.weight += torch.from_numpy(8.0 * (b @ a))
    wanted = plain(TOKENS).logits
    assert (wanted - before).abs().max() > 1e-3
    with quiet_peft():
        loaded = PeftModel.from_pretrained(base_of(tiny_checkpoint), str(out / "adapter"))
    for found in (loaded, base_of(out / "merged")):
        torch.testing.assert_close(found(TOKENS).logits, wanted, rtol=1e-4, atol=1e-4)  # sums go in another order


@torch.no_grad()
def test_a_built_in_base_is_merged_into_a_checkpoint_of_transformers(tmp_path: Path) -> None:
    config = ModelConfig(rank=2)
    base = load_model(config)
    adapter = first_adapter(config, 0)
    drawn = np.random.default_rng(0)
    learned = {name: drawn.normal(0, 0.1, value.shape).astype(np.float32) for name, value in adapter.items()}
    save_adapter(tmp_path / "run" / "adapter", learned, config)
    found = AutoModelForCausalLM.from_pretrained(export_merged(tmp_path / "run", config, tmp_path)).eval()
    lora = StackedLora(base.model, adapter, config.shape.scale)
    lora.attach(lora.stack([learned]))
    read, _ = base.forward.read(TOKENS[None], torch.ones(1, *TOKENS.shape, dtype=torch.bool))
    torch.testing.assert_close(found(TOKENS).logits[:, -1], read.logits, rtol=1e-4, atol=1e-4)


def test_what_is_learned_beside_lora_lies_apart(out: Path) -> None:
    assert sorted(file.name for file in (out / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert (out / "head" / "head.safetensors").is_file()
    assert "| `head/` | what devices learned beside LoRA" in (out / "README.md").read_text()


def test_vllm_reads_what_it_asks_of_an_adapter(out: Path) -> None:
    """Its PEFTHelper: r, lora_alpha and target_modules must be there, modules_to_save and DoRA must not, nor biases."""
    said = json.loads((out / "adapter" / "adapter_config.json").read_text())
    assert (said["peft_type"], said["r"], said["lora_alpha"]) == ("LORA", 2, 16.0)
    assert set(said["target_modules"]) == set(OURS)
    assert (said["bias"], said["modules_to_save"], said["use_dora"], said["use_rslora"]) == ("none", None, False, False)
    names = load_file(out / "adapter" / "adapter_model.safetensors")
    assert all(LAYER.fullmatch(name) for name in names)
    assert "--max-lora-rank 8" in (out / "README.md").read_text()


def test_llama_cpp_gets_its_own_names_and_its_own_order_of_rows(out: Path, tiny_checkpoint: Path) -> None:
    """The rows of queries and keys are turned as transformers turns them back when it reads a GGUF file."""
    from gguf import GGUFReader
    from transformers.modeling_gguf_pytorch_utils import LlamaTensorProcessor

    reader = GGUFReader(out / "adapter.gguf")
    said = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    assert said == {
        "general.architecture": "llama",
        "general.type": "adapter",
        "general.name": "run",
        "general.file_type": 0,
        "adapter.type": "lora",
        "adapter.lora.alpha": 16.0,
    }
    assert reader.fields["adapter.lora.alpha"].types[0].name == "FLOAT32"
    held = {tensor.name: tensor.data for tensor in reader.tensors}
    factors = load_file(out / "adapter" / "adapter_model.safetensors")
    assert len(held) == len(factors)
    heads = {"q_proj": 2, "k_proj": 2}
    turns: Any = LlamaTensorProcessor(config={})
    for name, tensor in factors.items():
        found = LAYER.fullmatch(name)
        assert found is not None
        layer, _, kind, factor = found.groups()
        data = held[f"blk.{layer}.{OURS[kind]}.weight.lora_{factor.lower()}"]
        if factor == "B" and kind in heads:
            assert not np.array_equal(data, tensor)
            data = turns._reverse_permute_weights(data, heads[kind], heads[kind])
        np.testing.assert_array_equal(data, tensor)


def test_a_scale_by_the_root_of_the_rank_becomes_an_alpha(tmp_path: Path) -> None:
    """With rsLoRA 16 / sqrt(4) = 8; llama.cpp divides by 4, so that alpha must be 32."""
    said = {"r": 4, "lora_alpha": 16, "use_rslora": True}
    (tmp_path / "adapter_config.json").write_text(json.dumps(said))
    assert alpha_of(tmp_path) == 32.0


def test_tables_are_the_run_s_and_the_dictionary_knows_all_of_them(run: flsim.Run, out: Path) -> None:
    rows, users = pd.read_parquet(out / "rows.parquet"), pd.read_parquet(out / "users.parquet")
    pd.testing.assert_frame_equal(rows, run.rows)
    pd.testing.assert_frame_equal(users, run.users)
    told = pd.read_csv(out / "dictionary.csv", keep_default_na=False)
    assert list(told.columns) == ["table", "name", "unit", "meaning", "measures"]
    by_table = {table: list(part["name"]) for table, part in told.groupby("table")}
    assert by_table["rows"] == list(rows.columns)
    assert by_table["rows: name"] == sorted(rows["name"].unique())
    assert by_table["users"] == list(users.columns)
    assert (told["meaning"].str.len() > 15).all()
    assert (told["unit"] != "").all()
    accuracy = told[(told["table"] == "users") & (told["name"] == "accuracy")].iloc[0]
    assert (accuracy["unit"], accuracy["meaning"]) == ("share", MEASURES["accuracy"].meaning)


def test_csv_says_the_same_in_full(run: flsim.Run, tmp_path: Path) -> None:
    export(run.folder, tmp_path / "csv", form="csv")
    read = pd.read_csv(tmp_path / "csv" / "rows.csv", keep_default_na=False)
    for column in run.rows.columns:
        assert list(read[column]) == list(run.rows[column])
    assert not (tmp_path / "csv" / "merged").exists()


def test_what_cannot_be_exported_is_one_sentence(
    run: flsim.Run, out: Path, tmp_path: Path, tiny_run: TinyRun, no_report: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(run.folder), str(out)]) == 2
    assert (
        capsys.readouterr().err == f"error: {out} is there already and not empty; name another folder, or delete it\n"
    )
    with pytest.raises(ConfigError, match=r"is no run: it has no config.yaml; .* tables.tex and tables.md"):
        export(tmp_path, tmp_path / "x")
    with pytest.raises(ConfigError, match=r"of type 'gpt2'; give the exported adapter/ to llama.cpp's own"):
        refuse_gguf({"model_type": "gpt2"})
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "config.yaml").write_bytes((run.folder / "config.yaml").read_bytes())
    with pytest.raises(ConfigError, match=rf"has no adapter yet, since it has not ended; .* flsim resume {begun}"):
        export(begun, tmp_path / "x")
    assert not (tmp_path / "x").exists()
