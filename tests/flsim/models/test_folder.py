"""Checkpoints by name: from a hub cache as huggingface_hub lays it out, without a network."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import snapshot_download

from experiments.real.checkpoint import write_checkpoint
from flsim.config.schema import ConfigError
from flsim.models.base import load_base
from flsim.models.folder import folder_of

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Path:
    """An empty cache, and no way to the hub."""

    def download(name: str, **settings: Any) -> str:
        return str(snapshot_download(name, cache_dir=tmp_path / "hub", **{"local_files_only": True, **settings}))

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    return tmp_path / "hub"


def put(cache: Path, name: str, revision: str = "main") -> Path:
    """A checkpoint in the cache, `refs` naming its commit."""
    root = cache / f"models--{name.replace('/', '--')}"
    snapshot = write_checkpoint(root / "snapshots" / COMMIT, "qwen2")
    (root / "refs").mkdir()
    (root / "refs" / revision).write_text(COMMIT)
    return snapshot


def test_a_name_means_its_snapshot(cache: Path) -> None:
    snapshot = put(cache, "Owner/Tiny-0.1B")
    assert folder_of("Owner/Tiny-0.1B") == snapshot
    assert load_base("Owner/Tiny-0.1B").model.config.model_type == "qwen2"


def test_a_revision_may_be_a_tag_or_a_commit(cache: Path) -> None:
    snapshot = put(cache, "owner/tiny", "v1.0")
    assert folder_of("owner/tiny@v1.0") == folder_of(f"owner/tiny@{COMMIT}") == snapshot
    with pytest.raises(ConfigError, match=r"model\.path='owner/tiny@v2' is no folder, .* check the name"):
        folder_of("owner/tiny@v2")


def test_a_folder_goes_before_a_name(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(cache, "owner/tiny")
    monkeypatch.chdir(tmp_path)
    own = write_checkpoint(Path("owner/tiny"), "llama")
    assert folder_of("owner/tiny") == own


@pytest.mark.parametrize("missing", ["model.safetensors", "config.json"])
def test_a_snapshot_that_is_not_whole_is_not_taken(cache: Path, missing: str) -> None:
    (put(cache, "owner/tiny") / missing).unlink()
    with pytest.raises(ConfigError):
        folder_of("owner/tiny")


def test_weights_in_parts_must_all_be_there(cache: Path) -> None:
    snapshot = put(cache, "owner/tiny")
    parts = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    shutil.move(snapshot / "model.safetensors", snapshot / parts[0])
    (snapshot / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": dict(zip("ab", parts, strict=True))})
    )
    with pytest.raises(ConfigError):
        folder_of("owner/tiny")
    (snapshot / parts[1]).touch()
    assert folder_of("owner/tiny") == snapshot


def test_a_name_that_nobody_has_is_refused_with_the_mend(cache: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        folder_of("owner/none", "cloud.model")
    message = str(caught.value)
    assert message.startswith("cloud.model='owner/none' is no folder")
    assert all(mend in message for mend in ("hf auth login", "HF_HUB_OFFLINE", "give a checkpoint's folder"))


@pytest.mark.parametrize("path", ["nothing", "../a/b", "/a/b", "a/b/c", "builtin:none"])
def test_what_can_be_no_name_is_a_missing_folder(path: str) -> None:
    with pytest.raises(ConfigError, match=r"holds no checkpoint \(config\.json\); built in are: builtin:cloud"):
        folder_of(path)
