"""The fields of peft's `LoraConfig`: those that are taken act as in peft, the others are refused by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from clients.device.world import load_world
from experiments.real.checkpoint import write_checkpoint
from flsim.config.load import load_config
from flsim.config.model import LoraShape, ModelConfig
from flsim.config.schema import ConfigError
from flsim.models.adapter import Adapter, initial_adapter, save_adapter
from flsim.models.base import load_base, load_model
from flsim.models.lora_settings import lora_config
from flsim.models.stacked_lora import StackedLora

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("phi3") / "tiny", "phi3")


def config_of(folder: Path, **lora: Any) -> ModelConfig:
    return ModelConfig(path=str(folder), rank=4, alpha=6.0, lora=lora)


def learned(like: Adapter) -> Adapter:
    rng = np.random.default_rng(0)
    return {name: rng.normal(0, 0.2, tensor.shape).astype(np.float32) for name, tensor in like.items()}


TAKEN: list[tuple[dict[str, Any], int]] = [
    ({}, 8),
    ({"use_rslora": True}, 8),
    ({"target_modules": "all-linear"}, 8),
    ({"target_modules": r".*\.(qkv|o)_proj"}, 4),
    ({"target_modules": ["qkv_proj"]}, 2),
    ({"exclude_modules": ["down_proj"]}, 6),
    ({"exclude_modules": r".*mlp.*"}, 4),
    ({"target_modules": ["qkv_proj", "down_proj"], "layers_to_transform": [1], "layers_pattern": "layers"}, 2),
    ({"init_lora_weights": "gaussian"}, 8),
    ({"init_lora_weights": "orthogonal"}, 8),
    ({"init_lora_weights": False}, 8),
    ({"lora_dropout": 0.0, "bias": "none", "use_dora": False, "modules_to_save": None}, 8),
]


@pytest.mark.parametrize(("lora", "layers"), TAKEN, ids=lambda value: str(value) if isinstance(value, dict) else "")
def test_what_is_taken_acts_as_in_peft(folder: Path, tmp_path: Path, lora: dict[str, Any], layers: int) -> None:
    """The same layers, the same scale, and the saved adapter says in peft what it said here."""
    config = config_of(folder, **lora)
    base = load_model(config)
    like = initial_adapter(base.model, config, 0)
    assert len(like) == 2 * layers
    theirs = LoraConfig(**{"r": 4, "lora_alpha": 6, "task_type": "CAUSAL_LM", "target_modules": "all-linear", **lora})
    model = get_peft_model(load_model(config).as_transformers(), theirs)
    wrapped = {name.partition(".lora_A")[0] for name, _ in model.named_parameters() if ".lora_A." in name}
    assert wrapped == {name.partition(".lora_A")[0] for name in like if ".lora_A." in name}
    adapter = learned(like)
    save_adapter(tmp_path, adapter, config)
    by_peft = PeftModel.from_pretrained(load_model(config).model, str(tmp_path)).eval()
    stacked = StackedLora(base.model, like, config.shape.scale)
    stacked.attach(stacked.stack([adapter]))
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        torch.testing.assert_close(base.model(input_ids=ids).logits, by_peft(input_ids=ids).logits, atol=1e-4, rtol=0)


def test_rslora_divides_by_the_root_of_the_rank(folder: Path) -> None:
    """Rank 4, alpha 6: 3 in place of 1.5; a device of rank 1 has 6 in both."""
    assert (config_of(folder).shape.scale, config_of(folder, use_rslora=True).shape.scale) == (1.5, 3.0)
    assert LoraShape(1, 6.0).scale == LoraShape(1, 6.0, rslora=True).scale == 6.0
    tiny = [f"model.path={folder}", "model.rank=4", "model.alpha=6", "fleet.devices=2", "fleet.ranks=[4,1]"]
    config = load_config(None, [*tiny, "model.lora.use_rslora=true", "cloud.kind=oracle"])
    world = load_world(config)
    assert world.lora.scale == 3.0
    assert world.scales([0, 1], [4, 1]) == [3.0, 6.0]
    assert config.shape_of(1) == LoraShape(1, 6.0, rslora=True)


def test_the_built_in_model_has_the_layers_that_it_always_had() -> None:
    names = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    first = initial_adapter(load_base("builtin:slm").model, ModelConfig(), 0)
    named = initial_adapter(load_base("builtin:slm").model, ModelConfig(targets=names), 0)
    assert list(first) == list(named)
    assert all(np.array_equal(first[name], named[name]) for name in first)


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"r": 4}, r"model\.lora\.r=4 has its own place: set model\.rank"),
        ({"lora_alpha": 4}, r"model\.lora\.lora_alpha=4 has its own place: set model\.alpha"),
        ({"rnk": 4}, r"model\.lora\.rnk is no field of peft's LoraConfig; set one of: target_modules"),
        ({"use_dora": True}, r"model\.lora\.use_dora=True is not supported: DoRA also scales"),
        ({"lora_dropout": 0.1}, r"lora_dropout=0\.1 is not supported: tokens must be scored by the very model"),
        ({"bias": "all"}, r"bias='all' is not supported: only the factors"),
        ({"lora_bias": True}, r"lora_bias=True is not supported: only the factors"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save=\['lm_head'\] is not supported"),
        ({"rank_pattern": {"qkv_proj": 2}}, r"rank_pattern=.*fleet\.ranks"),
        ({"alpha_pattern": {"qkv_proj": 2}}, r"alpha_pattern=.*fleet\.alphas"),
        ({"trainable_token_indices": [1]}, r"trainable_token_indices=\[1\] is not supported"),
        ({"init_lora_weights": "pissa"}, r"init_lora_weights='pissa' is not supported: .*gaussian, orthogonal do not"),
        ({"layer_replication": [[0, 2]]}, r"layer_replication=.* in a way that stacked adapters do not know"),
        ({"target_modules": ["embed_tokens"]}, r"the targets match .*embed_tokens.*, which is no linear layer"),
        ({"target_modules": ["c_attn"]}, r"model\.lora\.target_modules=.*c_attn.* does not fit"),
        ({"target_modules": "["}, r"model\.lora\.target_modules='\[' does not fit .*unterminated"),
        ({"layers_to_transform": [9]}, r"model\.lora=\{'layers_to_transform': \[9\]\} is refused by peft: "),
    ],
)
def test_what_is_not_supported_is_refused_by_name(folder: Path, lora: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        initial_adapter(load_base(str(folder)).model, config_of(folder, **lora), 0)


def test_targets_are_said_once(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"say the same thing; leave one of them out"):
        lora_config(ModelConfig(path=str(folder), targets=("qkv_proj",), lora={"target_modules": ["o_proj"]}))


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"r": 2, "lora_alpha": 6}, r"has shape \(2, 48\), expected \(4, 48\).* model\.rank=2, model\.alpha=6"),
        ({"r": 4, "lora_alpha": 8}, r"alpha=8\.0.* the run asks for .*alpha=6\.0.* model\.rank=4, model\.alpha=8"),
        ({"r": 4, "lora_alpha": 6, "use_rslora": True}, r"model\.lora\.use_rslora=true"),
        ({"r": 4, "lora_alpha": 6, "use_dora": True}, r"adapter_config\.json\.use_dora=True is not supported: DoRA"),
        (
            {"r": 4, "lora_alpha": 6, "target_modules": ["o_proj"]},
            r"tensors are missing .* target_modules \['o_proj'\]",
        ),
    ],
)
def test_a_peft_adapter_that_differs_is_refused_with_its_own_settings(
    folder: Path, tmp_path: Path, made: dict[str, Any], message: str
) -> None:
    settings = {"task_type": "CAUSAL_LM", "target_modules": "all-linear", **made}
    get_peft_model(load_base(str(folder)).as_transformers(), LoraConfig(**settings)).save_pretrained(str(tmp_path))
    config = ModelConfig(path=str(folder), rank=4, alpha=6.0, adapter=str(tmp_path))
    with pytest.raises(ConfigError, match=message):
        initial_adapter(load_base(str(folder)).model, config, 0)
