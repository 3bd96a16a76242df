"""The reader in a short form: what it reads, that it asks at random at first, and that it never saw a held-out text."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from experiments.pretrain.reader import HELP, READER, make_reader, questions_of, reader_tokenizer
from flsim.config.model import ModelConfig
from flsim.config.schema import ConfigError
from flsim.models.base import load_model
from flsim.models.decoding import encode, read
from flsim.tasks.load import load
from tests.experiments.recorded_world import SHORT, write_tables


def test_only_the_last_characters_are_read_between_two_marks() -> None:
    recipe = replace(READER, longest=12)
    tokenizer = reader_tokenizer(["How many apples are left?", "Wie viele?\n"], recipe)
    assert tokenizer.convert_ids_to_tokens(tokenizer("a?")["input_ids"]) == ["<begin>", "a", "?", "<decide>"]
    whole = tokenizer.decode(tokenizer("\n\nHow many apples are left?")["input_ids"], skip_special_tokens=False)
    assert whole == "<begin>es are left?<decide>"
    exact = tokenizer.decode(tokenizer("apples\nleft?")["input_ids"])
    assert "apples\nleft?" in exact


def test_a_text_comes_back_whatever_its_characters() -> None:
    tokenizer = reader_tokenizer(["plain words"])
    text = "\u20ac5, na\u00efve \u2013 \u6570?\t<eos>"
    assert tokenizer.decode(tokenizer(text.replace("<eos>", ""))["input_ids"][1:-1]) == text.replace("<eos>", "")


def test_held_out_questions_are_not_read(tmp_path: Path) -> None:
    write_tables(tmp_path)
    train = questions_of(tmp_path, "train")
    for name, own in train.items():
        held_out = {item.question for item in load(name, tmp_path / name) if item.split != "train"}
        assert held_out
        assert own
        assert not held_out & set(own)


def test_a_table_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="replay_gsm8k: no file for 'right'; looked for"):
        questions_of(tmp_path, "train")


def test_it_starts_out_asking_at_random_and_is_deterministic(tmp_path: Path, one_thread: None) -> None:
    """After 80 steps the request's chance at the end of a question is its share in the texts, whatever the question."""
    write_tables(tmp_path)
    card = make_reader(tmp_path, tmp_path / "reader", SHORT)
    base = load_model(ModelConfig(path=str(tmp_path / "reader"), help=HELP))
    texts = questions_of(tmp_path, "validation")["router_mmlu"][:20]
    chances = read(base, encode(base, [texts])).logits.softmax(-1)  # (20, V)
    assert chances[:, base.help_id].mean() == pytest.approx(0.3, abs=0.12)
    assert chances[:, [base.help_id, base.eos_id]].sum(-1).min() > 0.8
    assert "| router_mmlu |" in card
    again = make_reader(tmp_path, tmp_path / "again", SHORT)
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("reader", "again"))
    assert first == second
    kept = json.loads((tmp_path / "again" / "card.json").read_text())
    assert kept["recipe"]["help_share"] == 0.3
    assert torch.isfinite(torch.tensor(list(kept["perplexity"].values()))).all()
    assert again.splitlines()[0] == card.splitlines()[0]
