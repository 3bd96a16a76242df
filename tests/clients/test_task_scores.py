"""Scores of a scored data set: log-odds of the two answers, and their AUC by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch

from clients.device.world import World, load_world
from clients.evaluate import evaluate_pack, task_auc, task_scores
from flsim.metrics.fairness import auc, over_users
from flsim.problems.problem import Problem
from tests.flsim.tasks.own_sets import config_of, write_sums, write_votes


def scored(question: str, label: int | None) -> Problem:
    answer, other = ("b", "a") if label else ("a", "b")
    return Problem("votes", "", 0, question, answer, score_label=label, other=other)


def test_auc_by_hand() -> None:
    """Positives 3 and 1 against negatives 2 and 0: 3 of 4 pairs in order, so 3/4 of 4 prompts."""
    problems = [scored("1+1=", label) for label in (1, 0, 1, 0)]
    scores = np.array([3.0, 2.0, 1.0, 0.0])
    assert task_auc(problems, scores) == (3.0, 4.0)
    assert task_auc(problems, np.zeros(4)) == (2.0, 4.0)  # ties count half
    assert task_auc(problems[:1], scores[:1]) == (0.0, 0.0)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> World:
    folder = write_votes(write_sums(tmp_path_factory.mktemp("own")))
    tiny = [f"model.path={tiny_checkpoint}", "model.rank=2", "cloud.kind=oracle", "evaluation.prompts_per_task=6"]
    return load_world(config_of(folder, *tiny, phases="[[votes, lists]]"))


def test_a_score_is_the_log_odds_of_the_two_answers(world: World) -> None:
    """By transformers' own forward, for prompts of unequal length, two devices, and one without a label."""
    base = world.base
    world.lora.attach(None)
    problems = [[scored("1+1=", 1), scored("12+34=", 0)], [Problem("lists", "", 0, "[1][0]=", "1"), scored("7%2=", 0)]]
    found = task_scores(world, problems)
    assert np.isnan(found[1][0])
    a, b = (base.tokenizer(word, add_special_tokens=False)["input_ids"] for word in "ab")
    for row, scores in zip(problems, found, strict=True):
        for problem, score in zip(row, scores, strict=True):
            if problem.score_label is not None:
                ids = torch.tensor([base.tokenizer(problem.question)["input_ids"]])
                with torch.no_grad():
                    logits = base.model(ids).logits[0, -1]
                assert score == pytest.approx(float(logits[b[0]] - logits[a[0]]), abs=1e-4)


def test_a_score_of_several_tokens_is_their_sum(world: World) -> None:
    """Of `ab` and `ba`: log p(b) + log p(a | b) - log p(a) - log p(b | a), the help request ruled out."""
    base = world.base
    world.lora.attach(None)
    problem = Problem("votes", "", 0, "1+1=", "ba", score_label=1, other="ab")

    def logprob(word: str) -> float:
        ids, start = [base.tokenizer(text)["input_ids"] for text in (f"1+1={word}", "1+1=")]
        with torch.no_grad():
            logits = base.model(torch.tensor([ids])).logits[0]
        logits[:, base.help_id] = -torch.inf
        logprobs = torch.log_softmax(logits, -1)
        return float(sum(logprobs[place - 1, ids[place]] for place in range(len(start), len(ids))))

    ((found,),) = task_scores(world, [[problem]])
    assert found == pytest.approx(logprob("ba") - logprob("ab"), abs=1e-4)


def test_rows_give_the_user_level_auc(world: World) -> None:
    """What is read from the rows is the user-level AUC of the single scores."""
    devices = [0, 1, 2]
    rows = [row for own in evaluate_pack(world, devices, None, model="frozen", round_=0) for row in own]
    aucs = [row for row in rows if row.name == "task_auc"]
    positives = [row for row in rows if row.name == "positives"]
    assert [(row.task, row.weight) for row in positives] == [("votes", 6.0)] * 3
    world.lora.attach(None)
    sets = [world.stream.evaluation_problems(f"device-00{d}", "test", per_task=6)["votes"] for d in devices]
    labels = [[bool(problem.score_label) for problem in own] for own in sets]
    found = [auc(scores, label) for scores, label in zip(task_scores(world, sets), labels, strict=True)]
    whole = over_users(found, [len(own) for own in sets])
    assert sum(row.total for row in aucs) / sum(row.weight for row in aucs) == pytest.approx(whole.value)
    assert 1 - sum(row.weight for row in aucs) / sum(row.weight for row in positives) == pytest.approx(whole.dropped)
