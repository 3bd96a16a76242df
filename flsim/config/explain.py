"""Every key of a config with its type, default, range and meaning, read from the dataclasses that define it.

Help and docs are made from `fields_of`, and values out of range are refused in its words, so nothing is written twice.
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from flsim.config.given import shown
from flsim.config.kinds import may_be_none, misfit
from flsim.config.ranges import RANGE, ConfigError
from flsim.config.schema import Config

NAME = "NAME"
"""Stands in a key for a name that one gives oneself, as in `data.NAME.alpha`."""
SECTION = "section"
"""The type of a key that holds further keys."""


@dataclass(frozen=True)
class Key:
    """What there is to say of one key."""

    name: str
    """With dots, such as `budget.tau`."""
    type: str
    """Such as `int | None`, or `SECTION`."""
    default: Any
    """None for a section."""
    allowed: str | None
    """Its range in words, such as `at least 1`; None if its type says all."""
    meaning: str
    """Its docstring in one line."""
    optional: bool = False
    """Of a section, whether it may be left out as a whole, and is by default."""


def fields_of(settings: type = Config, prefix: str = "") -> Iterator[Key]:
    """Every key, in the order of the dataclasses; a section comes before its own keys.

    Args:
        settings: a dataclass of settings.
        prefix: what comes before its keys, ending in a dot.
    """
    hints, meanings = get_type_hints(settings), meanings_of(settings)
    for one in fields(settings):
        hint, name, meaning = hints[one.name], f"{prefix}{one.name}", meanings[one.name]
        inner = next((part for part in (hint, *get_args(hint)) if is_dataclass(part)), None)
        if inner is None:
            allowed = one.metadata[RANGE].words if RANGE in one.metadata else None
            default = one.default if one.default_factory is MISSING else one.default_factory()
            yield Key(name, _type_of(hint), default, allowed, meaning)
        else:
            assert isinstance(inner, type)
            said, optional = meaning or _one_line(inner.__doc__ or ""), may_be_none(hint)
            yield Key(name, SECTION, None, None, said, optional)
            yield from fields_of(inner, f"{name}.{NAME}." if get_origin(hint) is dict else f"{name}.")


def refuse_out_of_range(settings: Any, prefix: str = "") -> None:
    """Refuse a setting whose field does not allow it: it is of another type, or out of its range.

    Args:
        settings: a `Config`, or a section of one.
        prefix: what comes before its keys, ending in a dot.

    Raises:
        ConfigError: naming key, value and what is allowed.
    """
    hints = get_type_hints(type(settings))
    for one in fields(settings):
        key, value = f"{prefix}{one.name}", getattr(settings, one.name)
        complaint = misfit(hints[one.name], value)
        if complaint is None and RANGE in one.metadata and value is not None:
            complaint = one.metadata[RANGE].complaint(value)
        if complaint is not None:
            meaning = _first(meanings_of(type(settings))[one.name])
            said = complaint.replace("{key}", key).replace("{meaning}", meaning)
            raise ConfigError(f"{key}={shown(value)} {said}")
        if is_dataclass(value):
            refuse_out_of_range(value, f"{key}.")
        elif isinstance(value, dict):
            for name, inner in value.items():
                if is_dataclass(inner):
                    refuse_out_of_range(inner, f"{key}.{name}.")


def meanings_of(settings: type) -> dict[str, str]:
    """The docstring below every field of a dataclass, in one line; "" where there is none."""
    file = sys.modules[settings.__module__].__file__
    assert file is not None
    (body,) = (
        node.body
        for node in ast.parse(Path(file).read_text()).body
        if isinstance(node, ast.ClassDef) and node.name == settings.__name__
    )
    told = {}
    for node, after in zip(body, [*body[1:], ast.Pass()], strict=True):
        if isinstance(node, ast.AnnAssign):
            is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            told[ast.unparse(node.target)] = _one_line(ast.literal_eval(ast.unparse(after))) if is_text else ""
    return told


def _type_of(hint: Any) -> str:
    """A type as one writes it, such as `int | None`."""
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint).replace("typing.", "")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _first(meaning: str) -> str:
    """The first sentence of a docstring, as the end of another sentence."""
    first = meaning.split(". ")[0].removesuffix(".")
    return first[:1].lower() + first[1:] if first.split(" ")[0][1:].islower() else first
