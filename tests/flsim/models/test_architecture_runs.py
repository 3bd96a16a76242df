"""A whole federated round of real families from a folder on disk, and what is refused before one."""

from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from peft import PeftModel
from transformers import AutoConfig

import flsim
from experiments.real.checkpoint import FAMILIES, write_checkpoint
from flsim.config.load import load_config
from flsim.config.model import ModelConfig
from flsim.config.schema import ConfigError
from flsim.flower.contract import client_of
from flsim.loop.run import Run
from flsim.metrics.rows import without_timing
from flsim.models.base import BaseModel, load_base, load_model
from flsim.models.decoding import Completions, encode, generate, read
from flsim.models.memory import GRAPH, prompt_tokens, refuse_too_large, training_bytes, weight_bytes
from flsim.tasks.stream import TaskStream
from tests.tiny import TOKEN_RUN

pytestmark = pytest.mark.usefixtures("one_thread", "no_report")

TINY: tuple[str, ...] = (
    "rounds=2",
    "fleet.devices=2",
    "stream.phases=[[arithmetic]]",
    "evaluation.every_rounds=2",
    "model.rank=2",
)
TINY += ("evaluation.prompts_per_task=6", "cloud.kind=oracle", "engine.kind=local", "engine.pack=2", "budget.tau=1")
CLIENT = ("client.steps=2", "client.prompts=6", "client.group_size=8", "client.lr=0.01")


def run_of(folder: Path, run_dir: Path, *more: str) -> Run:
    given = [f"model.path={folder}", f"run_dir={run_dir}", *TINY, *CLIENT, *more]
    return flsim.run(load_config(None, given), progress=False)


def total(rows: pd.DataFrame, name: str) -> float:
    return float(rows[rows.name == name].total.sum())


def request_of(folder: Path) -> str:
    """A text of two tokens that the checkpoint often says, so that it asks in a run."""
    base = load_model(ModelConfig(path=str(folder), offer=""))
    config = load_config(None, list(TINY))
    sets = TaskStream(config.stream, config.rounds).evaluation_problems("device-0000", "validation", per_task=30)
    with torch.no_grad():
        reading = read(base, encode(base, base.prompts([[problem for row in sets.values() for problem in row]])))
    seed = [torch.Generator().manual_seed(0)]
    said = generate(base, reading, group_size=4, max_new_tokens=12, temperature=1.0, generators=seed)
    spoken = [tokens[:count].tolist() for tokens, count in zip(*_rows(said), strict=True)]
    pairs = Counter(pair for row in spoken for pair in pairwise(row)).most_common()
    texts = ((str(base.tokenizer.decode(list(pair))), list(pair)) for pair, _ in pairs)
    return next(t for t, pair in texts if len(t) == 2 and t.isascii() and t.isalnum() and tokens_of(base, t) == pair)


def _rows(said: Completions) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens `(n, T)` and how many of them count, `(n,)`."""
    return said.tokens.flatten(0, 2), said.mask.sum(-1).flatten()


def tokens_of(base: BaseModel, text: str) -> list[int]:
    return list(base.tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Any:
    root = tmp_path_factory.mktemp("families")

    @cache
    def folder(family: str) -> tuple[Path, str]:
        path = write_checkpoint(root / family, family, spread=0.05)
        model = load_base(str(path)).as_transformers()
        model.get_output_embeddings().weight *= 16  # what it says hangs on its last token most: it repeats itself
        model.save_pretrained(path)
        return path, request_of(path)

    return folder


SLOW = [pytest.param(family, marks=pytest.mark.slow) for family in ("phi3", "smollm3", "mistral")]
WORDS = ("model.offer=", "model.max_new_tokens=12", "cloud.oracle_error=0")


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", *SLOW])
def test_two_rounds_from_a_folder(family: str, folders: Any, tmp_path: Path) -> None:
    """Devices ask by a text, learn from it, and the adapter, which has moved in every layer, speaks in peft."""
    folder, text = folders(family)
    run = run_of(folder, tmp_path / "run", f"model.help={text}", *WORDS, *TOKEN_RUN)
    assert total(run.rows, "cloud_calls") > 0
    model = PeftModel.from_pretrained(load_base(str(folder)).model, str(run.folder / "adapter"))
    moved = [parameter for name, parameter in model.named_parameters() if ".lora_B." in name]
    assert min(float(parameter.abs().max()) for parameter in moved) > 0


@pytest.mark.parametrize("family", ["qwen2", pytest.param("gemma2", marks=pytest.mark.slow)])
def test_two_rounds_by_a_head_from_a_folder(family: str, folders: Any, tmp_path: Path) -> None:
    """As shipped: what is bought is learned, and no request is ever said, though the checkpoint would."""
    folder, text = folders(family)
    run = run_of(folder, tmp_path / "run", f"model.help={text}", *WORDS)
    assert not (run.rows.name == "set_aside").any()
    assert total(run.rows, "cloud_calls") > 0
    assert total(run.rows, "update_norm") > 0
    assert (run.folder / "adapter" / "head.safetensors").is_file()


METHODS: dict[str, tuple[str, ...]] = {
    "da_grpo with a threshold of its own": (*TOKEN_RUN, "client.dual_bias=3", "client.kl=0.01", "client.updates=2"),
    "with gradient checkpointing": (*TOKEN_RUN, "model.gradient_checkpointing=true"),
    "sft": ("client.path=clients.sft:Sft",),
    "a calibrated wish": (*TOKEN_RUN, "client.asking.path=clients.asking.policy:OwnCalibrated"),
}


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_methods_whose_help_request_is_a_text(method: str, folders: Any, tmp_path: Path) -> None:
    """The cloud is asked in training and at tests, and is always right; the same run again gives equal rows."""
    folder, text = folders("qwen2")
    runs = [run_of(folder, tmp_path / name, f"model.help={text}", *WORDS, *METHODS[method]) for name in ("a", "b")]
    rows = runs[0].rows
    pd.testing.assert_frame_equal(without_timing(rows), without_timing(runs[1].rows))
    assert total(rows, "cloud_calls") > 0
    assert total(rows, "update_norm") > 0
    tested = rows[(rows["round"] == 2) & (rows.model == "global")]
    assert total(tested, "accuracy") >= total(tested, "cloud_grants")
    if method == "a calibrated wish":
        assert total(tested, "cloud_requests") > 0


@pytest.mark.slow
def test_distillation_teaches_a_chatting_student(folders: Any, tmp_path: Path) -> None:
    """The student reads by its own wording, in other tokens than the oracle's, which has none."""
    stage = ("stage.path=strategies.stages.distillation:Distillation", "stage.every_rounds=1", "stage.loss=sequence")
    more = (*stage, "stage.prompts=8", "stage.steps=2", "stage.batch=4", "stage.users=0", "stage.margin=1")
    folder, text = folders("llama")
    rows = run_of(folder, tmp_path / "run", f"model.help={text}", *WORDS, *TOKEN_RUN, *more).rows
    assert total(rows, "accepted") > 0


