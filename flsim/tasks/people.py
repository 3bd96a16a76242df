"""Names of people: users are numbered as soon as their items are dealt, and what would still name one is told.

alice, bob, alice  ->  user-000, user-001, user-000        in the order in which the data name them

A number says nothing without the data. A hash would: whoever has a list of names could hash them all, as a salt that
others need to follow a link must lie beside it. Whoever has the data can count, or deal again.
"""

from collections.abc import Sequence
from dataclasses import replace

from flsim.tasks.item import Item

_SHORTEST = 4  # letters of a name that is looked for in questions: `1` or `amy` stand there by chance


def numbered(items: Sequence[Item]) -> list[Item]:
    """The items with numbers in place of their users, also as labels where the users are the labels.

    Items that are numbered already stay as they are.
    """
    numbers: dict[str, str] = {}
    for item in items:
        if item.user is not None:
            numbers.setdefault(item.user, f"user-{len(numbers):03d}")
    if not numbers:
        return list(items)
    labelled = all(item.label is None or item.label == item.user for item in items)
    return [
        item
        if item.user is None
        else replace(item, user=numbers[item.user], label=numbers[item.user] if labelled and item.label else item.label)
        for item in items
    ]


def told_of_users(items: Sequence[Item]) -> list[str]:
    """What is doubtful about ids of users, in sentences without any: two that may be one, and those in questions."""
    users = {item.user for item in items if item.user is not None}
    halves = sum(user.removesuffix(".0") in users for user in users if user.endswith(".0"))
    named = [item for item in items if item.user and len(item.user) >= _SHORTEST and item.user in item.question]
    found = []
    if halves:
        found.append(
            f"{halves} users are there as whole numbers and as the same with .0 behind; they count as different ones, "
            f"so write them alike if they are not"
        )
    if named:
        where = f", the first in {named[0].where}" if named[0].where else ""
        found.append(
            f"the questions of {len(named)} items hold the id of their user{where}; whatever keeps questions, such as "
            f"the cloud's answers and what devices replay, keeps those ids"
        )
    return found
