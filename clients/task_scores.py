"""How well a device tells the answers of a data set with score labels apart, whatever it would say itself.

A film that a user will like should get a higher score than one that the same user will not. A label stands for an
answer; the score of an answer is its log-probability as a completion of the prompt, by a device that may not ask. So
the AUC needs no threshold, and is measured where an accuracy near the share of likes would say nothing. Of two answers
the score is the log-odds of that with label 1 against the other; of more there is a chance for each.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from clients.asking.rule import Scores
from clients.device.answering import Problems
from clients.device.world import World
from flsim.metrics.auc import auc, class_auc
from flsim.metrics.rows import Row, Subject
from flsim.models.base import BaseModel
from flsim.models.decoding import Reading, encode, given, read
from flsim.models.scoring import score
from flsim.problems.problem import Problem

ClassScores = NDArray[np.float64]
"""Log-probabilities of the answer of each label, `(N, C)`; nan beyond the labels that a prompt's task has."""


@torch.no_grad()
def task_scores(world: World, problems: Problems) -> list[ClassScores]:
    """Log-probabilities of the answers that labels stand for, in nats; the adapters in use are the devices'.

    Args:
        world: the worker's.
        problems: of each device; their numbers may differ.

    Returns:
        For each device `(N, C)`, with C the most labels that a task has, at least 2; nan for a prompt without a label.
    """
    scored = [[problem for problem in row if problem.score_label is not None] for row in problems]
    labels = max((len(problem.score_words) for row in scored for problem in row), default=2)
    found = [np.full((len(row), labels), np.nan) for row in problems]
    if not any(scored):
        return found
    reading = read(world.base, encode(world.base, world.base.prompts(scored)))
    for label in range(labels):
        for k, (row, sums) in enumerate(zip(scored, _logprobs(world.base, reading, scored, label), strict=True)):
            places = [place for place, problem in enumerate(problems[k]) if problem.score_label is not None]
            known = [label < len(problem.score_words) for problem in row]
            found[k][places, label] = np.where(known, sums, np.nan)
    return found


def label_rows(problems: Sequence[Problem], scores: ClassScores, tasks: Sequence[str], of: Subject) -> list[Row]:
    """How well the scores tell the labels apart, for each of the tasks that has labels.

    Of two labels `task_auc`, and `positives`, those with label 1; of more `class_auc`, and `largest_class`, how many
    have the label that most have. An AUC has the number of scored prompts as weight, or is (0, 0) for a device with one
    label only.
    """
    rows = []
    for task in tasks:
        own = [p for p, problem in enumerate(problems) if problem.task == task and problem.score_label is not None]
        for name, pair in _labelled([problems[p] for p in own], scores[own]).items() if own else ():
            rows.append(of.row(name, *pair, task=task))
    return rows


def _labelled(problems: Sequence[Problem], scores: ClassScores) -> Mapping[str, tuple[float, float]]:
    """Totals and weights by name, of the scored prompts of one task."""
    labels, count = np.array([problem.score_label for problem in problems]), float(len(problems))  # (N,)
    classes = len(problems[0].score_words)
    if classes == 2:
        value = auc(scores[:, 1] - scores[:, 0], labels == 1)
        return {"task_auc": _over(value, count), "positives": (float((labels == 1).sum()), count)}
    value = class_auc(_chances(scores[:, :classes]), labels)
    return {"class_auc": _over(value, count), "largest_class": (float(np.bincount(labels).max()), count)}


def _over(value: float, count: float) -> tuple[float, float]:
    """A value of N prompts as a total and a weight."""
    return (0.0, 0.0) if np.isnan(value) else (value * count, count)


def _chances(scores: ClassScores) -> Scores:
    """Chances `(N, C)` of the answers, one of which is said."""
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))  # (N, C)
    chances: Scores = odds / odds.sum(axis=1, keepdims=True)
    return chances


def _logprobs(base: BaseModel, reading: Reading, problems: Problems, label: int) -> list[Scores]:
    """Log-probability of the answer with this label, or of the last there is, without the ending token; `(N,)` each."""
    words = [[problem.score_words[min(label, len(problem.score_words) - 1)] for problem in row] for row in problems]
    tokens = [[base.tokenizer(word, add_special_tokens=False)["input_ids"] for word in row] for row in words]
    sums = score(base, reading, given(base, tokens), temperature=1.0, may_ask=False)[:, :, 0].double().sum(-1)  # (K, P)
    return [row[: len(own)].cpu().numpy() for row, own in zip(sums, problems, strict=True)]
