"""Which split each item belongs to: the data set's own where it has one, else a hash; no question is in two splits."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flsim.config.schema import ConfigError
from flsim.problems.problem import SPLITS, split_of
from flsim.tasks.item import Item
from flsim.tasks.item_table import NONE, ItemTable, table_of

RULES = ("official", "hash")


DROPPED = -1
"""In place of a split: a copy of a question that a more held-out split has."""


def split_items(items: Sequence[Item], rule: str = "official") -> NDArray[np.int8]:
    """The split of every item.

    `official` takes `Item.split`, and the hash of the question (`problem.split_of`, white space made equal)
    where that is None. If the data set has official training items but no validation or no test split, its training
    questions whose hash says so become that split: GSM8K's 7,473 give about 12 % to validation and none to test, which
    it has. `hash` takes the hash for all: for sets that are all test, such as HumanEval, or that hardly train, as MMLU.

    A question that several items ask stays in one split: test before validation before train. Under `official`, the
    copies in the other splits are dropped, so that an official test set keeps its size.

    Args:
        items: N items.
        rule: `official` or `hash`.

    Returns:
        Index into `SPLITS`, or `DROPPED`, shape `(N,)`.

    Raises:
        ConfigError: if the rule or an official split is unknown.
    """
    if rule not in RULES:
        raise ConfigError(f"splits={rule!r} is not known; it is one of: {', '.join(RULES)}")
    table = table_of(items)
    splits = _hashed(table, np.full(len(table), NONE, dtype=np.int8)) if rule == "hash" else _official(table)  # (N,)
    most_held_out = splits.copy()  # (N,), of the first that asks a question
    np.maximum.at(most_held_out, table.first_alike, splits)
    return np.where(most_held_out[table.first_alike] == splits, splits, np.int8(DROPPED))


def _official(table: ItemTable) -> NDArray[np.int8]:
    """The items' own splits, and by the hash those that have none, or that are to make up a split that lacks."""
    given = set(table.columns["split"].used())
    if given - set(SPLITS):
        unknown = next(name for name in table.columns["split"].used() if name not in SPLITS)
        raise ConfigError(f"an item's split is {unknown!r}; it is one of: {', '.join(SPLITS)}, or None")
    numbers = [SPLITS.index(name) if name in SPLITS else NONE for name in table.columns["split"].known]
    own = np.array([*numbers, NONE], dtype=np.int8)[table.columns["split"].codes]  # (N,), the last is that of None
    lacking = [SPLITS.index(name) for name in ("validation", "test") if name not in given] if "train" in given else []
    found = _hashed(table, np.where(own == SPLITS.index("train"), NONE, own) if lacking else own)
    made_up = (own == NONE) | np.isin(found, lacking)  # (N,)
    return np.where(made_up, found, own).astype(np.int8)


def _hashed(table: ItemTable, splits: NDArray[np.int8]) -> NDArray[np.int8]:
    """The splits with the hash's where there is none, `(N,)`."""
    open_ = np.flatnonzero(splits == NONE)
    found = splits.copy()
    found[open_] = [SPLITS.index(split_of(key)) for key in table.keys(open_)]
    return found
