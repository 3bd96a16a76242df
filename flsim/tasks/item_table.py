"""Items as columns: a million of them take tens of megabytes, in memory or as a file that all processes map.

A question is kept as its lines, and each line once, however many questions hold it:

    question  0: "The user's last films:"  1: "Heat: like"  2: "Will the user like Alien?"     lines of the table
    item 0    0, 1, 2                                                                          which of them it has
    answer    0: "like"  1: "dislike";  item 0: 0                                              and so every other field

An item of a table is made when it is asked for. What goes over all of them works on columns.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flsim.tasks.item import Item, key_of

Indices = NDArray[np.int64]
NONE = -1
"""In place of a code: the item has no such value; in place of a row: the place is no row."""
_ROW = ", row "
_NUMBERS = ("level", "score_label")
_CODED = ("answer", "user", "label", "split", "tests", "solution", "extra", *_NUMBERS, "place")
_OTHERS = tuple(field.name for field in fields(Item) if field.name not in ("question", "where", *_CODED))
"""Fields that are no text and no number, such as pictures."""
_AT_ONCE = 50_000  # questions whose text is in memory at once


@dataclass(frozen=True, eq=False)
class Column:
    """Texts of N items, each different one kept once."""

    codes: NDArray[np.int32]
    """Which of the values each has, or `NONE`, shape `(N,)`."""
    values: pa.Array
    """The different ones, in no order; some may be no item's."""

    def one(self, index: int) -> Any:
        """The value of an item, None where it has none."""
        code = self.codes[index]
        return None if code == NONE else self.values[int(code)].as_py()

    @cached_property
    def known(self) -> list[str]:
        """All values."""
        found: list[str] = self.values.to_pylist()
        return found

    def used(self) -> list[str]:
        """Those that items have, in the order in which the items name them."""
        codes, first = np.unique(self.codes[self.codes != NONE], return_index=True)
        return [self.known[code] for code in codes[np.argsort(first)].tolist()]


def column_of(values: Iterable[Any]) -> Column:
    """A column from the values of items."""
    known: dict[str, int] = {}
    codes = [
        NONE if value is None else known.setdefault(value if isinstance(value, str) else str(value + 0), len(known))
        for value in values
    ]
    return Column(np.array(codes, dtype=np.int32), pa.array(known, pa.large_string()))


