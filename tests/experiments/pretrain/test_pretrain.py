"""The shipped models are what their cards say, and pretraining is deterministic."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import PreTrainedTokenizerFast

from experiments.pretrain.__main__ import batch, pretrain
from experiments.pretrain.model_card import by_group, measure
from experiments.pretrain.pretraining import learning_rate_factor
from experiments.pretrain.recipes import SLM, SLM_DRAFT, Recipe, Stage
from flsim.models.base import load_base
from flsim.models.decoding import encode, generate, read
from flsim.models.folder import CLOUD_DIR, HELP, SLM_DIR, SLM_DRAFT_DIR, build_tokenizer
from flsim.problems.families import FAMILIES, TASKS, draw
from flsim.seeding import python_random

EVEN = dict.fromkeys(TASKS, 1.0)


def test_shipped_files_are_small_and_in_half_precision() -> None:
    total = 0
    for folder in (SLM_DIR, SLM_DRAFT_DIR, CLOUD_DIR):
        total += (folder / "model.safetensors").stat().st_size
        with safe_open(folder / "model.safetensors", framework="pt") as file:
            assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.float16}  # noqa: SIM118
    assert total < 6_000_000


def test_cards_keep_the_promise() -> None:
    slm = json.loads((SLM_DIR / "card.json").read_text())["groups"]
    cloud = json.loads((CLOUD_DIR / "card.json").read_text())["groups"]
    assert set(slm) == set(cloud) == set(TASKS)
    for group in TASKS:
        assert 0.40 <= slm[group]["accuracy"] <= 0.60, (group, slm[group])
        assert 0.05 <= slm[group]["asks"] <= 0.15, (group, slm[group])
        assert cloud[group]["accuracy"] >= 0.95, (group, cloud[group])


def test_the_card_of_the_model_that_drafts_keeps_its_promise() -> None:
    """Its rows are 5 % requests, 85 % answers and 10 % answers that a request follows, so 10 of 95 answers are."""
    groups = json.loads((SLM_DRAFT_DIR / "card.json").read_text())["groups"]
    assert set(groups) == set(TASKS)
    for group, said in groups.items():
        assert 0.40 <= said["accuracy"] <= 0.75, (group, said)
        assert 0.025 <= said["asks"] <= 0.08, (group, said)
        assert 0.06 <= said["asks_after"] <= 0.16, (group, said)


def test_only_the_model_that_drafts_is_taught_to_ask_after_an_answer() -> None:
    """A share of each, within four standard errors; both models read the same questions and answers otherwise."""
    tokenizer = build_tokenizer()
    help_, end = tokenizer.convert_tokens_to_ids(HELP), tokenizer.eos_token_id
    shares = {}
    for recipe in (SLM, SLM_DRAFT):
        rows = [row for step in range(8) for row in rows_of(recipe, tokenizer, step)]
        first = [row[0] == help_ for row in rows]
        after = [help_ in row[1:] for row in rows]
        assert all(row[-1] == end for row in rows)
        assert all(row[-2] == help_ and row.count(help_) == 1 for row, asks in zip(rows, after, strict=True) if asks)
        shares[recipe.name] = sum(first) / len(rows), sum(after) / len(rows)
    assert shares["slm"] == pytest.approx((0.10, 0.0), abs=0.03)
    assert shares["slm"][1] == 0.0
    assert shares["slm_draft"] == pytest.approx((0.05, 0.10), abs=0.03)


def rows_of(recipe: Recipe, tokenizer: PreTrainedTokenizerFast, step: int) -> list[list[int]]:
    """The labelled tokens of a batch."""
    buckets = batch(recipe, recipe.stages[0], tokenizer, python_random(recipe.seed, "share", step))
    return [row[row != -100].tolist() for _, labels in buckets for row in labels]


@pytest.mark.parametrize("folder", [SLM_DIR, SLM_DRAFT_DIR, CLOUD_DIR], ids=["slm", "slm_draft", "cloud"])
def test_card_agrees_with_the_model(folder: Path) -> None:
    """Measured again by real decoding on other test questions; 100 per group, so 4 standard errors are 0.2."""
    base = load_base(str(folder))
    groups = json.loads((folder / "card.json").read_text())["groups"]
    for group in TASKS:
        rng = python_random(1, "card check", group)
        families = [family for family in FAMILIES if family.task == group]
        problems = [draw(f, level, "test", rng) for f in families for level in f.levels for _ in range(7)]
        reading = read(base, encode(base, [[problem.question for problem in problems]]))
        replies = generate(base, reading, group_size=1, max_new_tokens=12, temperature=0.0, may_ask=False)
        verdicts: dict[str, list[list[bool]]] = {family.name: [[] for _ in family.levels] for family in families}
        for problem, (text,) in zip(problems, replies.texts[0], strict=True):
            level = next(f.levels for f in families if f.name == problem.family).index(problem.level)
            verdicts[problem.family][level].append(problem.answer == text)
        by_family = [sum(sum(v) / len(v) for v in levels) / len(levels) for levels in verdicts.values()]
        assert sum(by_family) / len(by_family) == pytest.approx(groups[group]["accuracy"], abs=0.2)


def test_pretraining_is_deterministic_and_ends_in_half_precision() -> None:
    recipe = replace(SLM, hidden_size=32, layers=1, stages=(Stage(30, EVEN), Stage(10, EVEN)), batch_size=64)
    tokenizer = build_tokenizer()
    first, second = (pretrain(recipe, tokenizer).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(tensor, tensor.half().float()) for tensor in first.values())
    other = pretrain(replace(recipe, seed=1), tokenizer).state_dict()
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


def test_learning_rate_warms_up_stays_and_falls() -> None:
    """With 100 steps: a third after 10 of 30 warm-up steps, whole at 40, half of the way down at 75, 2 % at the end."""
    assert learning_rate_factor(9, 100) == pytest.approx(10 / 30)
    assert learning_rate_factor(40, 100) == 1.0
    assert learning_rate_factor(75, 100) == pytest.approx(0.5)
    assert learning_rate_factor(99, 100) == pytest.approx(0.02)


@pytest.mark.slow
def test_measure_weighs_families_alike() -> None:
    """A model that is never right gives zero in every group, whatever the number of levels."""
    recipe = replace(SLM, hidden_size=32, layers=1, stages=(Stage(1, EVEN),), batch_size=16)
    tokenizer = build_tokenizer()
    groups = by_group(measure(pretrain(recipe, tokenizer), tokenizer))
    assert list(groups) == list(TASKS)
    assert all(right < 0.2 for right, *_ in groups.values())
