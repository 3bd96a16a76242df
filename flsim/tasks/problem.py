"""A problem is one question with one exact answer; its split is a property of the question's text.

Splitting by a hash of the question, not by a seed, means that no seed, level or device can ever move a test question
into training: `split_of("7+5=")` is the same everywhere.
"""

import hashlib
from dataclasses import dataclass

SPLITS = ("train", "validation", "test")
_VALIDATION_SHARE, _TEST_SHARE = 0.12, 0.12  # of all questions; the rest trains


@dataclass(frozen=True)
class Problem:
    """One question of the built-in world, for example `Problem("arithmetic", "add", 2, "59+63=", "221", "21")`."""

    group: str
    """Task group: the unit that streams switch between and that the accuracy matrix is taken over."""
    family: str
    """Kind of question within the group."""
    level: int
    """Difficulty, visible in the question (digits of the operands, or length of the text)."""
    question: str
    """What the model reads."""
    answer: str
    """The one right answer."""
    slip: str
    """What a careless solver would write; pretraining mixes it in, learning and evaluation never see it."""


def split_of(question: str) -> str:
    """The split that a question belongs to: `train`, `validation` or `test`."""
    share = int.from_bytes(hashlib.sha256(question.encode()).digest()[:8], "big") / 2**64
    if share < _TEST_SHARE:
        return "test"
    return "validation" if share < _TEST_SHARE + _VALIDATION_SHARE else "train"


def is_right(answer: str, completion: str) -> bool:
    """The verifier of the built-in world: exact match of the whole completion."""
    return completion == answer