@dataclass(frozen=True, eq=False)
class ItemTable(Sequence[Item]):
    """N items."""

    starts: Indices
    """Where each question's lines begin in `lines.codes`, and where the last one's end, shape `(N + 1,)`."""
    lines: Column
    """The lines of all questions, one after the other; a line may hold a newline itself."""
    columns: Mapping[str, Column]
    """Every other field that is a text or a number, and `place`: the file that it was read from, for messages."""
    rows: Indices
    """The row of its file, or `NONE` where the place is all there is to say, shape `(N,)`."""
    others: Mapping[str, NDArray[Any] | Sequence[Any]]
    """Fields of any other kind that some items have, N values each; arrays of one shape are one array `(N, ...)`."""

    @classmethod
    def of(cls, items: Iterable[Item]) -> "ItemTable":
        """A table of items."""
        items = list(items)
        parts = [item.question.split("\n") for item in items]
        starts = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        places = [item.where.rpartition(_ROW) if item.where else ("", "", "") for item in items]
        numbered = [bool(row) and row.isdigit() and str(int(row)) == row for _, _, row in places]
        columns = {name: column_of(getattr(item, name) for item in items) for name in _CODED if name != "place"}
        columns["place"] = column_of(
            place if known else item.where for item, (place, _, _), known in zip(items, places, numbered, strict=True)
        )
        rows = [int(row) if known else NONE for (_, _, row), known in zip(places, numbered, strict=True)]
        more = {name: [getattr(item, name) for item in items] for name in _OTHERS}
        others = {name: _stacked(own) for name, own in more.items() if any(value is not None for value in own)}
        lines = column_of(part for own in parts for part in own)
        return cls(starts, lines, columns, np.array(rows, dtype=np.int64), others)

    def __len__(self) -> int:
        """N."""
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        """An item, or several as a list."""
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        codes = self.lines.codes[self.starts[index] : self.starts[index + 1]]
        own = {name: column.one(index) for name, column in self.columns.items()}
        own |= {name: _number(own[name]) for name in _NUMBERS if own[name] is not None}
        place, row = own.pop("place"), int(self.rows[index])
        own |= {name: values[index] for name, values in self.others.items()}
        question = "\n".join(self.lines.values[int(code)].as_py() for code in codes)
        return Item(question, where=place if row == NONE else f"{place}{_ROW}{row}", **own)

    def take(self, indices: Indices) -> "ItemTable":
        """The items of these indices, in their order."""
        sizes = np.diff(self.starts)[indices]  # (M,)
        starts = np.concatenate([[0], np.cumsum(sizes)])  # (M + 1,)
        places = np.arange(starts[-1]) + np.repeat(self.starts[indices] - starts[:-1], sizes)
        return ItemTable(
            starts,
            Column(self.lines.codes[places], self.lines.values),
            {name: Column(own.codes[indices], own.values) for name, own in self.columns.items()},
            self.rows[indices],
            {name: _taken(own, indices) for name, own in self.others.items()},
        )

    @property
    def can_be_written(self) -> bool:
        """Whether all that it holds has a place in a file."""
        return all(isinstance(own, np.ndarray) for own in self.others.values())

    def having(self, **columns: Column) -> "ItemTable":
        """The same items with other values of these fields."""
        return replace(self, columns={**self.columns, **columns})

    def values(self, field: str) -> list[Any]:
        """What the codes of a field stand for: numbers of `level` and `score_label`, else texts."""
        known = self.columns[field].known
        return [_number(value) for value in known] if field in _NUMBERS else list(known)

    def of_field(self, field: str, indices: Indices | None = None) -> list[Any]:
        """The value of a field of every item, or of these."""
        codes, values = self.columns[field].codes, [*self.values(field), None]
        return [values[code] for code in (codes if indices is None else codes[indices]).tolist()]

    def questions(self, indices: Indices | None = None) -> Iterator[str]:
        """The question of every item, or of these, a few thousand in memory at once."""
        return _joined("\n", self.lines.values, self.lines.codes, self.starts, indices)

    def keys(self, indices: Indices | None = None, form: Callable[[str], str] = str) -> Iterator[str]:
        """`key_of` of every question, or of these: that of a text is those of its lines, joined by spaces.

        Args:
            indices: of the questions; None takes all.
            form: what becomes of a key; that of a text must be those of its lines, too.
        """
        keys, codes, starts = self._lines_of_keys
        return _joined(" ", pa.array(map(form, keys.to_pylist()), keys.type), codes, starts, indices)

    @cached_property
    def first_alike(self) -> Indices:
        """The first item that asks the same question but for white space, itself if none is before it, `(N,)`."""
        hashes = np.fromiter(map(hash, self.keys()), np.int64, len(self))  # (N,)
        _, which, count = np.unique(hashes, return_inverse=True, return_counts=True)
        found = np.arange(len(self))
        several = np.flatnonzero(count[which] > 1)
        first: dict[str, int] = {}  # texts, and not hashes, say who is alike
        alike = [first.setdefault(key, index) for key, index in zip(self.keys(several), several.tolist(), strict=True)]
        found[several] = alike
        return found

    @cached_property
    def _lines_of_keys(self) -> tuple[pa.Array, NDArray[np.int32], Indices]:
        """Keys of the lines, and which of them each question has: lines of white space have no part in it."""
        keys = [key_of(line) for line in self.lines.known]
        vars(self.lines).pop("known", None)  # as large as the data where no two questions share a line
        kept = np.array([bool(key) for key in keys], dtype=bool)[self.lines.codes]
        starts = np.concatenate([[0], np.cumsum(kept)])[self.starts]
        return pa.array(keys, pa.large_string()), self.lines.codes[kept], starts


def table_of(items: Sequence[Item]) -> ItemTable:
    """The items as a table; a table stays what it is."""
    return items if isinstance(items, ItemTable) else ItemTable.of(items)


