"""LEAF's JSON: users with their own examples (Caldas et al. 2018, arXiv 1812.01097).

    {"users": ["f_00000", ...], "num_samples": [8, ...], "user_data": {"f_00000": {"x": [...], "y": [...]}, ...}}

Made by LEAF (https://github.com/TalwalkarLab/leaf) into `train/` and `test/`, as many files as it likes. What an x is
differs: 80 characters of Shakespeare, a tweet with its fields (`question="{x[4]}"`), a vector of numbers. A template
writes a vector as numbers of four digits with spaces between.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flsim.config import ConfigError
from flsim.tasks.data.columns import Columns
from flsim.tasks.data.item import Item
from flsim.tasks.data.readers.own import ALL, own_files
from flsim.tasks.data.rows import Row

FILES = {"train": "train/*.json", "test": "test/*.json"}
COLUMNS = {"question": "{x}", "answer": "y"}


def leaf(root: Path, *, files: Mapping[str, str] | None = None, columns: Mapping[str, str] | None = None) -> list[Item]:
    """Items of LEAF files, each with its user.

    Args:
        root: folder that the files are relative to.
        files: split -> file or pattern; None means LEAF's own `train/*.json` and `test/*.json`.
        columns: field of an item -> `x`, `y`, `user`, or a template of them; None: x is the question, y the answer.

    Raises:
        ConfigError: for a file that is not there, or one that is not LEAF's.
    """
    mapped = Columns({"user": "user", **(COLUMNS if columns is None else columns)})
    return [
        mapped.item(row, None if split == ALL else split)
        for split, paths in own_files(root, FILES if files is None else files).items()
        for path in paths
        for row in leaf_rows(path)
    ]


def leaf_rows(path: Path) -> Iterator[Row]:
    """Rows with the columns `user`, `x` and `y`, the users in the file's order.

    Raises:
        ConfigError: if a part of the format is missing, or a user's x and y are of unequal length.
    """
    found = _document(path)
    for user in found["users"]:
        if user not in found["user_data"]:
            raise ConfigError(f"{path}: user {user!r} is listed in 'users' and has no 'user_data'")
        data = found["user_data"][user]
        if not isinstance(data, dict) or not {"x", "y"} <= data.keys() or len(data["x"]) != len(data["y"]):
            raise ConfigError(f"{path}, user {user!r}: needs lists 'x' and 'y' of equal length")
        for number, (x, y) in enumerate(zip(data["x"], data["y"], strict=True), 1):
            yield Row({"user": user, "x": x, "y": y}, f"{path}, user {user!r}, row {number}")


def _document(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path}: is not JSON ({error})") from None
    missing = {"users", "user_data"} - (found.keys() if isinstance(found, dict) else set())
    if missing:
        raise ConfigError(f"{path}: is no LEAF file; it has no {' and no '.join(sorted(missing))}")
    return dict(found)
