"""Data with users: Sentiment140, and whatever LEAF has written."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from flsim.config.schema import ConfigError
from flsim.tasks.columns import Columns
from flsim.tasks.data_file import DataFile
from flsim.tasks.item import Item
from flsim.tasks.known_set import Found, KnownSet, Reader
from flsim.tasks.readers.own import ALL, own_files
from flsim.tasks.tables import Row, csv_rows, json_document

# Sentiment140: 1.6 million tweets of 660,000 users, labelled by their emoticons (Go, Bhayani and Huang 2009).
#
#     "0","1467810369","Mon Apr 06 22:19:45 PDT 2009","NO_QUERY","_TheSpecialOne_","awww, that's a bummer."
#
# No header; polarity (0 negative, 2 neutral, 4 positive), id, date, query, user, text; Latin-1. Users are LEAF's
# (Caldas et al. 2018, arXiv 1812.01097). Half of the users have one tweet: `by_user(..., least=...)` leaves them out.
# The hand-labelled test file comes from other users and has neutral tweets; it is read only if `files` names it.

_COLUMNS = ("target", "id", "date", "flag", "user", "text")


_WORDS = {"0": "negative", "2": "neutral", "4": "positive"}


def sentiment140_item(row: Row, split: str | None) -> Item:
    """One tweet; the answer is `positive` or `negative`, the score label 1 or 0."""
    target = row.text("target")
    if target not in _WORDS:
        raise row.error(f"the target {target!r} is none of: 0 (negative), 2 (neutral), 4 (positive)")
    answer = _WORDS[target]
    question = f"Tweet: {row.text('text').strip()}\nIs its mood positive or negative?"
    score_label = {"0": 0, "4": 1}.get(target)
    return Item(question, answer, user=row.text("user"), label=answer, split=split, score_label=score_label)


def _read(found: Found) -> list[Item]:
    """The whole has no split of its own, so that every user's tweets are split by hash."""
    return [
        sentiment140_item(row, None if part == "all" else part)
        for part, files in found.items()
        for file in files
        for row in csv_rows(file, names=_COLUMNS, encoding="latin-1", strict=False)  # tweets quote as they like
    ]


SENTIMENT140 = KnownSet(
    name="sentiment140",
    files={"all": ("training.1600000.processed.noemoticon.csv",)},
    read=_read,
    item=None,
    verifier="exact",
    source="Get it from http://help.sentiment140.com/for-students (trainingandtestdata.zip).",
    licence="no licence is stated; tweets stay subject to the platform's terms",
    columns=_COLUMNS,
)
"""Sentiment140: tweets by users, happy or not (Go et al. 2009)."""


# LEAF's JSON: users with their own examples (Caldas et al. 2018, arXiv 1812.01097).
#
#     {"users": ["f_00000", ...], "num_samples": [8, ...], "user_data": {"f_00000": {"x": [...], "y": [...]}, ...}}
#
# Made by LEAF (https://github.com/TalwalkarLab/leaf) into `train/` and `test/`, as many files as it likes. What an x
# is differs: 80 characters of Shakespeare, a tweet with its fields (`question="{x[4]}"`), a vector of numbers. A
# template writes a vector as numbers of four digits with spaces between. A y may be a space: Shakespeare's next letter
# is one in five times.

FILES = {"train": "train/*.json", "test": "test/*.json"}


COLUMNS = {"question": "{x}", "answer": "y"}


def leaf(
    root: Path,
    *,
    files: Mapping[str, str] | None = None,
    columns: Mapping[str, str] | None = None,
    encoding: str = "utf-8",
) -> list[Item]:
    """Items of LEAF files, each with its user.

    Args:
        root: folder that the files are relative to.
        files: split -> file or pattern; None means LEAF's own `train/*.json` and `test/*.json`.
        columns: field of an item -> `x`, `y`, `user`, or a template of them; None: x is the question, y the answer.
        encoding: of the files that have no byte order mark.

    Raises:
        ConfigError: for a file that is not there, or one that is not LEAF's.
    """
    mapped = Columns({"user": "user", **(COLUMNS if columns is None else columns)}, blank_answers=True)
    return [
        mapped.item(row, None if split == ALL else split)
        for split, found in own_files(root, FILES if files is None else files, encoding).items()
        for file in found
        for row in leaf_rows(file)
    ]


def leaf_rows(file: DataFile) -> Iterator[Row]:
    """Rows with the columns `user`, `x` and `y`, the users in the file's order; a row's place numbers its user from 1.

    Raises:
        ConfigError: if a part of the format is missing, or a user's x and y are of unequal length.
    """
    found = json_document(file)
    missing = {"users", "user_data"} - (found.keys() if isinstance(found, dict) else set())
    if missing:
        raise ConfigError(f"{file}: is no LEAF file; it has no {' and no '.join(sorted(missing))}")
    users, data = found["users"], found["user_data"]
    if not isinstance(users, list) or not isinstance(data, dict):
        raise ConfigError(f"{file}: is no LEAF file; 'users' must be a list, and 'user_data' an object with their data")
    for place, user in enumerate(users, 1):
        where = f"{file}, user {place}"
        own = data.get(user) if isinstance(user, str) else None
        if own is None:
            raise ConfigError(f"{where}: is listed in 'users' and has no 'user_data'")
        x, y = (own.get(name) if isinstance(own, dict) else None for name in "xy")
        if not isinstance(x, list) or not isinstance(y, list) or len(x) != len(y):
            raise ConfigError(f"{where}: needs lists 'x' and 'y' of equal length")
        for number, (one, label) in enumerate(zip(x, y, strict=True), 1):
            yield Row({"user": user, "x": one, "y": label}, f"{where}, row {number}")


LEAF = Reader(leaf, files=lambda root, files, encoding: own_files(root, FILES if files is None else files, encoding))
"""Whatever LEAF has written, by its users (Caldas et al. 2018, arXiv 1812.01097)."""
