"""How well a device tells the two answers of a scored data set apart: a score for each test prompt, and their AUC.

A film that a user will like should get a higher score than one that the same user will not, whatever the device would
say to either. The score is how much likelier the answer with label 1 is than the one with label 0, as completions of
the prompt by a device that may not ask; so the AUC needs no threshold, and is measured where an accuracy near the
share of likes would say nothing.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch

from clients.asking.rule import Scores
from clients.rollout import Problems
from flsim.metrics.fairness import auc
from flsim.models.base import BaseModel
from flsim.models.decoding import Reading, encode, given, read
from flsim.models.scoring import score
from flsim.tasks.problem import Problem
from flsim.world import World


@torch.no_grad()
def task_scores(world: World, problems: Problems) -> list[Scores]:
    """Log-odds of the answer with score label 1 against the other, in nats; the adapters in use are the devices'.

    Args:
        world: the worker's.
        problems: of each device; their numbers may differ.

    Returns:
        For each device `(N,)`, nan for a prompt without a score label.
    """
    scored = [[problem for problem in row if problem.score_label is not None] for row in problems]
    found = [np.full(len(row), np.nan) for row in problems]
    if not any(scored):
        return found
    reading = read(world.base, encode(world.base, world.base.prompts(scored)))
    positive, negative = (_logprobs(world.base, reading, scored, label) for label in (1, 0))
    for k, row in enumerate(problems):
        places = [place for place, problem in enumerate(row) if problem.score_label is not None]
        found[k][places] = positive[k] - negative[k]
    return found


def task_auc(problems: Sequence[Problem], scores: Scores) -> tuple[float, float]:
    """AUC of the scores `(N,)` for the problems' labels times N, and N; (0, 0) if all labels are alike."""
    value = auc(scores, [problem.score_label == 1 for problem in problems])
    return (0.0, 0.0) if math.isnan(value) else (value * len(problems), float(len(problems)))


def _logprobs(base: BaseModel, reading: Reading, problems: Problems, label: int) -> list[Scores]:
    """Log-probability of each problem's answer with this label, without the ending token; `(N,)` for each device."""
    words = [[problem.answer if problem.score_label == label else problem.other for problem in row] for row in problems]
    tokens = [[base.tokenizer(word, add_special_tokens=False)["input_ids"] for word in row] for row in words]
    sums = score(base, reading, given(base, tokens), temperature=1.0, may_ask=False)[:, :, 0].double().sum(-1)  # (K, P)
    return [row[: len(own)].cpu().numpy() for row, own in zip(sums, problems, strict=True)]
