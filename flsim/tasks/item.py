"""An item is one row of a data set as a question with a reference; a key says when two questions are the same."""

from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray


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
    """What is to be known beside the answer: `stdin` says that it is not asserts but JSON of inputs and outputs of a
    program; a reasoning-gym item has the JSON recipe here that makes it anew. None: nothing."""
    score_label: int | None = None
    """The class, from 0, where scores can be held against it (user-level AUC); None where there is only right or
    wrong."""
    solution: str | None = None
    """What somebody who knows would say, where the answer itself is none: the gold code of a task with asserts."""
    extra: str | None = field(default=None, compare=False, repr=False)
    """Further columns of its row that the reader was told to keep, for a reward function, as JSON of an object."""
    features: NDArray[Any] | None = field(default=None, compare=False, repr=False)
    """What a module reads in place of the question, such as the pixels of a picture; the question then only names it.
    None where there is but text."""
    where: str = field(default="", compare=False, repr=False)
    """File and row that it was read from, for messages; empty where the reader does not say."""


def key_of(question: str) -> str:
    """The question without differences of white space; equal keys are the same question."""
    return " ".join(question.split())