# ------------------------------------------------------------------------------------------------- refused beforehand


def test_responses_too_short_for_the_request_are_refused_at_once(tmp_path: Path) -> None:
    """9 tokens are what the built-in world needs; the usual request has 10 here."""
    folder = write_checkpoint(tmp_path / "tiny", "qwen2")
    with pytest.raises(
        ConfigError, match=r"has 10 tokens .* at most 9 in training and 12 .* set model\.max_new_tokens"
    ):
        run_of(folder, tmp_path / "run", *TOKEN_RUN)
    assert not (tmp_path / "run").exists()
    for silent in ("client.path=clients.grpo:Grpo", "client.policy=head"):  # which never ask, or not by words
        client_of(load_config(None, [f"model.path={folder}", *TINY, *CLIENT, silent]))


SIZES: dict[str, Any] = {"dtype": "bfloat16", "gradient_checkpointing": True}


def test_memory_by_hand(tmp_path: Path) -> None:
    """Hidden 32, inner 48, 2 layers: 2 (14 * 32 + 4 * 48) = 1280 numbers per token, 3 per word of the vocabulary."""
    model = AutoConfig.from_pretrained(write_checkpoint(tmp_path, "qwen2"))
    assert training_bytes(model, 10, 4, ModelConfig()) == 10 * 1280 * 4 + 4 * 3 * 4 * model.vocab_size
    less = 10 * (640 + 2 * 32) * 2 + 4 * 3 * 4 * model.vocab_size
    assert training_bytes(model, 10, 4, ModelConfig(**SIZES)) == less
    assert weight_bytes(model, "bfloat16") == 2 * (2 * model.vocab_size * 32 + 2 * (4 * 32 * 32 + 3 * 32 * 48))
    many = 10**6  # more than a pass may keep: three passes' limit, and of all tokens inputs and one layer
    bounded = 3 * GRAPH + many * (640 + 2 * 32) * 4
    assert training_bytes(model, many, 0, ModelConfig(path=str(tmp_path))) == bounded
    assert training_bytes(model, many, 0, ModelConfig()) == many * 1280 * 4  # of the built-in world nothing is bounded
    longest = [prompt_tokens(ModelConfig(path=path)) for path in ("builtin:slm", str(tmp_path))]
    assert [*longest, prompt_tokens(ModelConfig(max_prompt_tokens=7))] == [64, 512, 7]


@pytest.mark.parametrize("family", ["qwen2", "gemma3"])
def test_longer_prompts_make_a_smaller_pack(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_checkpoint(tmp_path, family)
    monkeypatch.setattr("flsim.models.memory.psutil.virtual_memory", lambda: type("Free", (), {"available": 2**27}))
    step: dict[str, int] = {"prompts": 8, "responses": 16, "new_tokens": 12, "micro_batch": 96}
    fits = [
        f"model.path={folder}",
        "engine.kind=local",
        "engine.pack=3",
        "fleet.devices=4",
        "model.max_prompt_tokens=64",
    ]
    fits.append("model.max_prompt_tokens=64")
    config = load_config(None, fits)
    refuse_too_large(config.model, config.engine, cohort=config.cohort_size, **step)
    longer = replace(config.model, max_prompt_tokens=1200)
    with pytest.raises(ConfigError, match=r"the largest pack that fits is 2 .*model\.max_prompt_tokens"):
        refuse_too_large(longer, config.engine, cohort=config.cohort_size, **step)


def test_every_family_is_named() -> None:
    with pytest.raises(ValueError, match=f"one of: {', '.join(FAMILIES)}"):
        write_checkpoint(Path("unused"), "bert")
