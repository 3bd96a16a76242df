"""A data set of one's own: JSONL, CSV or parquet files and a column map.

files={"train": "train.jsonl", "test": "test.jsonl"}        a file, or a pattern such as part-*.parquet, per split
files={"all": "questions.csv"}                              one for all; the column `split` or a hash splits it
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from flsim.config import ConfigError
from flsim.tasks.data.columns import Columns
from flsim.tasks.data.item import Item
from flsim.tasks.data.known_set import matches
from flsim.tasks.data.rows import rows_of
from flsim.tasks.problem import SPLITS

ALL = "all"


def own(root: Path, *, files: Mapping[str, str], columns: Mapping[str, str], levels: Sequence[str] = ()) -> list[Item]:
    """Items of one's own files.

    Args:
        root: folder that the files are relative to.
        files: split (`train`, `validation`, `test`, or `all`) -> file or pattern.
        columns: field of an item -> column, or template (`flsim/tasks/data/columns.py`).
        levels: words of difficulty from easy to hard; empty where the column holds whole numbers.

    Raises:
        ConfigError: for a file that is not there, a missing column or a bad row, by its number.
    """
    mapped = Columns(columns, levels=levels)
    return [
        mapped.item(row, None if split == ALL else split)
        for split, paths in own_files(root, files).items()
        for path in paths
        for row in rows_of(path)
    ]


def own_files(root: Path, files: Mapping[str, str]) -> dict[str, tuple[Path, ...]]:
    """The files of each split.

    Raises:
        ConfigError: if there are none, a split is not known, or a file is not there.
    """
    if not files:
        raise ConfigError(
            'files: names no file; give a file or a pattern per split, such as {"train": "train.jsonl", '
            '"test": "test.jsonl"}, or {"all": "questions.csv"}'
        )
    found = {}
    for split, pattern in files.items():
        if split not in (*SPLITS, ALL):
            raise ConfigError(f"files: there is no split {split!r}; it is one of: {', '.join((*SPLITS, ALL))}")
        found[split] = matches(root, pattern)
        if not found[split]:
            raise ConfigError(f"files: the {split} file is not there; looked for {root / pattern}")
    return found
