"""Reasoning-gym: procedural tasks with their own judges (Stojanovski et al. 2025, arXiv 2505.24760); an extra, `gym`.

    create_dataset("chain_sum", seed=7, size=1)[0]  ->  {"question": "State the final answer ...", "answer": "12", ...}

In most tasks item i of seed s is item 0 of seed s + i, so users with seeds 0, 1, 2 would share nearly all their items:
here every (task, user) has a range of seeds of its own. Small settings repeat questions all the same: a question goes
to the first user that meets it, and the split of all is the hash of the question. A score is a verdict only when it is
exactly 1: the package's scores are shaped, and give part of the reward to a text that merely contains the answer.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType, ModuleType
from typing import Any

from flsim.config.schema import ConfigError
from flsim.problems.gym import _dataset, _package, _verdict
from flsim.problems.judging import GYM
from flsim.tasks.item import Item, key_of
from flsim.tasks.known_set import Reader

SPACING = 10**6
"""Seeds between two users: more items than any user draws."""


_TRIES = 50  # seeds per wanted item, before the task counts as too small


UNFIT = MappingProxyType(
    {
        "game_of_life_halting": "its judge gives 1 to any text",
        **dict.fromkeys(
            ("graph_color", "rush_hour", "rubiks_cube", "propositional_logic", "boxnet"), "it has no reference answer"
        ),
        **dict.fromkeys(("pool_matrix", "list_functions"), "its items depend on global random numbers"),
        "composite": "it mixes tasks; name them one by one",
    }
)
"""Tasks that cannot be used, and why."""


def reasoning_gym(
    tasks: Mapping[str, Mapping[str, Any]] | Sequence[str], *, users: int, items_per_user: int, seed: int = 0
) -> list[Item]:
    """Items of several tasks for several users, no question twice.

    Args:
        tasks: names, or name -> settings of the task, such as `{"chain_sum": {"max_terms": 3}}`.
        users: how many; they are called `user-000`, ...
        items_per_user: of every task.
        seed: of the whole; other seeds give other ranges.

    Raises:
        ConfigError: if the package is missing, a task is unknown, unfit or has too few different questions.
    """
    settings: dict[str, Mapping[str, Any]] = dict(tasks) if isinstance(tasks, Mapping) else {task: {} for task in tasks}
    if users < 1 or items_per_user < 1:
        raise ConfigError(f"reasoning_gym: users={users} and items_per_user={items_per_user}; both must be at least 1")
    for task in settings.keys() & UNFIT.keys():
        raise ConfigError(f"reasoning_gym: the task {task!r} cannot be used: {UNFIT[task]}")
    gym = _package()
    met: set[str] = set()
    items = []
    for number, (task, own) in enumerate(settings.items()):
        for user in range(users):
            first = ((seed * len(settings) + number) * users + user) * SPACING
            items += _items_of(gym, task, own, first, user=user, wanted=items_per_user, met=met)
    return items


def reference_of(item: Item) -> str:
    """The recipe of an item with its question: all that its judge needs, as JSON."""
    return json.dumps({**json.loads(item.tests or "{}"), "question": item.question})


def as_judged(item: Item) -> Item:
    """The item with its recipe in place of its answer, which is what somebody who knows would say."""
    return replace(item, answer=reference_of(item), solution=item.answer)


def verdict(item: Item, completion: str) -> bool:
    """Whether the task's own judge gives the completion the full score; a judge that fails on a text judges it wrong.

    Raises:
        ConfigError: if the recipe now makes another question, as another version of the package might.
    """
    return _verdict(json.loads(reference_of(item)), completion)


def _items_of(
    gym: ModuleType, task: str, settings: Mapping[str, Any], first: int, *, user: int, wanted: int, met: set[str]
) -> list[Item]:
    """The first `wanted` new questions from the seed `first` on; what they are is added to `met`."""
    tries = min(_TRIES * wanted, SPACING)
    data = _dataset(gym, task, settings, seed=first, size=tries)
    items: list[Item] = []
    for at in range(tries):
        entry = data[at]
        key = key_of(entry["question"])
        if key in met:
            continue
        met.add(key)
        recipe = json.dumps({"task": task, "settings": dict(settings), "seed": first, "size": tries, "at": at})
        items.append(Item(entry["question"], str(entry["answer"]), user=f"user-{user:03d}", label=task, tests=recipe))
        if len(items) == wanted:
            return items
    raise ConfigError(
        f"reasoning_gym: {task} with {dict(settings)} has too few different questions: user {user} found {len(items)} "
        f"new ones of {wanted} in {tries}; ask for fewer, or set it harder"
    )


REASONING_GYM = Reader(reasoning_gym, verifier=GYM, rooted=False, judged=as_judged)
"""reasoning-gym: procedural tasks with their own judges (arXiv 2505.24760); an extra, `gym`."""
