"""What a cloud that has never seen the built-in world is told about its notation: two examples of every family."""

from functools import cache
from random import Random

from flsim.tasks.families import FAMILIES, draw

_HEAD = """You answer short questions in a fixed notation. Write the answer alone: no words, no explanation, no spaces.
Answers to sums, differences and products have the least significant digit first; all other numbers are as usual.
Expressions are Python. Examples, each a question and its answer after the last equals sign:"""


@cache
def instruction() -> str:
    """The system prompt where `cloud.system` is None; the examples are of the train split, always the same ones."""
    rng = Random(0)
    shown = [
        draw(family, level, "train", rng) for family in FAMILIES for level in (family.levels[0], family.levels[-1])
    ]
    return "\n".join([_HEAD, *(problem.question + problem.answer for problem in shown)])
