"""An item is one row of a data set as a question with a reference; a key says when two questions are the same."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Item:
    """One question of a data set, for example `Item("A robe takes 2 bolts ...?", "3", level=2, split="test")`."""

    question: str
    """What the model reads, without a chat template."""
    answer: str
    """The reference that the verifier takes: the gold answer; for code, the asserts as text."""
    user: str | None = None
    """Whose item it is, where the data say so."""
    label: str | None = None
    """Class, subject or domain: what a Dirichlet partition mixes."""
    level: int | None = None
    """Difficulty, higher is harder, comparable within its data set only."""
    split: str | None = None
    """The official split (`train`, `validation` or `test`); None where the data have none."""
    tests: str | None = None
    """What a verifier needs beside the answer: `stdin` says that `answer` is not asserts but JSON of inputs and
    outputs of a program; a reasoning-gym item has the JSON recipe here that makes it anew. None: nothing."""
    score_label: int | None = None
    """1 or 0 where a score can be held against it (user-level AUC); None where there is only right or wrong."""
    solution: str | None = None
    """What somebody who knows would say, where the answer itself is none: the gold code of a task with asserts."""


def key_of(question: str) -> str:
    """The question without differences of white space; equal keys are the same question."""
    return " ".join(question.split())
