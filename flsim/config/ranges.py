"""What a setting may be, said at its field: each helper gives a field its default and its range in one line.

    tau: float = share(0.3)
    cohort: int | None = count(None)
    split: str = one_of("test", ("validation", "test"))

None always passes: whether a setting may be left out is said by its type. Rules between fields are not here but in
`flsim/loop/checks.py`.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from difflib import get_close_matches
from string import Formatter
from typing import Any, TypeVar, cast

RANGE = "range"
"""Where a field's metadata hold its `Range`."""
T = TypeVar("T")


class ConfigError(ValueError):
    """A setting that cannot be used; the message gives value, source, what is allowed and the mend."""


@dataclass(frozen=True)
class Range:
    """What is allowed in one field."""

    words: str
    """The same for people, such as `at least 1`."""
    complaint: Callable[[Any], str | None]
    """What is wrong with a value, as the rest of a sentence that begins with it; None if nothing is. `{key}` stands for
    the setting's key, `{meaning}` for what its docstring says first."""


def limited(default: T, allowed: Range) -> T:
    """A field with this default and range; the type says what a reader of the field gets, as `dataclasses.field` does.

    Args:
        default: lists and dicts are copied for every config.
        allowed: its range.
    """
    metadata = {RANGE: allowed}
    if isinstance(default, dict):
        return field(default_factory=lambda: cast(T, dict(default)), metadata=metadata)
    return field(default=default, metadata=metadata)


def number(
    low: float = -math.inf,
    high: float = math.inf,
    *,
    above: bool = False,
    finite: bool = False,
    optional: bool = False,
) -> Range:
    """Numbers from low to high, both included; of a tuple, each.

    Args:
        low: least value.
        high: greatest value.
        above: whether low itself is left out.
        finite: whether infinity is left out.
        optional: whether the setting may be None.
    """
    words = f"in [{low:g}, {high:g}]" if high < math.inf else f"{'above' if above else 'at least'} {low:g}"
    words += " and finite" if finite else ""

    def holds(value: float) -> bool:
        return low <= value <= high and not (above and value == low) and not (finite and math.isinf(value))

    def complaint(value: Any) -> str | None:
        values = value if isinstance(value, tuple) else (value,)
        each = "each " if isinstance(value, tuple) else ""
        or_none = ", or left out" if optional else ""
        return None if all(holds(one) for one in values) else f"must {each}be {words}{or_none}: {{meaning}}"

    return Range(words, complaint)


def share(default: T) -> T:
    """A share: a number in [0, 1]."""
    return limited(default, number(0, 1, optional=default is None))


def count(default: T, most: float = math.inf) -> T:
    """How many there are: at least 1, and no more than a machine can hold."""
    return limited(default, number(1, most, optional=default is None))


def at_least(low: float, default: T, *, finite: bool = False) -> T:
    """A number from `low` on, with or without infinity."""
    return limited(default, number(low, finite=finite, optional=default is None))


def above(low: float, default: T) -> T:
    """A number above `low`."""
    return limited(default, number(low, above=True, optional=default is None))


def one_of(default: T, allowed: Sequence[str], *, refused: Mapping[str, str] | None = None) -> T:
    """One of a few words.

    Args:
        default: as in `limited`.
        allowed: the words.
        refused: words that one might expect to be allowed, each with the reason why it is not.
    """

    def complaint(value: str) -> str | None:
        known = None if value in allowed else f"is not known; choose one of: {', '.join(allowed)}{near(value, allowed)}"
        return (refused or {}).get(value, known)

    return limited(default, Range(f"one of: {', '.join(allowed)}", complaint))


def one_of_or_path(default: T, allowed: Sequence[str], example: str) -> T:
    """One of a few words, or the path of something else that does the same, such as `example`."""

    def complaint(value: str) -> str | None:
        if value in allowed or ":" in value:
            return None
        known = f"{', '.join(allowed)}{near(value, allowed)}"
        return f"is not known; choose one of: {known}, or give a path, such as {example}"

    return limited(default, Range(f"one of: {', '.join(allowed)}, or a path such as {example}", complaint))


