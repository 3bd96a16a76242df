"""Rows of files: JSON lines, JSON, CSV and parquet, each row with the place that an error can name.

{"question": "...", "answer": "..."}        .jsonl: an object per line
[{"question": ...}, ...]                    .json: a list of objects, or one object
question,answer                             .csv, .tsv: a header line, unless column names are given
columns question, answer                    .parquet

All but parquet may be gzipped, with `.gz` behind the name. A file without a row is refused: it is what a broken
download, or a step of one's own that failed, leaves.
"""

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

import pyarrow.parquet as pq

from flsim.config.schema import ConfigError
from flsim.tasks.data_file import DataFile

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
        """The value of a column; bytes, as some write text into parquet, as the UTF-8 that they are.

        Raises:
            ConfigError: if there is no such column (says which there are), or its bytes are no text.
        """
        if column not in self.values:
            there = ", ".join(map(str, self.values)) or "none"
            raise self.error(f"there is no column {column!r}; the columns are: {there}")
        value = self.values[column]
        if isinstance(value, bytes):
            try:
                return value.decode()
            except UnicodeDecodeError:
                raise self.error(f"column {column!r} holds bytes that are no text in UTF-8") from None
        return value

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
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


# JSON. Python's reader is lenient where a column would be lost or a value made up: a name twice, Infinity.


def jsonl_rows(file: DataFile) -> Iterator[Row]:
    """Objects of a JSON-lines file; empty lines are passed over, and a row's number is its line's."""
    found = False
    with file.text() as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                where = f"{file}, row {number}"
                file.undecoded(line, where)
                hint = "a line must hold a whole object; a list, or an object over several lines, is .json"
                yield _row(_parsed(line, where, hint), where)
                found = True
    _refuse_empty(file, found)


def json_rows(file: DataFile) -> Iterator[Row]:
    """Objects of a JSON file that holds a list of them, or one."""
    found = json_document(file)
    if isinstance(found, dict) and _is_by_column(found):
        raise ConfigError(
            f"{file}: holds a list per column, not an object per row; write rows, such as by pandas' "
            f"to_json(path, orient='records')"
        )
    for number, value in enumerate(found if isinstance(found, list) else [found], 1):
        yield _row(value, f"{file}, row {number}" if isinstance(found, list) else str(file))
    _refuse_empty(file, found != [])


def json_document(file: DataFile) -> Any:
    """What a JSON file holds.

    Raises:
        ConfigError: if it is not JSON.
    """
    with file.text() as lines:
        text = lines.read()
    if "\0" in text or not _is_text(text):
        for number, line in enumerate(text.split("\n"), 1):
            file.undecoded(line, f"{file}, line {number}")
    _refuse_empty(file, bool(text.strip()))
    return _parsed(text, str(file), "an object per line is .jsonl")


def _parsed(text: str, where: str, hint: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)
    except (ValueError, RecursionError) as error:
        said = str(error) if isinstance(error, ValueError) else "nested too deeply"
        raise ConfigError(f"{where}: is not JSON ({said}); {hint}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"an object has {twice!r} twice")
    return found


def _constant(name: str) -> float:
    """NaN is what Python writes for a missing value; the infinities would become words in a question."""
    if name != "NaN":
        raise ValueError(f"{name} is no number")
    return math.nan


def _float(text: str) -> float:
    """A number that is too large would become the word inf."""
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is too large a number; write it as a text")
    return number


def _row(value: Any, where: str) -> Row:
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: is a {type(value).__name__}, not an object with columns")
    for column, own in value.items():
        if not _is_text(column) or not _is_text(own):
            raise ConfigError(
                f"{where}: column {column!a} holds half a character (a lone surrogate, such as \\ud83d), which no "
                f"text can hold; write the whole character, or take the row out"
            )
    return Row(value, where)


def _is_text(value: Any) -> bool:
    """Whether all strings in a value can be written."""
    if isinstance(value, str):
        return value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)
    if isinstance(value, dict):
        return all(_is_text(key) and _is_text(own) for key, own in value.items())
    return all(map(_is_text, value)) if isinstance(value, list) else True


def _is_by_column(found: dict[str, Any]) -> bool:
    """Whether an object looks like a table by column: lists, or objects by index, all of one length above 1."""
    sizes = {len(own) if isinstance(own, list | dict) else 0 for own in found.values()}
    return len(found) > 1 and len(sizes) == 1 and min(sizes) > 1


# CSV, strictly: a quotation mark that is never closed would take the rest of the file as one value.


def csv_rows(
    file: DataFile,
    *,
    names: Sequence[str] | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
    quoted: bool = True,
    strict: bool = True,
) -> Iterator[Row]:
    """Rows of a CSV file, all values as text, so that `007` stays what it is.

    Args:
        file: to read.
        names: of the columns, where the file has no header line; None reads the header.
        delimiter: None means tab for `.tsv` and comma for all else.
        encoding: of a known set; None takes the file's.
        quoted: whether quotation marks enclose a value; if not, they are part of it.
        strict: whether a mark that does not end its value is refused.
    """
    csv.field_size_limit(_LONGEST_FIELD)
    delimiter = delimiter or ("\t" if file.format == ".tsv" else ",")
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    with file.text(newline="", encoding=encoding) as lines:
        reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=strict)
        records = _records(file, reader, first=int(names is not None))
        header = list(names) if names is not None else _header(file, records, delimiter)
        number = 0
        for number, (cells, span) in enumerate(records, 1):
            if not cells:
                continue
            where = f"{file}, row {number}"
            file.undecoded("".join(cells), where, encoding)
            if len(cells) != len(header):
                open_mark = f" ({span}; is a quotation mark left open?)" if " to " in span else f" ({span})"
                columns = ", ".join(header)
                raise ConfigError(
                    f"{where}: has {len(cells)} values for the {len(header)} columns {columns}{open_mark}"
                )
            if names is None and len(cells) > 1 and cells == header:
                raise ConfigError(f"{where} ({span}): is the header line again; take it out")
            yield Row(dict(zip(header, cells, strict=True)), where)
        _refuse_empty(file, number > 0, "it has a header line only" if names is None else None)


