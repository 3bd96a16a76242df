"""Questions of no device: what a server may ask by itself, drawn over all families and levels alike."""

from collections.abc import Sequence
from random import Random

from flsim.tasks.families import draw, families_of
from flsim.tasks.problem import Problem


def proxy_problems(groups: Sequence[str], split: str, *, count: int, rng: Random) -> list[Problem]:
    """Draw different questions, the groups in turn, every family of a group and every level of a family equally likely.

    Args:
        groups: task groups; at least one.
        split: `train`, `validation` or `test`.
        count: how many; each group gets its share, up to one.
        rng: drawn from.
    """
    found: dict[str, Problem] = {}
    while len(found) < count:
        family = rng.choice(families_of(groups[len(found) % len(groups)]))
        problem = draw(family, rng.choice(family.levels), split, rng)
        found.setdefault(problem.question, problem)
    return list(found.values())
