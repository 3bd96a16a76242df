"""Names of people: users are numbered as soon as their items are dealt, and what would still name one is told.

alice, bob, alice  ->  user-000, user-001, user-000        in the order in which the data name them

A number says nothing without the data. A hash would: whoever has a list of names could hash them all, as a salt that
others need to follow a link must lie beside it. Whoever has the data can count, or deal again.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from flsim.tasks.item import Item
from flsim.tasks.item_table import NONE, Column, ItemTable, table_of

_NOBODY = -2  # the code of a label that is no user

_SHORTEST = 4  # letters of a name that is looked for in questions: `1` or `amy` stand there by chance


def numbered(items: Sequence[Item]) -> Sequence[Item]:
    """The items with numbers in place of their users, also as labels where the users are the labels.

    Items that are numbered already stay as they are.
    """
    table = table_of(items)
    user, label = table.columns["user"], table.columns["label"]
    numbers = {name: f"user-{number:03d}" for number, name in enumerate(user.used())}
    if not numbers:
        return items
    places = {name: place for place, name in enumerate(user.known)}
    by_label = np.array([*(places.get(name, _NOBODY) for name in label.known), NONE])[label.codes]  # (N,), as a user
    renamed = pa.array([numbers.get(name) for name in user.known], pa.large_string())
    names = {"user": Column(user.codes, renamed)}
    if bool(((by_label == NONE) | (by_label == user.codes)).all()):
        names["label"] = Column(np.where(label.codes == NONE, NONE, user.codes).astype(np.int32), renamed)
    return table.having(**names)


def told_of_users(items: Sequence[Item]) -> list[str]:
    """What is doubtful about ids of users, in sentences without any: two that may be one, and those in questions."""
    table = table_of(items)
    users = set(table.columns["user"].used())
    halves = sum(user.removesuffix(".0") in users for user in users if user.endswith(".0"))
    named = _named(table)
    found = []
    if halves:
        found.append(
            f"{halves} users are there as whole numbers and as the same with .0 behind; they count as different ones, "
            f"so write them alike if they are not"
        )
    if named:
        where = f", the first in {table[named[0]].where}" if table[named[0]].where else ""
        found.append(
            f"the questions of {len(named)} items hold the id of their user{where}; whatever keeps questions, such as "
            f"the cloud's answers and what devices replay, keeps those ids"
        )
    return found


def _named(table: ItemTable) -> list[int]:
    """Indices of the items whose question holds their user's id."""
    user = table.columns["user"]
    long = np.array([*(len(name) >= _SHORTEST for name in user.known), False])  # the last is that of None
    asked = np.flatnonzero(long[user.codes])
    names = table.of_field("user", asked)
    pairs = zip(asked.tolist(), names, table.questions(asked), strict=True)
    return [index for index, name, question in pairs if name in question]
