"""The user-level AUC of a run on MovieLens by user is scikit-learn's of the scores, and so is its interval."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

import flsim
from clients.device.world import load_world
from clients.evaluate import own_tests
from clients.task_scores import task_scores
from flsim.config.load import load_config
from flsim.config.schema import Config
from flsim.metrics.intervals import DRAWS, _counts
from flsim.models.adapter import load_adapter

USERS = 6


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """A random Llama of one layer whose tokenizer has a token per byte, so that it reads any title."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({piece: n for n, piece in enumerate(["<pad>", "<eos>", "<help>", *letters])}, []))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>")
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=256,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    folder: Path = tmp_path_factory.mktemp("bytes") / "checkpoint"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def config_of(folder: Path, checkpoint: Path) -> Config:
    """Six users with 20 to 60 ratings in the form of MovieLens 1M; user 5 likes whatever it sees."""
    rng = np.random.default_rng(0)
    (folder / "movies.dat").write_text("".join(f"{n}::Film {n}::Drama\n" for n in range(80)))
    rows = [
        f"{user}::{film}::{5 if user == 5 else rng.integers(1, 6)}::{at}\n"
        for user in range(USERS)
        for at, film in enumerate(rng.permutation(80)[: 20 + 8 * user].tolist())
    ]
    (folder / "ratings.dat").write_text("".join(rows))
    given = ["kind=movielens", f"root={folder}", "partition=user", "settings={history: 2}"]
    more = [f"model.path={checkpoint}", "model.rank=2", f"fleet.devices={USERS}", "rounds=1", "stream.phases=[[films]]"]
    more += ["cloud.kind=oracle", "engine.kind=local", "evaluation.items=all", f"run_dir={folder / 'run'}"]
    small = [f"client.{name}" for name in ("steps=1", "prompts=2", "group_size=2", "max_new_tokens=4")]
    return load_config(None, [*more, *small, *(f"data.films.{one}" for one in given)])


@pytest.mark.usefixtures("no_pictures")
def test_gauc_and_its_interval_are_scikit_learns(tmp_path: Path, checkpoint: Path) -> None:
    """From the scores of the adapter that the run left, by a loop over users, and a bootstrap of users by hand."""
    config = config_of(tmp_path, checkpoint)
    run = flsim.run(config, progress=False)
    world = load_world(config)
    world.lora.attach(world.lora.stack([load_adapter(run.folder / "adapter", like=world.first)] * USERS))
    tests = [own_tests(world, device) for device in range(USERS)]
    aucs, items = [], []
    for own, scores in zip(tests, task_scores(world, tests), strict=True):
        labels = [problem.score_label for problem in own]
        odds = scores[:, 1] - scores[:, 0]  # (N,)
        aucs.append(roc_auc_score(labels, odds) if len(set(labels)) == 2 else np.nan)
        items.append(len(own))
    value, weight = np.array(aucs), np.array(items, dtype=float)  # (U,)
    both = ~np.isnan(value)
    assert 1 < both.sum() < USERS
    found = run.summary.aucs["global"]["task_auc"]
    assert found.by_examples == pytest.approx(np.average(value[both], weights=weight[both]), abs=1e-6)
    assert found.uniform == pytest.approx(value[both].mean(), abs=1e-6)
    assert (found.users, found.one_class) == (both.sum(), (~both).sum())
    assert found.left_out == pytest.approx(weight[~both].sum() / weight.sum())
    (counts,) = _counts((USERS,), DRAWS)
    means = [
        np.average(value[both], weights=(times * weight)[both]) for times in counts if (times * weight)[both].any()
    ]
    compared = flsim.compare([run.folder], weighting="examples").results[0].means["task_auc"]
    assert compared.mean == pytest.approx(found.by_examples)
    assert [compared.low, compared.high] == pytest.approx(pd.Series(means).quantile([0.025, 0.975]).tolist(), abs=1e-6)
    assert compared.low < compared.mean < compared.high
