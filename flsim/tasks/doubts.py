"""What is doubtful about the items of a data set: two answers to one question, copies across splits, rows twice.

Data of many annotators have all of it, and a run can do with it. So it is told, with rows, in the log and on the page;
`strict` refuses it. What people wrote is not shown there: of a user's item only the row.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from flsim.problems.problem import SPLITS
from flsim.tasks.item import Item, key_of
from flsim.tasks.item_table import ItemTable, table_of
from flsim.tasks.splits import DROPPED

_SHOWN = 60  # letters of a question


def doubts(items: Sequence[Item], splits: Sequence[int], *, code: bool = False) -> list[str]:
    """Sentences about items, each with an example and its rows; empty where there is nothing to tell.

    Args:
        items: N items.
        splits: index into `SPLITS`, or `DROPPED`, N of them.
        code: whether answers are tests, of which a question may have several kinds that one program meets.
    """
    table = table_of(items)
    several = _several(table)
    return [
        *([] if code else _contradictions(table, several)),
        *_copies(table, splits, several),
        *_alike(table, splits, several),
        *_twice(table, splits, several),
    ]


def _several(table: ItemTable) -> list[list[int]]:
    """Indices of the items that ask one question, for every question that more than one asks."""
    first = table.first_alike
    asked = np.bincount(first, minlength=len(table))  # (N,), how often, at the first that asks
    by_first: dict[int, list[int]] = defaultdict(list)
    for index in np.flatnonzero(asked[first] > 1).tolist():
        by_first[int(first[index])].append(index)
    return list(by_first.values())


def _contradictions(items: Sequence[Item], several: Sequence[Sequence[int]]) -> list[str]:
    """One user's question with two answers; other users may be of another mind."""
    found = []
    for indices in several:
        first: dict[str | None, int] = {}
        for index in indices:
            other = first.setdefault(items[index].user, index)
            if key_of(items[other].answer) != key_of(items[index].answer):
                found.append((other, index))
                break
    if not found:
        return []
    return [
        f"{_number(found, 'question has', 'questions have')} two answers of one user, such as "
        f"{_pair(items, *found[0])}: whatever is said to it, one of the two calls it wrong"
    ]


def _copies(items: Sequence[Item], splits: Sequence[int], several: Sequence[Sequence[int]]) -> list[str]:
    """Copies that were left out, by the split that kept the question."""
    kept: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for indices in several:
        staying = [index for index in indices if splits[index] != DROPPED]
        for index in indices:
            if splits[index] == DROPPED:
                kept[splits[staying[0]]].append((index, staying[0]))
    return [
        f"left out {_number(pairs, 'item', 'items')} whose question {SPLITS[split]} asks too, such as "
        f"{_pair(items, *pairs[0])}"
        for split, pairs in sorted(kept.items())
    ]


def _alike(items: ItemTable, splits: Sequence[int], several: Sequence[Sequence[int]]) -> list[str]:
    """Questions of two splits that differ in capital letters or in forms of one character only; both stay."""
    asking = np.flatnonzero(items.first_alike == np.arange(len(items)))  # one of each question
    folded = np.fromiter(map(hash, items.keys(asking, _folded)), np.int64, len(asking))
    _, which, count = np.unique(folded, return_inverse=True, return_counts=True)
    shared = asking[count[which] > 1]
    stands = {indices[0]: next((one for one in indices if splits[one] != DROPPED), indices[0]) for indices in several}
    first: dict[str, int] = {}
    pairs = []
    for key, one in zip(items.keys(shared, _folded), shared.tolist(), strict=True):
        index = stands.get(one, one)
        other = first.setdefault(key, index)
        if splits[other] != splits[index]:
            pairs.append((other, index))
    if not pairs:
        return []
    one, other = pairs[0]
    return [
        f"{_number(pairs, 'question is', 'questions are')} in another split too, but for capital letters or forms of "
        f"characters, such as {_pair(items, one, other)} of {SPLITS[splits[one]]} and {SPLITS[splits[other]]}; both "
        f"stay"
    ]


def _twice(items: Sequence[Item], splits: Sequence[int], several: Sequence[Sequence[int]]) -> list[str]:
    """Items of one user and split that are there again with the same answer."""
    pairs = []
    for indices in several:
        first: dict[tuple[str | None, int, str], int] = {}
        for index in indices:
            item = items[index]
            other = first.setdefault((item.user, splits[index], key_of(item.answer)), index)
            if other != index and splits[index] != DROPPED:
                pairs.append((other, index))
    if not pairs:
        return []
    return [
        f"{_number(pairs, 'item is', 'items are')} there again with the same user, split and answer, such as "
        f"{_pair(items, *pairs[0])}; each counts and is drawn as an item of its own"
    ]


def _folded(key: str) -> str:
    """A key without capital letters and forms of characters; no character combines with the space between two lines."""
    return key.casefold() if key.isascii() else unicodedata.normalize("NFKC", key).casefold()


def _number(found: Sequence[object], one: str, more: str) -> str:
    return f"{len(found):,} {one if len(found) == 1 else more}"


def _pair(items: Sequence[Item], one: int, other: int) -> str:
    """Two items by their rows, and by question and answer where these are nobody's."""
    places = [items[index].where or f"item {index + 1}" for index in (one, other)]
    (file, row, first), (same, _, second) = (place.rpartition(", row ") for place in places)
    rows = f"{file}, rows {first} and {second}" if row and file == same else " and ".join(places)
    if items[one].user is not None:
        return rows
    answers = " and ".join(dict.fromkeys(_short(items[index].answer) for index in (one, other)))
    return f"{rows} ({_short(items[one].question)} with {answers})"


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…")
