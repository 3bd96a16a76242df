import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from flsim.config.model import ModelConfig
from flsim.config.schema import ConfigError
from flsim.models.adapter import Adapter, initial_adapter, load_adapter, mismatch, save_adapter
from flsim.models.base import load_base
from flsim.models.stacked_lora import StackedLora

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def config(tiny_checkpoint: Path) -> ModelConfig:
    return ModelConfig(path=str(tiny_checkpoint), rank=3, alpha=5.0)


@pytest.fixture
def model(config: ModelConfig) -> PreTrainedModel:
    return load_base(config.path).as_transformers()


def logits(model: torch.nn.Module) -> Tensor:
    ids = torch.randint(44, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found: Tensor = model(input_ids=ids).logits
    return found


def learned(like: Adapter, seed: int = 0) -> Adapter:
    """An adapter that says something (the initial one has B = 0)."""
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, 0.2, tensor.shape).astype(np.float32) for name, tensor in like.items()}


def equal(first: Adapter, second: Adapter) -> bool:
    return list(first) == list(second) and all(np.array_equal(first[name], second[name]) for name in first)


def test_initial_adapter_is_a_function_of_the_seed(model: PreTrainedModel, config: ModelConfig) -> None:
    first = initial_adapter(model, config, 0)
    torch.manual_seed(123)
    assert equal(first, initial_adapter(load_base(config.path).model, config, 0))
    other = initial_adapter(model, config, 1)
    for name, tensor in first.items():
        assert tensor.dtype == np.float32
        if "lora_A" in name:
            assert not np.array_equal(tensor, other[name])
            assert np.abs(tensor).max() > 0
        else:
            assert not tensor.any()


