"""An item is one row of a data set as a question with a reference; a key says when two questions are the same."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from flsim.config.schema import ConfigError
from flsim.problems.problem import SPLITS, split_of


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
    where: str = field(default="", compare=False, repr=False)
    """File and row that it was read from, for messages; empty where the reader does not say."""


def key_of(question: str) -> str:
    """The question without differences of white space; equal keys are the same question."""
    return " ".join(question.split())


# Which split each item belongs to: the data set's own where it has one, else a hash; no question is in two splits.

RULES = ("official", "hash")


DROPPED = -1
"""In place of a split: a copy of a question that a more held-out split has."""


def split_items(items: Sequence[Item], rule: str = "official") -> NDArray[np.int8]:
    """The split of every item.

    `official` takes `Item.split`, and the hash of the question (`problem.split_of`, white space made equal)
    where that is None. If the data set has official training items but no validation or no test split, its training
    questions whose hash says so become that split: GSM8K's 7,473 give about 12 % to validation and none to test, which
    it has. `hash` takes the hash for all: for sets that are all test, such as HumanEval, or that hardly train, as MMLU.

    A question that several items ask stays in one split: test before validation before train. Under `official`, the
    copies in the other splits are dropped, so that an official test set keeps its size.

    Args:
        items: N items.
        rule: `official` or `hash`.

    Returns:
        Index into `SPLITS`, or `DROPPED`, shape `(N,)`.

    Raises:
        ConfigError: if the rule or an official split is unknown.
    """
    if rule not in RULES:
        raise ConfigError(f"splits={rule!r} is not known; it is one of: {', '.join(RULES)}")
    keys = [key_of(item.question) for item in items]
    hashed = [split_of(key) for key in keys]
    names = hashed if rule == "hash" else _official(items, hashed)
    splits = np.array([SPLITS.index(name) for name in names], dtype=np.int8)  # (N,)
    most_held_out: dict[str, int] = {}
    for key, split in zip(keys, splits.tolist(), strict=True):
        most_held_out[key] = max(split, most_held_out.get(key, split))
    kept = np.array([most_held_out[key] for key in keys], dtype=np.int8) == splits  # (N,)
    return np.where(kept, splits, np.int8(DROPPED))


def _official(items: Sequence[Item], hashed: Sequence[str]) -> list[str]:
    given = [item.split for item in items]
    unknown = set(given) - {None, *SPLITS}
    if unknown:
        raise ConfigError(f"an item's split is {unknown.pop()!r}; it is one of: {', '.join(SPLITS)}, or None")
    lacking = {split for split in ("validation", "test") if split not in given} if "train" in given else set()
    return [
        by_hash if own is None or (own == "train" and by_hash in lacking) else own
        for own, by_hash in zip(given, hashed, strict=True)
    ]
