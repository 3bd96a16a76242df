"""Scores of a scored data set: log-odds of the two answers, and their AUC by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch

from clients.device.world import World, load_world
from clients.evaluate import evaluate_pack
from clients.task_scores import label_rows, task_scores
from flsim.metrics.auc import auc, class_auc, over_users
from flsim.metrics.rows import Subject
from flsim.problems.problem import Problem
from tests.flsim.tasks.own_sets import config_of, write_sums, write_votes


def scored(question: str, label: int, words: tuple[str, ...] = ("a", "b"), task: str = "votes") -> Problem:
    return Problem(task, "", 0, question, words[label], score_label=label, score_words=words)


def pairs_of(problems: list[Problem], scores: np.ndarray) -> dict[str, tuple[float, float]]:
    rows = label_rows(problems, scores, ["votes", "lists"], Subject(0, "device-000", "test", "global"))
    return {row.name: (row.total, row.weight) for row in rows}


def test_auc_by_hand() -> None:
    """Log-odds 3 and 1 of positives against 2 and 0 of negatives: 3 of 4 pairs in order, so 3/4 of 4 prompts."""
    problems = [scored("1+1=", label) for label in (1, 0, 1, 0)]
    scores = np.array([[0.0, 3.0], [-1.0, 1.0], [1.0, 2.0], [5.0, 5.0]])
    assert pairs_of(problems, scores) == {"task_auc": (3.0, 4.0), "positives": (2.0, 4.0)}
    assert pairs_of(problems, np.zeros((4, 2)))["task_auc"] == (2.0, 4.0)  # ties count half
    assert pairs_of(problems[:1], scores[:1]) == {"task_auc": (0.0, 0.0), "positives": (1.0, 1.0)}


def test_several_classes_have_an_auc_of_their_own() -> None:
    """Chances (8, 1, 1), (1, 8, 1), (1, 1, 8) and (8, 1, 1) in tenths of the labels 0, 1, 2, 2: 0 against 1 and 1
    against 2 are told apart (1 and (1 + 3/4) / 2); of 0 against 2 one of two pairs ties: (3/4 + 3/4) / 2."""
    words = ("a", "b", "c")
    problems = [scored("1+1=", label, words) for label in (0, 1, 2, 2)]
    chances = np.array([[8, 1, 1], [1, 8, 1], [1, 1, 8], [8, 1, 1]]) / 10
    found = pairs_of(problems, np.log(chances))
    assert found == {
        "class_auc": (pytest.approx(4 * (1 + 0.875 + 0.75) / 3), 4.0),
        "largest_class": (2.0, 4.0),
    }
    assert pairs_of(problems[2:], np.log(chances[2:]))["class_auc"] == (0.0, 0.0)


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
    found = [own[:, 1] - own[:, 0] for own in task_scores(world, problems)]
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
    problem = scored("1+1=", 1, ("ab", "ba"))

    def logprob(word: str) -> float:
        ids, start = [base.tokenizer(text)["input_ids"] for text in (f"1+1={word}", "1+1=")]
        with torch.no_grad():
            logits = base.model(torch.tensor([ids])).logits[0]
        logits[:, base.help_id] = -torch.inf
        logprobs = torch.log_softmax(logits, -1)
        return float(sum(logprobs[place - 1, ids[place]] for place in range(len(start), len(ids))))

    ((found,),) = task_scores(world, [[problem]])
    assert found == pytest.approx([logprob("ab"), logprob("ba")], abs=1e-4)


def test_each_class_has_a_score_and_a_task_with_fewer_has_none_beyond(world: World) -> None:
    """Three answers beside two: the scores of the two are what they are alone."""
    world.lora.attach(None)
    two, three = scored("1+1=", 1), scored("7%2=", 2, ("a", "b", "c"), "lists")
    (both,), (alone,) = task_scores(world, [[two, three]]), task_scores(world, [[two]])
    assert both.shape == (2, 3)
    assert np.isnan(both[0, 2])
    assert both[0, :2] == pytest.approx(alone[0], abs=1e-5)
    rows = label_rows([two, three], both, ["votes", "lists"], Subject(0, "device-000", "test", "global"))
    assert [(row.task, row.name) for row in rows] == [
        *(("votes", name) for name in ("task_auc", "positives")),
        *(("lists", name) for name in ("class_auc", "largest_class")),
    ]
    assert np.isnan(class_auc([[0.2, 0.3, 0.5]], [2]))


def test_rows_give_the_user_level_auc(world: World) -> None:
    """What is read from the rows is the user-level AUC of the single scores."""
    devices = [0, 1, 2]
    rows = [row for own in evaluate_pack(world, devices, None, model="frozen", round_=0) for row in own]
    aucs = [row for row in rows if row.name == "task_auc"]
    positives = [row for row in rows if row.name == "positives"]
    world.lora.attach(None)
    sets = [world.stream.evaluation_problems(f"device-00{d}", "test", per_task=6)["votes"] for d in devices]
    assert [(row.task, row.weight) for row in positives] == [("votes", float(len(own))) for own in sets]
    labels = [[bool(problem.score_label) for problem in own] for own in sets]
    scores = [own[:, 1] - own[:, 0] for own in task_scores(world, sets)]
    found = [auc(own, label) for own, label in zip(scores, labels, strict=True)]
    whole = over_users(found, [len(own) for own in sets])
    assert sum(row.total for row in aucs) / sum(row.weight for row in aucs) == pytest.approx(whole.value)
    assert 1 - sum(row.weight for row in aucs) / sum(row.weight for row in positives) == pytest.approx(whole.dropped)
