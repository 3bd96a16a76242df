"""A data set of one's own: JSONL, CSV or parquet files and a column map, or what `datasets` can load.

files={"train": "train.jsonl", "test": "test.jsonl"}        a file, or a pattern such as part-*.parquet, per split
files={"all": "questions.csv"}                              one for all; the column `split` or a hash splits it
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flsim.config.schema import ConfigError
from flsim.problems.problem import SPLITS
from flsim.tasks.columns import Columns
from flsim.tasks.data_file import DataFile
from flsim.tasks.item import Item
from flsim.tasks.known_set import Reader, item_of, matches
from flsim.tasks.tables import Row, rows_of_all

ALL = "all"


def own(
    root: Path,
    *,
    files: Mapping[str, str],
    columns: Mapping[str, str],
    levels: Sequence[str] = (),
    encoding: str = "utf-8",
) -> list[Item]:
    """Items of one's own files.

    Args:
        root: folder that the files are relative to.
        files: split (`train`, `validation`, `test`, or `all`) -> file or pattern.
        columns: field of an item -> column, or template (`flsim/tasks/columns.py`).
        levels: words of difficulty from easy to hard; empty where the column holds whole numbers.
        encoding: of the files that have no byte order mark.

    Raises:
        ConfigError: for a file that is not there, a missing column or a bad row, by its number.
    """
    mapped = Columns(columns, levels=levels)
    return [
        mapped.item(row, None if split == ALL else split)
        for split, found in own_files(root, files, encoding).items()
        for row in rows_of_all(found)
    ]


def own_files(root: Path, files: Mapping[str, str], encoding: str = "utf-8") -> dict[str, tuple[DataFile, ...]]:
    """The files of each split.

    Raises:
        ConfigError: if there are none, a split is not known, a file is not there, or is of two splits.
    """
    if not files:
        raise ConfigError(
            'files: names no file; give a file or a pattern per split, such as {"train": "train.jsonl", '
            '"test": "test.jsonl"}, or {"all": "questions.csv"}'
        )
    found: dict[str, tuple[DataFile, ...]] = {}
    for split, pattern in files.items():
        if split not in (*SPLITS, ALL):
            raise ConfigError(f"files: there is no split {split!r}; it is one of: {', '.join((*SPLITS, ALL))}")
        own = matches(root, pattern, encoding)
        if not own:
            raise ConfigError(f"files: the {split} file is not there; looked for {root / pattern}")
        for other, theirs in found.items():
            for file in set(own) & set(theirs):
                raise ConfigError(
                    f"files: {file} is both of {other} and of {split}, so that tests would hold what was learned; "
                    f"give each split its own file, or name it as {ALL!r} to have it split"
                )
        found[split] = own
    return found


# Any data set that Hugging Face `datasets` can load, by name or from a folder; an optional extra, `data`.
#
#     hub_rows("openai/gsm8k", "main", split="train")        from the network, or from its cache when that is off
#
# Offline (`HF_HUB_OFFLINE=1`) only what was loaded before is there, and the error says so.


def hub(
    name: str,
    config: str | None = None,
    *,
    splits: Mapping[str, str] | None = None,
    columns: Mapping[str, str] | None = None,
    levels: Sequence[str] = (),
    item: Callable[[Row, str | None], Item] | None = None,
) -> list[Item]:
    """Items of a data set that `datasets` loads.

    Args:
        name: on Hugging Face, or a folder with data files.
        config: the data set's configuration, such as `main`; None if it has but one.
        splits: our split (or `all`, which a hash splits) -> the data set's split, such as `{"test": "test[:100]"}`;
            None takes those that are called as ours are.
        columns: field of an item -> column, or template; None where `item` is given.
        levels: words of difficulty from easy to hard.
        item: how a row of a known set becomes an item, in place of `columns`.

    Raises:
        ConfigError: if `datasets` is not installed, the data set or a split cannot be loaded, or a row is bad.
    """
    if (columns is None) == (item is None):
        raise ConfigError(f"{name}: give either columns or item, so that rows become items in one way")
    read = item if item is not None else Columns(columns or {}, levels=levels).item
    return [
        item_of(read, row, None if split == "all" else split)
        for split, theirs in (_named_splits(name, config) if splits is None else splits).items()
        for row in hub_rows(name, config, split=theirs)
    ]


def hub_rows(name: str, config: str | None = None, *, split: str) -> Iterator[Row]:
    """Rows of one split.

    Raises:
        ConfigError: if `datasets` is not installed, or cannot load it.
    """
    for number, values in enumerate(_loaded(name, config, split), 1):
        yield Row(values, f"{name}, split {split}, row {number}")


def _named_splits(name: str, config: str | None) -> dict[str, str]:
    """The data set's splits that are called as ours are."""
    there = list(_loaded(name, config, None))
    if not set(there) & set(SPLITS):
        raise ConfigError(
            f"{name}: has the splits {', '.join(there)}; say which is which, such as splits={{'all': {there[0]!r}}}"
        )
    return {split: split for split in SPLITS if split in there}


def _loaded(name: str, config: str | None, split: str | None) -> Iterable[Any]:
    """One split, or by None all of them by name."""
    try:
        import datasets
    except ImportError:
        raise ConfigError(f"{name}: needs the package datasets; pip install 'flsim-continual[data]'") from None
    try:
        found: Iterable[Any] = datasets.load_dataset(name, config, split=split)
    except Exception as error:  # it raises errors of many libraries: network, cache, script, split, file format
        raise ConfigError(
            f"{name}: datasets cannot load split {split!r} of configuration {config!r} ({type(error).__name__}: "
            f"{error}). Check the name on https://huggingface.co/datasets; offline, load it once with the network on"
        ) from error
    return found


FILES = Reader(own, files=own_files)
"""A data set of one's own: JSONL, CSV or parquet files and a column map."""
DATASETS = Reader(hub, rooted=False)
"""Whatever Hugging Face's `datasets` can load, with a column map; an extra, `data`."""
