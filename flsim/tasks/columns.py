r"""A column map: which column, or which text made of columns, is an item's question, answer, user and so on.

    {"question": "prompt", "answer": "gold", "user": "uid", "label": "subject", "level": "difficulty"}
    {"question": "{history}\nWill they like {title}?", "answer": "liked", "score_label": "liked"}
    {"question": "{x[4]}", "answer": "y"}                   parts of a list or of an object, in square brackets
    {"question": "q", "answer": "a", "aliases": "also"}     other answers that are as good, for the verifier `words`

A value with a brace is a template in the manner of `str.format`; doubled braces write one. Any other names a column.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from flsim.config.schema import ConfigError
from flsim.problems.problem import SPLITS
from flsim.tasks.item import Item
from flsim.tasks.tables import Row, text_of

ALIASES = "aliases"
"""A list, or a text with | between: other answers, in the further lines of the reference."""
FIELDS = (*(field.name for field in fields(Item) if field.compare), ALIASES)  # not where it was read
_MOST_CLASSES = 64  # of a set with score labels: each is a pass over all its test prompts
_SPLITS = {"dev": "validation", "val": "validation", "valid": "validation", **{split: split for split in SPLITS}}


@dataclass(frozen=True)
class Columns:
    """How the rows of one data set become items."""

    names: Mapping[str, str]
    """Field of an item -> column, or template."""
    levels: Sequence[str] = ()
    """Words of difficulty from easy to hard, which become 1, 2, ...; empty where the column holds whole numbers."""
    blank_answers: bool = False
    """Whether an answer may be white space, such as the next letter of a text; else that is taken for a hole."""

    def __post_init__(self) -> None:
        """Check the map.

        Raises:
            ConfigError: if it names an unknown field, leaves out question or answer, or a column is no text.
        """
        unknown = sorted(set(self.names) - set(FIELDS))
        if unknown:
            raise ConfigError(f"columns: there is no field {unknown[0]!r}; an item has: {', '.join(FIELDS)}")
        for field, column in self.names.items():
            if not isinstance(column, str):  # YAML reads a bare yes, no, on or off as true or false
                raise ConfigError(f"columns: {field} is {column!r}, not the name of a column; put it into quotes")
        for needed in ("question", "answer"):
            if needed not in self.names:
                raise ConfigError(
                    f"columns: does not say which column is the {needed}; add {needed}: COLUMN, or a template"
                )

    def item(self, row: Row, split: str | None) -> Item:
        """The item of a row.

        Args:
            row: of the data set.
            split: the official split of the row's file; None leaves it to the column `split`, if there is one.

        Raises:
            ConfigError: for a missing column, an empty question, answer or user, a level or label of the wrong kind.
        """
        values = {field: self._value(row, field) for field in self.names if field != ALIASES}
        for needed in ("question", "answer", "user"):
            given = values.get(needed) or ""
            if needed in values and not (given if needed == "answer" and self.blank_answers else given.strip()):
                mend = "; say whose it is, take the row out, or map no user" if needed == "user" else ""
                raise row.error(f"the {needed} ({self.names[needed]!r}) is empty{mend}")
        split = split if split is not None else _split(row, values.get("split"))
        level, score_label = self._level(row, values.get("level")), _binary(row, values.get("score_label"))
        aliases = self._aliases(row)
        if aliases and values.get("solution") is None:
            values["solution"] = values["answer"]
        return Item(
            str(values["question"]),
            "\n".join([str(values["answer"]), *aliases]),
            user=(values.get("user") or "").strip() or None,
            level=level,
            split=split,
            score_label=score_label,
            where=row.where,
            label=values.get("label"),
            tests=values.get("tests"),
            solution=values.get("solution"),
        )

    def _value(self, row: Row, field: str) -> str | None:
        source = self.names[field]
        return text_of(row[source]) if "{" not in source else filled(source, row)

    def _aliases(self, row: Row) -> list[str]:
        given = self._value(row, ALIASES) if ALIASES in self.names else None
        return [" ".join(part.split()) for part in re.split(r"[|\n]", given or "") if part.strip()]

    def _level(self, row: Row, value: str | None) -> int | None:
        if value is None:
            return None
        if self.levels:
            if value not in self.levels:
                raise row.error(f"the level {value!r} is none of levels: {', '.join(self.levels)}")
            return list(self.levels).index(value) + 1
        try:
            return int(value)
        except ValueError:
            raise row.error(
                f"the level {value!r} is no whole number; name the words from easy to hard, such as "
                "levels=('easy', 'hard'), or use the column as label"
            ) from None


def filled(template: str, row: Row) -> str:
    """A template with the row's values in it.

    Raises:
        ConfigError: if it names a column or a part that the row does not have, or is no template.
    """
    try:
        return template.format_map(_Values(row))
    except (KeyError, IndexError, ValueError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        if isinstance(error, ConfigError):
            raise
        raise row.error(f"cannot fill the template {template!r} ({type(error).__name__}: {error})") from None


class _Values(Mapping[str, Any]):
    """A row as `str.format_map` reads it: missing columns are named, and values are written as by `text_of`."""

    def __init__(self, row: Row) -> None:
        self._row = row

    def __getitem__(self, column: str) -> Any:
        value = self._row[column]
        return value if isinstance(value, list | dict) and not _flat(value) else _text_or_parts(value)

    def __iter__(self) -> Iterator[str]:
        return iter(self._row.values)

    def __len__(self) -> int:
        return len(self._row.values)


class _Parts(list[Any]):
    """A list that is written as words in a row, and whose parts can still be named."""

    def __format__(self, spec: str) -> str:
        return " ".join(_short(part) for part in self)


def _flat(value: list[Any] | dict[Any, Any]) -> bool:
    return isinstance(value, list) and not any(isinstance(part, list | dict) for part in value)


def _text_or_parts(value: Any) -> Any:
    return _Parts(value) if isinstance(value, list) else (text_of(value) or "")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else (text_of(value) or "")


def _split(row: Row, value: str | None) -> str | None:
    if value is None:
        return None
    if value.lower() not in _SPLITS:
        raise row.error(f"the split {value!r} is none of: {', '.join(_SPLITS)}")
    return _SPLITS[value.lower()]


def _binary(row: Row, value: str | None) -> int | None:
    if value is None:
        return None
    if value in ("True", "False"):
        return int(value == "True")
    if not (value.isascii() and value.isdigit()) or int(value) >= _MOST_CLASSES:
        raise row.error(
            f"the score_label {value!r} is no class: give 1 or 0, True or False, or of C classes 0 to C - 1, with C at "
            f"most {_MOST_CLASSES}"
        )
    return int(value)
