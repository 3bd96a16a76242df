"""A data set of one's own: JSONL, CSV or parquet files and a column map, or what `datasets` can load.

files={"train": "train.jsonl", "test": "test.jsonl"}        a file, or a pattern such as part-*.parquet, per split
files={"all": "questions.csv"}                              one for all; the column `split` or a hash splits it
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
    keep: Sequence[str] = (),
    encoding: str = "utf-8",
) -> list[Item]:
    """Items of one's own files.

    Args:
        root: folder that the files are relative to.
        files: split (`train`, `validation`, `test`, or `all`) -> file or pattern.
        columns: field of an item -> column, or template (`flsim/tasks/columns.py`).
        levels: words of difficulty from easy to hard; empty where the column holds whole numbers.
        keep: columns that a reward function is given under their names.
        encoding: of the files that have no byte order mark.

    Raises:
        ConfigError: for a file that is not there, a missing column or a bad row, by its number.
    """
    mapped = Columns(columns, levels=levels)
    return [
        keeping(mapped.item(row, None if split == ALL else split), row, keep)
        for split, found in own_files(root, files, encoding).items()
        for row in rows_of_all(found)
    ]


def keeping(item: Item, row: Row, columns: Sequence[str]) -> Item:
    """An item with columns of its row that a reward function is to get.

    Raises:
        ConfigError: if there is no such column, or it is called as what the function gets anyway.
    """
    taken = next((name for name in columns if name in ("prompts", "completions")), None)
    if taken is not None:
        raise ConfigError(f"keep: a reward function gets {taken} of the run; rename the column {taken!r}")
    kept = {name: row[name] for name in columns}
    return replace(item, extra=json.dumps(kept, ensure_ascii=False, default=str)) if kept else item


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


@dataclass(frozen=True)
class Streaming:
    """How a split is streamed: so many rows at most, shuffled within a buffer that moves over it."""

    first: int
    buffer: int
    seed: int


def hub(
    name: str,
    config: str | None = None,
    *,
    splits: Mapping[str, str] | None = None,
    columns: Mapping[str, str] | None = None,
    levels: Sequence[str] = (),
    keep: Sequence[str] = (),
    data_files: Mapping[str, Any] | None = None,
    revision: str | None = None,
    streaming: bool = False,
    first: int | None = None,
    buffer: int = 1000,
    seed: int = 0,
    item: Callable[[Row, str | None], Item] | None = None,
) -> list[Item]:
    """Items of a data set that `datasets` loads.

    Args:
        name: on Hugging Face, a folder with data files, or a format such as `parquet` or `webdataset`.
        config: the data set's configuration, such as `main`; None if it has but one.
        splits: our split (or `all`, which a hash splits) -> the data set's split, such as `{"test": "test[:100]"}`;
            None takes those that are called as ours are.
        columns: field of an item -> column, or template; None where `item` is given.
        levels: words of difficulty from easy to hard.
        keep: columns that a reward function is given under their names.
        data_files: of a format: the data set's split -> a file, a pattern, or several.
        revision: of a data set on Hugging Face: a commit, a tag or a branch; None is its newest.
        streaming: whether rows are taken as they come, and no more of them than `first`, so that a data set larger than
            the disk can be used; else all of it is brought and kept in the cache of `datasets`.
        first: of every split that is streamed, rows at most.
        buffer: rows out of which the next is drawn at random; 0 takes them in their order.
        seed: of that draw.
        item: how a row of a known set becomes an item, in place of `columns`.

    Raises:
        ConfigError: if `datasets` is not installed, the data set or a split cannot be loaded, or a row is bad.
    """
    if (columns is None) == (item is None):
        raise ConfigError(f"{name}: give either columns or item, so that rows become items in one way")
    stream = _streaming(name, streaming, first, buffer, seed)
    more = {"data_files": data_files, "revision": revision}
    given = {key: value for key, value in more.items() if value is not None}
    read = item if item is not None else Columns(columns or {}, levels=levels).item
    return [
        keeping(item_of(read, row, None if split == ALL else split), row, keep)
        for split, theirs in (_named_splits(name, config, stream, given) if splits is None else splits).items()
        for row in hub_rows(name, config, split=theirs, stream=stream, **given)
    ]


def hub_rows(
    name: str, config: str | None = None, *, split: str, stream: Streaming | None = None, **given: Any
) -> Iterator[Row]:
    """Rows of one split.

    Raises:
        ConfigError: if `datasets` is not installed, or cannot load it.
    """
    found = _loaded(name, config, split, stream, **given)
    if stream is not None:
        shuffled = found.shuffle(seed=stream.seed, buffer_size=stream.buffer) if stream.buffer else found
        found = shuffled.take(stream.first)
    rows, number = iter(found), 0
    while True:
        number += 1
        try:
            values = next(rows, None)
        except Exception as error:  # while it streams, whatever `datasets` and its file systems raise
            raise _not_loaded(name, config, split, error, f" beyond row {number - 1}") from error
        if values is None:
            return
        yield Row(values, f"{name}, split {split}, row {number}")


def _streaming(name: str, streaming: bool, first: int | None, buffer: int, seed: int) -> Streaming | None:
    """How to stream; None: not at all.

    Raises:
        ConfigError: if what streaming needs is not given, or given without it.
    """
    if not streaming:
        if first is not None:
            raise ConfigError(
                f"{name}: first={first} is for streaming: set streaming=true, or take a part of a split, such as "
                f'splits={{"train": "train[:{first}]"}}'
            )
        return None
    if first is None or first < 1 or buffer < 0 or seed < 0:
        raise ConfigError(
            f"{name}: streaming needs first, how many rows to take at most of each split (at least 1), and a buffer "
            f"and a seed of at least 0; it was given first={first}, buffer={buffer} and seed={seed}"
        )
    return Streaming(first, buffer, seed)


def _named_splits(name: str, config: str | None, stream: Streaming | None, given: Mapping[str, Any]) -> dict[str, str]:
    """The data set's splits that are called as ours are."""
    there = list(_loaded(name, config, None, stream, **given))
    if not set(there) & set(SPLITS):
        raise ConfigError(
            f"{name}: has the splits {', '.join(there)}; say which is which, such as splits={{'all': {there[0]!r}}}"
        )
    return {split: split for split in SPLITS if split in there}


def _loaded(name: str, config: str | None, split: str | None, stream: Streaming | None, **given: Any) -> Any:
    """One split, or by None all of them by name."""
    try:
        import datasets
    except ImportError:
        raise ConfigError(f"{name}: needs the package datasets; pip install 'flsim-continual[data]'") from None
    if stream is not None and split is not None and "[" in split:
        raise ConfigError(
            f"{name}: the split {split!r} is a part of one, which cannot be streamed; name "
            f"{split.partition('[')[0]!r}, and say first"
        )
    try:
        return datasets.load_dataset(name, config, split=split, streaming=stream is not None, **given)
    except Exception as error:  # it raises errors of many libraries: network, cache, script, split, file format
        raise _not_loaded(name, config, split, error) from error


def _not_loaded(name: str, config: str | None, split: str | None, error: Exception, where: str = "") -> ConfigError:
    return ConfigError(
        f"{name}: datasets cannot load split {split!r} of configuration {config!r}{where} ({type(error).__name__}: "
        f"{error}). Check the name on https://huggingface.co/datasets; offline, load it once with the network on"
    )


FILES = Reader(own, files=own_files)
"""A data set of one's own: JSONL, CSV or parquet files and a column map."""
DATASETS = Reader(hub, rooted=False)
"""Whatever Hugging Face's `datasets` can load, with a column map; an extra, `data`."""
