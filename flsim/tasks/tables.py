"""Rows of files: JSON lines, JSON, CSV and parquet, each row with the place that an error can name.

{"question": "...", "answer": "..."}        .jsonl, .jsonl.gz: an object per line
[{"question": ...}, ...]                    .json: a list of objects, or one object
question,answer                             .csv, .tsv: a header line, unless column names are given
columns question, answer                    .parquet
"""

import csv
import gzip
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow.parquet as pq

from flsim.config.schema import ConfigError

_BATCH = 4096  # rows of a parquet file in memory at once
_LONGEST_FIELD = 2**27  # characters; the csv module's own limit is 131,072, which long prompts exceed


@dataclass(frozen=True)
class Row:
    """One row of a data set and where it came from."""

    values: Mapping[str, Any]
    where: str
    """For messages, such as `data/train.jsonl, row 17`."""

    def error(self, what: str) -> ConfigError:
        """An error that names this row."""
        return ConfigError(f"{self.where}: {what}")

    def __getitem__(self, column: str) -> Any:
        """The value of a column.

        Raises:
            ConfigError: if there is no such column; says which there are.
        """
        if column not in self.values:
            there = ", ".join(map(str, self.values)) or "none"
            raise self.error(f"there is no column {column!r}; the columns are: {there}")
        return self.values[column]

    def text(self, column: str) -> str:
        """The value as text.

        Raises:
            ConfigError: if the column is missing or empty.
        """
        text = text_of(self[column])
        if text is None or not text.strip():
            raise self.error(f"column {column!r} is empty")
        return text


def text_of(value: Any) -> str | None:
    """A value as text: 3.0 as `3`, a list as lines, an object as JSON; None for a missing value (None or nan)."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, list | tuple):
        return "\n".join(text_of(part) or "" for part in value)
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def jsonl_rows(path: Path) -> Iterator[Row]:
    """Objects of a JSON-lines file, also gzipped; empty lines are passed over."""
    with _opened(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _json_row(line, f"{path}, row {number}")


def json_rows(path: Path) -> Iterator[Row]:
    """Objects of a JSON file that holds a list of them, or one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path}: is not JSON ({error})") from None
    for number, value in enumerate(found if isinstance(found, list) else [found], 1):
        where = f"{path}, row {number}" if isinstance(found, list) else str(path)
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: is a {type(value).__name__}, not an object with columns")
        yield Row(value, where)


def csv_rows(
    path: Path,
    *,
    names: Sequence[str] | None = None,
    delimiter: str | None = None,
    encoding: str = "utf-8-sig",
    quoted: bool = True,
) -> Iterator[Row]:
    """Rows of a CSV file, all values as text, so that `007` stays what it is.

    Args:
        path: of the file.
        names: of the columns, where the file has no header line; None reads the header.
        delimiter: None means tab for `.tsv` and comma for all else.
        encoding: of the file.
        quoted: whether quotation marks enclose a value; if not, they are part of it.
    """
    csv.field_size_limit(_LONGEST_FIELD)
    delimiter = delimiter or ("\t" if path.suffix == ".tsv" else ",")
    with path.open(encoding=encoding, newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE)
        header = list(names) if names is not None else next(reader, [])
        for number, cells in enumerate(reader, 1):
            if not cells:
                continue
            where = f"{path}, row {number}"
            if len(cells) != len(header):
                columns = ", ".join(header)
                raise ConfigError(f"{where}: has {len(cells)} values for the {len(header)} columns {columns}")
            yield Row(dict(zip(header, cells, strict=True)), where)


def parquet_rows(path: Path) -> Iterator[Row]:
    """Rows of a parquet file, a few thousand in memory at once."""
    number = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_BATCH):
            for values in batch.to_pylist():
                number += 1
                yield Row(values, f"{path}, row {number}")


def rows_of(path: Path) -> Iterator[Row]:
    """Rows of a file by its ending.

    Raises:
        ConfigError: if the ending is none of those above.
    """
    for ending, read in _BY_ENDING.items():
        if path.name.endswith(ending):
            return read(path)
    raise ConfigError(f"{path}: cannot tell its format by its name; it must end in one of: {', '.join(_BY_ENDING)}")


def rows_of_all(paths: Iterable[Path]) -> Iterator[Row]:
    """Rows of several files, one after the other."""
    for path in paths:
        yield from rows_of(path)


def _opened(path: Path) -> IO[str]:
    return gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")


def _json_row(line: str, where: str) -> Row:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"{where}: is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: is a {type(value).__name__}, not an object with columns")
    return Row(value, where)


_BY_ENDING: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": jsonl_rows,
    ".jsonl.gz": jsonl_rows,
    ".json": json_rows,
    ".csv": csv_rows,
    ".tsv": csv_rows,
    ".parquet": parquet_rows,
}
