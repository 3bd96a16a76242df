"""What a text means in a field: the type of the field decides, and nothing else.

A text is as it was typed: `no`, `010`, `1e3`, `a # b` and `12:30` are texts where a text is wanted. A number has
decimal digits without leading zeros, or is `1e-3` or `inf`; there are no hexadecimals, no `1_000`, no `nan`. A list
may do without brackets. What only a plug-in knows the type of is null, true or false, a number, a list or keys if it
is written so, and else a text; what could be two things, such as `no` or `010`, must be written as one of them.
"""

import math
import re
from typing import Any, get_args, get_origin

from flsim.config.given import Given, Keyed, Listed, Text, opened, shown
from flsim.config.kinds import LARGEST, kinds_of, may_be_none, words_of, wrong_text
from flsim.config.ranges import ConfigError

_NULLS = ("null", "none", "~")
_BOOLS = {"true": True, "True": True, "false": False, "False": False}
_OTHER_BOOLS = {"yes": "true", "on": "true", "no": "false", "off": "false"}  # in YAML 1.1, not here
_WHOLE = re.compile(r"[+-]?(0|[1-9][0-9]*)")
_DECIMAL = re.compile(r"[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_INFINITE = re.compile(r"([+-]?)\.?inf", re.IGNORECASE)
_NAN = re.compile(r"[+-]?\.?nan", re.IGNORECASE)
_LOOSE = re.compile(r"[+-]?(0[xX][0-9a-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+|[0-9][0-9_]*(\.[0-9_]*)?([eE][+-]?[0-9]+)?)")
"""Numbers of other spellings, leading zeros and underscores among them."""


def read(hint: Any, given: Given, key: str) -> Any:
    """The value of a field that holds no keys of its own.

    Args:
        hint: the field's type.
        given: what was typed.
        key: of the field, with dots.

    Raises:
        ConfigError: naming key, value, place and what is allowed.
    """
    kinds = kinds_of(hint)
    if is_null(given) and kinds != (Any,):
        if may_be_none(hint):
            return None
        raise refused(given, key, f"cannot be null: it must be {words_of(hint)}")
    if kinds == (Any,):
        return _anything(given, key)
    if kinds == (int, str):
        kinds = (int,) if isinstance(given, Text) and _WHOLE.fullmatch(given.text.strip()) else (str,)
    (kind,) = kinds
    if get_origin(kind) is tuple:
        inner = get_args(kind)[0]
        return tuple(read(inner, one, f"{key}[{place}]") for place, one in _items(inner, given, key))
    if not isinstance(given, Text):
        raise refused(given, key, f"must be {words_of(hint)}, and not {_what(given)}")
    if kind is str:
        return _text(given, key)
    if given.quoted:
        raise refused(given, key, f"must be {words_of(hint)}, and not a text in quotes")
    if kind is bool:
        if given.text.strip() not in _BOOLS:
            raise refused(given, key, "must be true or false")
        return _BOOLS[given.text.strip()]
    number = _number(given, key, words_of(hint))
    if kind is int and not isinstance(number, int):
        raise refused(given, key, _in_digits(words_of(hint), given.text.strip()))
    return kind(number)


def is_null(given: Given) -> bool:
    """Whether a text means None: `null`, `none` or `~` without quotes, or nothing at all in a file."""
    if not isinstance(given, Text) or given.quoted:
        return False
    return given.text.lower() in _NULLS or (given.text == "" and not given.whole)


def is_plain(text: str) -> bool:
    """Whether a text may stand in a file without quotes, wherever: it is read as itself."""
    try:
        return _anything(Text("", text), "") == text and text.lower() not in _NULLS
    except ConfigError:
        return False


def refused(given: Given, key: str, must: str) -> ConfigError:
    """The error for a value that its field does not take; `must` is the rest of the sentence."""
    said = f"={shown(given.text)}" if isinstance(given, Text) else ""
    return ConfigError(f"{key}{said} in {given.where} {must}")


def _items(inner: Any, given: Given, key: str) -> list[tuple[int, Given]]:
    """The items of a list with their places; `8,4` without brackets is one, if its items are no lists themselves."""
    nested = get_origin(inner) is tuple
    if isinstance(given, Text) and given.whole and given.text.strip().startswith("["):
        given = opened(given, key)
    bare = nested and isinstance(given, Listed) and any(isinstance(one, Text) for one in given.items)
    if isinstance(given, Listed) and not bare:
        return list(enumerate(given.items))
    if not isinstance(given, Text) or given.quoted or nested or set(given.text) & set("[]{}"):
        wanted = "list of lists, such as [[a, b], [c]]" if nested else "list, such as [a, b]"
        raise refused(given, key, f"must be a {wanted}")
    parts = [part.strip() for part in given.text.split(",")]
    if "" in parts:
        raise refused(given, key, "has an empty item; write [8, 4], or [] for an empty list")
    return [(place, Text(given.where, part, whole=given.whole)) for place, part in enumerate(parts)]


def _text(given: Text, key: str) -> str:
    """A text, exactly; of an override, a word for null and the empty text may stand in quotes."""
    text = given.text
    inner = text[1:-1]
    if given.whole and len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" and inner.lower() in ("", *_NULLS):
        text = inner
    if wrong_text(text):
        raise refused(given, key, wrong_text(text))
    return text


def _number(given: Text, key: str, words: str) -> int | float:
    """Of a text, a whole number if it is written as one."""
    text = given.text.strip()
    infinite = _INFINITE.fullmatch(text)
    if infinite is not None:
        return -math.inf if infinite[1] == "-" else math.inf
    if _WHOLE.fullmatch(text) and len(text) <= 20 and abs(int(text)) <= LARGEST:
        return int(text)
    if _WHOLE.fullmatch(text) and words.startswith("a whole"):
        raise refused(given, key, f"is too large: it must be {words} of at most {LARGEST}")
    if not _DECIMAL.fullmatch(text):
        raise refused(given, key, _in_digits(words, text))
    found = float(text)
    if math.isinf(found) or (found == 0 and re.search(r"[1-9]", re.split("[eE]", text)[0])):
        raise refused(given, key, f"is beyond what a number can hold; write {'inf' if math.isinf(found) else '0'}")
    return found


def _in_digits(words: str, text: str) -> str:
    """That a number must be written otherwise, and how, if that can be guessed."""
    meant = _meant(text)
    if meant is None or (words.startswith("a whole") and not meant.lstrip("-").isdigit()):
        return f"must be {words}"
    return f"must be {words} in plain decimal digits, such as {meant}"


def _meant(text: str) -> str | None:
    """A number of another spelling in plain digits; None if it is none."""
    if not _LOOSE.fullmatch(text) or len(text) > 30:
        return None
    sign, bare = ("-" if text[0] == "-" else ""), text.lstrip("+-").replace("_", "")
    bare = bare.strip() or "0"
    if bare[:1] == "0" and bare[1:2].isalpha() and bare[1].lower() in "xob":
        return sign + str(int(bare, 0)) if bare[2:] else None
    value = float(bare)
    return None if math.isinf(value) else sign + (str(int(value)) if value.is_integer() else repr(value))


def _anything(given: Given, key: str) -> Any:
    """A value whose type only the plug-in knows."""
    if isinstance(given, Listed):
        return [_anything(one, f"{key}[{place}]") for place, one in enumerate(given.items)]
    if isinstance(given, Keyed):
        return {_text(Text(one.where, name), key): _anything(one, f"{key}.{name}") for name, one in given.items.items()}
    text = given.text.strip()
    in_quotes = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    if given.whole and (text.startswith(("[", "{")) or in_quotes):
        return _anything(opened(given, key), key)
    if given.quoted:
        return _text(given, key)
    if is_null(given):
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if _WHOLE.fullmatch(text) or _DECIMAL.fullmatch(text) or _INFINITE.fullmatch(text):
        return _number(given, key, "a whole number" if _WHOLE.fullmatch(text) else "a number")
    other = _OTHER_BOOLS.get(text.lower(), "inf or leave it out" if _NAN.fullmatch(text) else _meant(text))
    if other is not None:
        raise refused(given, key, f'can mean two things: write {other}, or "{text}" in quotes for a text')
    return _text(given, key)


def _what(given: Given) -> str:
    return "a list" if isinstance(given, Listed) else "keys and values"
