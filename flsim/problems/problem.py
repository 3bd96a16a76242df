"""A problem is one question with a reference that a verifier takes; its split is a property of the question's text.

Splitting by a hash of the question, not by a seed, means that no seed, level or device can ever move a test question
into training: `split_of("7+5=")` is the same everywhere.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Any

from flsim.problems.recorded import RECORDED, RIGHT, WRONG

SPLITS = ("train", "validation", "test")
VERBATIM = "exact"
"""The verifier of the built-in world: right is the answer itself, whatever white space stands around it."""
_VALIDATION_SHARE, _TEST_SHARE = 0.12, 0.12  # of all questions; the rest trains


@dataclass(frozen=True)
class Problem:
    """One question, for example of the built-in world `Problem("arithmetic", "add", 2, "59+63=", "221", "21")`."""

    task: str
    """Task: the unit that streams switch between and that the accuracy matrix is taken over."""
    family: str
    """Kind of question within the task."""
    level: int
    """Difficulty, visible in the question (digits of the operands, or length of the text)."""
    question: str
    """What the model reads."""
    answer: str
    """The one right answer, or what the verifier needs to know it by."""
    slip: str = ""
    """What a careless solver would write; pretraining mixes it in, learning and evaluation never see it."""
    verifier: str = VERBATIM
    """Name of what says whether a completion is right (`flsim/problems/judging.py`); it takes `answer` as reference."""
    instruction: str = ""
    """What is to be done and in which form, for whoever answers; empty where the question says it all."""
    solution: str | None = None
    """A completion that the verifier takes; None if `answer` is one."""
    difficulty: float | None = None
    """0 for the easiest of its task, 1 for the hardest; None: by the levels of its family."""
    score_label: int | None = None
    """The class, from 0, where the device's scores for the answers are held against it (AUC); None where there is only
    right or wrong."""
    score_words: tuple[str, ...] = ()
    """The answer that stands for each score label, from 0; its own among them."""
    features: Any = field(default=None, compare=False, repr=False)
    """What a module reads in place of the question: an array (`flsim.tasks.item.Item.features`), whose type would bring
    NumPy into every command that lists a verifier. None where there is but text."""

    @property
    def prompt(self) -> str:
        """The question under its instruction."""
        return f"{self.instruction}\n\n{self.question}" if self.instruction else self.question

    @property
    def right_text(self) -> str:
        """What somebody who knows would say."""
        if self.solution is not None:
            return self.solution
        return RIGHT if self.verifier == RECORDED else self.answer

    @property
    def wrong_text(self) -> str:
        """What somebody who errs would say: nothing, unless it is recorded who erred."""
        return WRONG if self.verifier == RECORDED else ""


def split_of(question: str, *, validation: float = _VALIDATION_SHARE, test: float = _TEST_SHARE) -> str:
    """The split that a question belongs to: `train`, `validation` or `test`; the shares are those of all questions."""
    share = int.from_bytes(hashlib.sha256(question.encode()).digest()[:8], "big") / 2**64
    if share < test:
        return "test"
    return "validation" if share < test + validation else "train"
