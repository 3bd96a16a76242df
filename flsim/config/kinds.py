"""Which values a field's type allows, in words, and whether a value that Python code gives is one of them."""

import math
from collections.abc import Mapping
from dataclasses import is_dataclass
from types import NoneType
from typing import Any, get_args, get_origin

LARGEST = 2**63 - 1
"""Of whole numbers, as rows and seeds keep them."""


def kinds_of(hint: Any) -> tuple[Any, ...]:
    """The types of which a field may be, None left out: of `int | None`, only `int`."""
    is_union = type(hint).__name__ in ("UnionType", "Union", "_UnionGenericAlias")
    return tuple(kind for kind in get_args(hint) if kind is not NoneType) if is_union else (hint,)


def may_be_none(hint: Any) -> bool:
    """Whether a setting of this type may be left out."""
    return hint in (Any, NoneType) or (kinds_of(hint) != (hint,) and NoneType in get_args(hint))


def words_of(hint: Any) -> str:
    """A type in words, as what a value must be."""
    named = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", Any: "a plain value"}
    words = []
    for kind in kinds_of(hint):
        if get_origin(kind) is tuple:
            inner = words_of(get_args(kind)[0])
            words.append(f"a list whose items are each {inner}")
        elif get_origin(kind) is dict:
            words.append("keys and values, such as {a: 1}")
        else:
            words.append(named.get(kind, "keys and values"))
    return " or ".join([*words, *(["null"] if may_be_none(hint) and hint is not Any else [])])


def misfit(hint: Any, value: Any) -> str | None:
    """What is wrong with the type of a value that Python code gives, as the rest of a sentence; None if nothing is.

    Args:
        hint: the field's type.
        value: what it holds.
    """
    if value is None and may_be_none(hint):
        return None
    found = [_misfit(kind, value) for kind in kinds_of(hint)]
    return None if None in found else next((one for one in found if one), f"must be {words_of(hint)}")


def wrong_text(text: str) -> str:
    """Why a text can neither be written to a file nor name one; "" if it can."""
    if "\0" in text:
        return "holds a zero byte"
    return "holds what is no Unicode" if any("\ud800" <= letter <= "\udfff" for letter in text) else ""


def _misfit(kind: Any, value: Any) -> str | None:
    """The same as `misfit` for a type that is no union; "" if only the type is wrong."""
    if kind is Any:
        return _no_plain_value(value)
    if get_origin(kind) is tuple:
        if not isinstance(value, tuple | list):
            return ""
        found = [misfit(get_args(kind)[0], one) for one in value]
        return next((f"has an item that {one}" for one in found if one is not None), None)
    if get_origin(kind) is dict:
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            return ""
        found = [misfit(get_args(kind)[1], one) for one in value.values()]
        return next((f"has under {name!r} what {one}" for name, one in zip(value, found, strict=True) if one), None)
    if is_dataclass(kind) and isinstance(kind, type):
        return None if isinstance(value, kind) else f"must be a {kind.__name__}"
    if kind is float:
        kind = (int, float)
    if (isinstance(value, bool) and kind is not bool) or not isinstance(value, kind):
        return ""
    return _unkept(value)


def _unkept(value: Any) -> str | None:
    """What is wrong with a single value of the right type."""
    if isinstance(value, str):
        return wrong_text(value) or None
    if isinstance(value, int) and abs(value) > LARGEST:
        return f"is too large: it must be at most {LARGEST}"
    return "must be a number, which nan is not" if isinstance(value, float) and math.isnan(value) else None


def _no_plain_value(value: Any) -> str | None:
    """What is wrong with a setting of a plug-in, which must be written to a file and read again."""
    if isinstance(value, Mapping):
        names = [_misfit(str, name) for name in value]
        inner = [_no_plain_value(one) for one in value.values()]
        return next(
            ("has keys that are no texts" if one == "" else one for one in names + inner if one is not None), None
        )
    if isinstance(value, list | tuple):
        return next((one for one in map(_no_plain_value, value) if one is not None), None)
    if value is None or type(value) in (bool, int, float, str):
        return _unkept(value)
    return f"must be made of texts, numbers, lists and keys, and a {type(value).__name__} is none of them"