def separated_rows(
    file: DataFile, names: Sequence[str], separator: str, *, encoding: str | None = None
) -> Iterator[Row]:
    """Rows of a file whose values are parted by several characters, such as `::`; there are no quotes and no header.

    Args:
        file: to read.
        names: of the columns.
        separator: between two values.
        encoding: of a known set; None takes the file's.
    """
    found = False
    with file.text(encoding=encoding) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where, cells = f"{file}, row {number}", line.rstrip("\n").split(separator)
            file.undecoded(line, where, encoding)
            if len(cells) != len(names):
                raise ConfigError(
                    f"{where}: has {len(cells)} values for the {len(names)} columns {', '.join(names)}, parted by "
                    f"{separator!r}"
                )
            yield Row(dict(zip(names, cells, strict=True)), where)
            found = True
    _refuse_empty(file, found)


def _records(file: DataFile, reader: Any, *, first: int) -> Iterator[tuple[list[str], str]]:
    """Every record with the lines that it stands in; the number of the first is 0 where it is a header."""
    for number in count(first):
        begin = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            said = {"unexpected end of data": "a quotation mark is opened and never closed"}.get(str(error), str(error))
            if "expected after" in said:
                said = f"text follows a closing quotation mark, in line {reader.line_num}"
            where = f"row {number}" if number else "the header"
            raise ConfigError(
                f"{file}, {where} (begun in line {begin}): {said}; close the mark, or double one that is text"
            ) from None
        if cells is None:
            return
        yield cells, f"line {begin}" if reader.line_num <= begin else f"lines {begin} to {reader.line_num}"


def _header(file: DataFile, records: Iterator[tuple[list[str], str]], delimiter: str) -> list[str]:
    """The names of the columns; lines before them that are empty are passed over."""
    header, span = next(((cells, span) for cells, span in records if cells), ([], ""))
    file.undecoded("".join(header), f"{file}, {span}")
    twice = next((name for at, name in enumerate(header) if name and name in header[:at]), None)
    if twice is not None:
        columns = " and ".join(str(at) for at, name in enumerate(header, 1) if name == twice)
        raise ConfigError(f"{file}: its header names {twice!r} twice (columns {columns}); rename one of them")
    other = next((what for sign, what in (("\t", "tabs"), (";", "semicolons")) if sign in "".join(header)), None)
    if len(header) == 1 and other and delimiter == ",":
        mend = "let its name end in .tsv" if other == "tabs" else "save it with commas, or with tabs as .tsv"
        raise ConfigError(f"{file}: its header has no comma but {other}; {mend}")
    _refuse_empty(file, bool(header))
    return header


def parquet_rows(file: DataFile) -> Iterator[Row]:
    """Rows of a parquet file, a few thousand in memory at once."""
    number = 0
    try:
        with pq.ParquetFile(file.path) as table:
            names = table.schema_arrow.names
            twice = next((name for at, name in enumerate(names) if name in names[:at]), None)
            if twice is not None:
                raise ConfigError(f"{file}: has the column {twice!r} twice; rename one of them")
            for batch in table.iter_batches(batch_size=_BATCH):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(values, f"{file}, row {number}")
    except ConfigError:
        raise
    except (
        Exception
    ) as error:  # Arrow raises errors of many kinds, its own and Python's, where bytes are not as it wrote
        if isinstance(error, OSError) and error.errno is not None:
            raise file.unreadable(error) from error
        after = f", after row {number}" if number else ""
        said = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"{file}{after}: is no parquet file, or a damaged one ({said}); write or get it anew"
        ) from error
    _refuse_empty(file, number > 0)


def rows_of(file: DataFile) -> Iterator[Row]:
    """Rows of a file by its ending.

    Raises:
        ConfigError: if the ending is none of those above, or the file cannot be read, or is empty.
    """
    if file.format not in _BY_FORMAT:
        raise ConfigError(
            f"{file}: cannot tell its format by its name; it must end in one of: {', '.join(_BY_FORMAT)}, all but the "
            f"last also with .gz behind it"
        )
    return _BY_FORMAT[file.format](file)


def rows_of_all(files: Iterable[DataFile]) -> Iterator[Row]:
    """Rows of several files, one after the other."""
    for file in files:
        yield from rows_of(file)


def _refuse_empty(file: DataFile, found: bool, why: str | None = None) -> None:
    if not found:
        raise ConfigError(f"{file}: holds no row, {why or 'it is empty'}; write or get it anew, or do not name it")


_BY_FORMAT: dict[str, Callable[[DataFile], Iterator[Row]]] = {
    ".jsonl": jsonl_rows,
    ".json": json_rows,
    ".csv": csv_rows,
    ".tsv": csv_rows,
    ".parquet": parquet_rows,
}
