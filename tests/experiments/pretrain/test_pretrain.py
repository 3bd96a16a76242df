"""The shipped models are what their cards say, and pretraining is deterministic."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from experiments.pretrain.__main__ import pretrain
from experiments.pretrain.model_card import by_group, measure
from experiments.pretrain.pretraining import learning_rate_factor
from experiments.pretrain.recipes import SLM, Stage
from flsim.models.base import load_base
from flsim.models.decoding import encode, generate, read
from flsim.models.folder import CLOUD_DIR, SLM_DIR, build_tokenizer
from flsim.problems.families import FAMILIES, TASKS, draw
from flsim.seeding import python_random

EVEN = dict.fromkeys(TASKS, 1.0)


def test_shipped_files_are_small_and_in_half_precision() -> None:
    total = 0
    for folder in (SLM_DIR, CLOUD_DIR):
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


@pytest.mark.parametrize("folder", [SLM_DIR, CLOUD_DIR], ids=["slm", "cloud"])
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
    assert all(right < 0.2 for right, _ in groups.values())