def _stacked(values: Sequence[Any]) -> NDArray[Any] | Sequence[Any]:
    """Arrays of one shape and kind as one; anything else as it is."""
    kinds = {(own.shape, own.dtype.str) if isinstance(own, np.ndarray) else None for own in values}
    return np.stack(values) if len(kinds) == 1 and None not in kinds and values[0].dtype.kind in "uif" else values


def _taken(values: NDArray[Any] | Sequence[Any], indices: Indices) -> NDArray[Any] | Sequence[Any]:
    return values[indices] if isinstance(values, np.ndarray) else [values[index] for index in indices.tolist()]


def _number(text: str) -> int | float:
    """A level or a score label; a reader of one's own may give what its type does not promise."""
    try:
        return int(text)
    except ValueError:
        return float(text)


def _joined(
    between: str, values: pa.Array, codes: NDArray[np.int32], starts: Indices, indices: Indices | None
) -> Iterator[str]:
    """Texts of parts: the one of index i has the values of `codes[starts[i] : starts[i + 1]]`."""
    wanted = np.arange(len(starts) - 1) if indices is None else indices
    for begin in range(0, len(wanted), _AT_ONCE):
        some = wanted[begin : begin + _AT_ONCE]
        sizes = starts[some + 1] - starts[some]
        ends = np.concatenate([[0], np.cumsum(sizes)])
        places = np.arange(ends[-1]) + np.repeat(starts[some] - ends[:-1], sizes)
        parts = values.take(pa.array(codes[places])).cast(pa.string())
        yield from pc.binary_join(pa.ListArray.from_arrays(pa.array(ends.astype(np.int32)), parts), between).to_pylist()


# A file of a table and of what belongs to it, which is mapped and not read: its pages are shared by all processes.


def write_table(path: Path, table: ItemTable, more: Mapping[str, NDArray[Any]], said: str) -> None:
    """Write a table in Arrow's format.

    Args:
        path: of the file.
        table: N items that can be written.
        more: arrays of N numbers that belong to them.
        said: a text that belongs to them.
    """
    lines = pa.LargeListArray.from_arrays(pa.array(table.starts), _coded(table.lines))
    arrays = {"question": lines, **{name: _coded(own) for name, own in table.columns.items()}}
    arrays |= {"row": pa.array(table.rows), **{name: pa.array(own) for name, own in more.items()}}
    shapes = {name: own.shape[1:] for name, own in table.others.items() if isinstance(own, np.ndarray)}
    for name, shape in shapes.items():
        flat = pa.array(np.asarray(table.others[name]).reshape(-1))
        arrays[name] = pa.FixedSizeListArray.from_arrays(flat, max(1, math.prod(shape)))
    found = pa.table(arrays).replace_schema_metadata({"said": said, "shapes": json.dumps(shapes)})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, found.schema) as file:
        file.write_table(found)


def read_table(path: Path) -> tuple[ItemTable, dict[str, NDArray[Any]], str]:
    """What `write_table` wrote, mapped into memory.

    Raises:
        OSError, ValueError, KeyError: if it is no such file, or not whole (`pa.ArrowInvalid` is a ValueError).
    """
    found = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    found.validate()
    arrays = {name: found.column(name).combine_chunks() for name in found.column_names}
    questions = arrays.pop("question")
    columns = {name: _column(arrays.pop(name)) for name in _CODED}
    rows, shapes = arrays.pop("row").to_numpy(), json.loads(found.schema.metadata[b"shapes"])
    others = {name: arrays.pop(name).values.to_numpy().reshape(-1, *shape) for name, shape in shapes.items()}
    table = ItemTable(questions.offsets.to_numpy(), _column(questions.values), columns, rows, others)
    return table, {name: own.to_numpy() for name, own in arrays.items()}, found.schema.metadata[b"said"].decode()


def _coded(column: Column) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(column.codes, mask=column.codes == NONE), column.values)


def _column(found: pa.Array) -> Column:
    codes = found.indices if found.null_count == 0 else found.indices.fill_null(NONE)
    return Column(codes.to_numpy(), found.dictionary)
