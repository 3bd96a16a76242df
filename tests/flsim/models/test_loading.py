"""A checkpoint that cannot be loaded is an error of the model, by its own key, wherever it is first looked into."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import flsim
from flsim.config.load import load_config
from flsim.config.schema import ConfigError


def no_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def no_known_family(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "abacus"}')


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("[]")


def half_the_weights(folder: Path) -> None:
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])


def weights_of_another_width(folder: Path) -> None:
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "intermediate_size": 64}))


@pytest.mark.parametrize("spoil", [no_json, no_known_family, no_tokenizer, half_the_weights, weights_of_another_width])
def test_a_broken_checkpoint_is_no_wrong_setting_of_the_client(
    tiny_checkpoint: Path, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    """The client looks into it first, for memory and the help request; nothing has been written by then."""
    broken = tmp_path / "broken"
    shutil.copytree(tiny_checkpoint, broken)
    spoil(broken)
    config = load_config(None, [f"model.path={broken}", f"run_dir={tmp_path / 'run'}", "engine.kind=local"])
    with pytest.raises(ConfigError, match=rf"^model\.path='{broken}' cannot be loaded as a decoder-only model: \w+"):
        flsim.run(config, progress=False)
    assert not (tmp_path / "run").exists()


def test_a_broken_cloud_model_is_named_by_its_own_key(tiny_checkpoint: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_checkpoint, broken)
    no_tokenizer(broken)
    cloud = ["cloud.path=flsim.cloud.checkpoint:Checkpoint", f"cloud.model={broken}"]
    config = load_config(None, [*cloud, f"run_dir={tmp_path / 'run'}", "engine.kind=local"])
    with pytest.raises(ConfigError, match=rf"^cloud\.model='{broken}' cannot be loaded as a decoder-only model: \w+"):
        flsim.run(config, progress=False)
    assert not (tmp_path / "run").exists()
