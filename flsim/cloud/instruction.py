"""What a cloud is told before a question: a notation that it has never seen, by two examples of every family.

That is for the built-in world alone. A question of a data set stands under its own instruction (`Problem.prompt`).
"""

from functools import cache
from random import Random

from flsim.config import CloudConfig
from flsim.tasks.families import FAMILIES, draw, is_builtin
from flsim.tasks.problem import Problem

_HEAD = """You answer short questions in a fixed notation. Write the answer alone: no words, no explanation, no spaces.
Answers to sums, differences and products have the least significant digit first; all other numbers are as usual.
Expressions are Python. Examples, each a question and its answer after the last equals sign:"""


def system_of(config: CloudConfig, problem: Problem) -> str | None:
    """The system prompt for a problem; None sends none."""
    if config.system is not None:
        return config.system
    return instruction() if is_builtin(problem) else None


@cache
def instruction() -> str:
    """The system prompt of the built-in world; the examples are of the train split, always the same ones."""
    rng = Random(0)
    shown = [
        draw(family, level, "train", rng) for family in FAMILIES for level in (family.levels[0], family.levels[-1])
    ]
    return "\n".join([_HEAD, *(problem.question + problem.answer for problem in shown)])