def count_or(word: str, default: T) -> T:
    """How many there are, at least 1, or a word that has them found."""
    counts = number(1)

    def complaint(value: int | str) -> str | None:
        if isinstance(value, str):
            return None if value == word else f"must be a number, or {word}: {{meaning}}"
        return counts.complaint(value)

    return limited(default, Range(f"{counts.words}, or {word}", complaint))


def part(default: T) -> T:
    """How many of several, or, below 1, what share of them."""
    complaint = "must be a share above 0 and below 1, or a whole number of at least 1: {meaning}"

    def holds(value: float) -> bool:
        return 0 < value < 1 or (1 <= value < math.inf and value == int(value))

    words = "above 0 and below 1, or a whole number of at least 1"
    return limited(default, Range(words, lambda value: None if holds(value) else complaint))


def filled(default: T, example: str) -> T:
    """A text or a list that is not empty, such as `example`."""
    complaint = f"is empty; give one, such as {example}, or leave it out"
    return limited(default, Range("not empty", lambda value: None if value else complaint))


def day(default: T) -> T:
    """A date such as 2026-01-31."""

    def complaint(value: str) -> str | None:
        try:
            date.fromisoformat(value)
        except (TypeError, ValueError):
            return "must be a date written as YYYY-MM-DD"
        return None

    return limited(default, Range("a date, YYYY-MM-DD", complaint))


def worded(default: T, names: Sequence[str]) -> T:
    """A text with each of these names in braces, and no others."""
    words = " and ".join(f"{{{name}}}" for name in names)

    def complaint(value: str) -> str | None:
        try:
            found = [part[1:] for part in Formatter().parse(value) if part[1] is not None]
        except ValueError:
            found = []
        if {name for name, *_ in found} == set(names) and all(not form and not turn for _, form, turn in found):
            return None
        return f"must hold {words} and nothing else in braces"

    return limited(default, Range(f"a text with {words}", complaint))


def near(given: object, known: Iterable[str]) -> str:
    """What a misspelt word may have been meant to be, as the end of a sentence that lists all; "" if none is near."""
    close = get_close_matches(str(given), list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def tupled(value: Any) -> Any:
    """Lists as tuples, those within them and within tables too, so that a config holds nothing that lists would change.

    Anything else stays as it is.
    """
    if isinstance(value, dict):
        return {key: tupled(one) for key, one in value.items()}
    return tuple(tupled(one) for one in value) if isinstance(value, list | tuple) else value


def gpu_share(default: T) -> T:
    """A share that whole numbers of workers fill, or whole GPUs: Ray would take 0.4, and never start a third worker."""

    def complaint(value: float) -> str | None:
        if not 0 <= value < math.inf:
            return "must be at least 0 and finite: {meaning}"
        if not value:
            return None
        nearest = float(round(value)) if value >= 1 else 1 / round(1 / value)
        if abs(value / nearest - 1) <= (0.0 if value >= 1 else 0.011):  # 0.33 is meant as 1/3
            return None
        shown = f"{nearest:g}" if nearest >= 1 else f"1/{round(1 / nearest)} ({nearest:.4g})"
        return f"must be 0, 1/k or a whole number; the nearest is {shown}"

    return limited(default, Range("0, 1/k or a whole number", complaint))


def plug_in(default: T) -> T:
    """What `flsim/config/plugins.py` builds: a `path` and the settings of what it names."""

    def complaint(value: Mapping[str, Any]) -> str | None:
        if isinstance(value.get("path"), str):
            return None
        return "has no path; give {key}.path=module:Name or {key}.path=my_file.py:Name"

    words = "a path as module:Name or my_file.py:Name, and the settings of what it names"
    return limited(default, Range(words, complaint))
