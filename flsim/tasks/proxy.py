"""Questions of no device: what a server may ask by itself, drawn over all families and levels alike.

Of a data set they are any of its items of the split, whoever holds them: there are no others.
"""

from collections.abc import Sequence
from random import Random

from flsim.tasks.data.groups import DataGroup
from flsim.tasks.families import draw, families_of
from flsim.tasks.problem import Problem


def proxy_problems(
    groups: Sequence[str], split: str, *, count: int, rng: Random, data: Sequence[DataGroup] = ()
) -> list[Problem]:
    """Draw different questions, the groups in turn, every family of a group and every level of a family equally likely.

    A data set that has fewer gives what it has.

    Args:
        groups: task groups; at least one.
        split: `train`, `validation` or `test`.
        count: how many; each group gets its share, up to one.
        rng: drawn from.
        data: the stream's data sets.
    """
    sets = {own.name: iter(own.proxy_set(split, count, rng)) for own in data if own.name in groups}
    turn, found = list(groups), dict[str, Problem]()
    while turn and len(found) < count:
        group = turn[len(found) % len(turn)]
        problem = next(sets[group], None) if group in sets else _drawn(group, split, rng)
        if problem is None:
            turn.remove(group)
        else:
            found.setdefault(problem.question, problem)
    return list(found.values())


def _drawn(group: str, split: str, rng: Random) -> Problem:
    family = rng.choice(families_of(group))
    return draw(family, rng.choice(family.levels), split, rng)
