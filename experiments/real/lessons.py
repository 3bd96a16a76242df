"""Teach a tiny checkpoint within a minute to answer in the right form, often wrongly, and to ask now and then.

A random checkpoint would say nothing that a verifier reads, and never ask, so nothing of the path would be seen.
"""

from collections.abc import Sequence
from pathlib import Path
from random import Random

import torch
from tqdm import tqdm

from experiments.pretrain.pretraining import Bucket, backward, labelled_rows
from flsim.config.model import ModelConfig
from flsim.models.base import BaseModel, load_model
from flsim.problems.problem import Problem
from flsim.seeding import python_random, seed_for

ASKS, ERRS = 0.35, 0.4
"""Shares of the lessons that ask for help, and that give the answer to another question."""
_BATCH = 8
_LR = 3e-3


def in_form(problem: Problem, text: str) -> str:
    """A text in the form that the problem's verifier reads."""
    if problem.verifier.startswith("code"):
        return f"```python\n{text}\n```"
    return f"\\boxed{{{text}}}" if problem.verifier.startswith("maths") else f"#### {text}"


def teach(folder: Path, problems: Sequence[Problem], *, steps: int, seed: int = 0) -> float:
    """Train all weights of the checkpoint in `folder` in place; returns the last loss per token, in nats."""
    base = load_model(ModelConfig(path=str(folder)))
    model = base.as_transformers().train().requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LR)
    loss = 0.0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(seed, "teach"))
        for step in tqdm(range(steps), desc="lessons", unit="step"):
            for group in optimizer.param_groups:
                group["lr"] = _LR * min(1.0, (step + 1) / 10, 2 * (steps - step) / steps)
            loss = backward(model, _batch(base, problems, python_random(seed, "lessons", step)))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    model.save_pretrained(folder)
    return loss


def _batch(base: BaseModel, problems: Sequence[Problem], rng: Random) -> list[Bucket]:
    """Prompts with what is to be said; only the latter is labelled."""
    rows = []
    for problem in rng.choices(problems, k=_BATCH):
        kin = [other for other in problems if other.verifier == problem.verifier]
        told = rng.choice(kin) if rng.random() < ERRS else problem
        text = base.help.text if rng.random() < ASKS else in_form(problem, told.right_text)
        prompt = base.tokenizer(base.prompt(problem))["input_ids"]
        rows.append((prompt + base.spell(text), len(prompt)))
    return list(labelled_rows(rows, base.pad_id))