def test_initial_adapter_leaves_torchs_generator_alone(model: PreTrainedModel, config: ModelConfig) -> None:
    before = torch.random.get_rng_state()
    initial_adapter(model, config, 0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_shapes_by_hand(model: PreTrainedModel, config: ModelConfig) -> None:
    """Rank 3, width 32, MLP width 48, 2 layers: 4 projections 32 x 32 and 3 between 32 and 48.

    Parameters: 2 x 3 x (4 x (32 + 32) + 3 x (32 + 48)) = 2976, of 4 bytes.
    """
    adapter = initial_adapter(model, config, 0)
    prefix = "base_model.model.model.layers.1."
    assert len(adapter) == 2 * 7 * 2
    assert adapter[f"{prefix}self_attn.q_proj.lora_A.weight"].shape == (3, 32)
    assert adapter[f"{prefix}mlp.gate_proj.lora_B.weight"].shape == (48, 3)
    assert sum(tensor.nbytes for tensor in adapter.values()) == 2976 * 4


def test_initial_adapter_leaves_the_base_as_it_was(model: PreTrainedModel, config: ModelConfig) -> None:
    """The same outputs bit for bit, the same modules, the same parameters, nothing that learns."""
    types = {name: type(module) for name, module in model.named_modules()}
    parameters = {name: tensor.clone() for name, tensor in model.named_parameters()}
    before = logits(model)
    for seed in (0, 1):  # a second time, too
        initial_adapter(model, config, seed)
        assert torch.equal(logits(model), before)
        assert {name: type(module) for name, module in model.named_modules()} == types
        assert {name for name, _ in model.named_parameters()} == parameters.keys()
        assert all(torch.equal(tensor, parameters[name]) for name, tensor in model.named_parameters())
        assert not any(tensor.requires_grad for tensor in model.parameters())


def test_saved_adapter_speaks_alike_in_peft(model: PreTrainedModel, config: ModelConfig, tmp_path: Path) -> None:
    """`PeftModel.from_pretrained` gives the logits of `StackedLora`: the scale alpha / r = 5/3 travels with it."""
    like = initial_adapter(model, config, 0)
    adapter = learned(like)
    save_adapter(tmp_path / "adapter", adapter, config)
    by_peft = logits(PeftModel.from_pretrained(load_base(config.path).model, str(tmp_path / "adapter")).eval())
    lora = StackedLora(model, like, config.alpha / config.rank)
    lora.attach(lora.stack([adapter]))
    assert (by_peft - logits(load_base(config.path).model)).abs().max() > 0.1
    torch.testing.assert_close(logits(lora.model), by_peft, atol=1e-5, rtol=0)


def test_saving_and_loading_is_bit_exact(model: PreTrainedModel, config: ModelConfig, tmp_path: Path) -> None:
    like = initial_adapter(model, config, 0)
    adapter = learned(like)
    save_adapter(tmp_path, adapter, config)
    assert equal(load_adapter(tmp_path, like=like), adapter)
    assert equal(initial_adapter(model, replace(config, adapter=str(tmp_path)), 7), adapter)
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"], settings["base_model_name_or_path"]) == (3, 5.0, config.path)


def test_an_adapter_that_peft_saved_loads(model: PreTrainedModel, config: ModelConfig, tmp_path: Path) -> None:
    """The other way round: what `PeftModel.save_pretrained` writes is an adapter of ours."""
    like = initial_adapter(model, config, 0)
    save_adapter(tmp_path / "ours", learned(like), config)
    PeftModel.from_pretrained(load_base(config.path).model, str(tmp_path / "ours")).save_pretrained(
        str(tmp_path / "theirs")
    )
    assert equal(load_adapter(tmp_path / "theirs", like=like), learned(like))


def test_another_rank_is_refused(model: PreTrainedModel, config: ModelConfig, tmp_path: Path) -> None:
    wide = replace(config, rank=4)
    save_adapter(tmp_path, initial_adapter(model, wide, 0), wide)
    with pytest.raises(ConfigError) as caught:
        initial_adapter(model, replace(config, adapter=str(tmp_path)), 0)
    message = str(caught.value)
    assert f"model.adapter={str(tmp_path)!r}" in message
    assert "layers.0.mlp.down_proj.lora_A.weight has shape (4, 48), expected (3, 48)" in message
    assert "set model.rank" in message


def test_another_base_is_refused(model: PreTrainedModel, config: ModelConfig, tmp_path: Path) -> None:
    """One of other layers: here an adapter of attention only, where all layers are asked for."""
    narrow = replace(config, targets=("q_proj", "v_proj"))
    save_adapter(tmp_path, initial_adapter(model, narrow, 0), narrow)
    with pytest.raises(ConfigError, match=r"20 tensors are missing and 0 unknown, first .*down_proj.*model\.targets"):
        initial_adapter(model, replace(config, adapter=str(tmp_path)), 0)


@pytest.mark.parametrize("folder", ["empty", "missing"])
def test_a_folder_without_adapter_is_refused(
    model: PreTrainedModel, config: ModelConfig, tmp_path: Path, folder: str
) -> None:
    (tmp_path / "empty").mkdir()
    given = str(tmp_path / folder)
    with pytest.raises(ConfigError) as caught:
        initial_adapter(model, replace(config, adapter=given), 0)
    assert f"model.adapter={given!r} holds no peft adapter (no adapter_config.json)" in str(caught.value)


def test_targets_that_are_not_there_are_named(model: PreTrainedModel, config: ModelConfig) -> None:
    with pytest.raises(ConfigError, match=r"model\.targets=\['c_attn'\] does not fit .*c_attn"):
        initial_adapter(model, replace(config, targets=("c_attn",)), 0)


def test_mismatch_names_the_first_difference() -> None:
    """None where nothing differs; order of the names is no difference."""
    like = {"a": np.zeros((2, 3), np.float32), "b": np.zeros(4, np.float32)}
    assert mismatch(dict(reversed(like.items())), like) is None
    assert mismatch({"a": like["a"]}, like) == "1 tensors are missing and 0 unknown, first b"
    assert mismatch({**like, "c": like["b"]}, like) == "0 tensors are missing and 1 unknown, first c"
    assert mismatch({**like, "a": np.zeros((3, 2), np.float32)}, like) == "a has shape (3, 2), expected (2, 3)"


# ------------------------------------------------------------------------------------------------------ the base model


def test_a_base_is_frozen_and_knows_its_tokens(config: ModelConfig) -> None:
    base = load_base(config.path)
    assert not base.model.training
    assert not any(tensor.requires_grad for tensor in base.model.parameters())
    assert {tensor.dtype for tensor in base.model.parameters()} == {torch.float32}
    words = base.tokenizer.get_vocab()
    assert [words["<pad>"], words["<eos>"], words["?"]] == [base.pad_id, base.eos_id, base.help_id]


def test_a_folder_without_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_base(str(tmp_path))
    assert f"model.path={str(tmp_path)!r}" in str(caught.value)
    assert "builtin:slm" in str(caught.value)
    with pytest.raises(ConfigError, match=r"model\.path='builtin:none'.*builtin:slm"):
        load_base("builtin:none")


def test_a_tokenizer_without_help_token_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """The same checkpoint, its question mark renamed."""
    for file in tiny_checkpoint.iterdir():
        data = file.read_bytes()
        renamed = data.replace(b'"?":', b'"!":') if file.name == "tokenizer.json" else data
        assert file.name != "tokenizer.json" or renamed != data
        (tmp_path / file.name).write_bytes(renamed)
    with pytest.raises(ConfigError, match=r"cannot write the help request '<unknown> I need"):
        load_base(str(tmp_path))
