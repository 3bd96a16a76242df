"""What somebody gave as settings, taken apart but not yet read: every value is still the text that was typed.

YAML by itself takes `no` for false, `010` for 8 and `12:30` for 750. Here it only says where a value begins and ends;
what a text means is for the type of its field to say (`flsim/config/reading.py`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from flsim.config.ranges import ConfigError

OVERRIDES = "the overrides"
_PLAIN, _QUOTED = "plain", "quoted"  # tags of texts
_TEXT, _LIST, _KEYS = (f"tag:yaml.org,2002:{name}" for name in ("str", "seq", "map"))
_MERGE = "<<"


@dataclass(frozen=True)
class Text:
    """A single value."""

    where: str
    """Such as `the overrides`, or `mine.yaml, line 3`."""
    text: str
    quoted: bool = False
    """Whether it stood in quotes, which are off."""
    whole: bool = False
    """Whether it is all that an override gives: it may then be a list, if its field is one."""


@dataclass(frozen=True)
class Listed:
    """A list."""

    where: str
    items: tuple["Given", ...]


@dataclass(frozen=True)
class Keyed:
    """Keys with their values."""

    where: str
    items: Mapping[str, "Given"]


Given = Text | Listed | Keyed


def override(text: str) -> Keyed:
    """The key of a `key=value`, with dots between sections, over all that stands behind the first `=`.

    Raises:
        ConfigError: if it has no such form.
    """
    key, equals, value = text.partition("=")
    if not equals or not key or key.startswith("-"):
        raise ConfigError(f"cannot read the override {shown(text)}: write it as key=value, such as rounds=4")
    if key.startswith(("+", "~")):
        raise ConfigError(
            f"cannot read the override {shown(text)}: + and ~ mean nothing here; write key=value, or key=null for a "
            f"setting that is to be left out"
        )
    if "[" in key or "]" in key:
        raise ConfigError(
            f"cannot read the override {shown(text)}: a list is given as a whole, such as fleet.ranks=[8,4]"
        )
    parts = key.split(".")
    if "" in parts:
        raise ConfigError(f"cannot read the override {shown(text)}: there is nothing before or after a dot of its key")
    given: Given = Text(OVERRIDES, value, whole=True)
    for part in reversed(parts):
        given = Keyed(OVERRIDES, {part: given})
    assert isinstance(given, Keyed)
    return given


def opened(value: Text, key: str) -> Given:
    """The list, the keys or the quoted text that an override's value is, such as `[8, 4]` or `{a: 1}`.

    Raises:
        ConfigError: if a bracket or a quote is not closed, or something follows it.
    """
    text = value.text.strip()
    try:
        node = yaml.compose(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError):
        node = None
    if node is None or node.end_mark.index < len(text):
        raise ConfigError(
            f"cannot read the override {shown(f'{key}={value.text}')}: a bracket or a quote is not closed, or more "
            f"follows; put a text that begins with one in quotes"
        )
    return _taken(node, value.where, file=None, above=())


def unfolded(given: Given, key: str) -> Given:
    """The keys that an override's value is, such as `{a: 1}`; any other value as it is."""
    folded = isinstance(given, Text) and given.whole and given.text.strip().startswith("{")
    return opened(given, key) if isinstance(given, Text) and folded else given


def read_file(path: Path) -> Keyed:
    """The keys of a YAML file.

    Raises:
        ConfigError: if it cannot be read, is no YAML in UTF-8, gives a key twice, or holds no keys at the top.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + data[: error.start].count(b"\n")
        raise ConfigError(f"{path}, line {line}: this is no UTF-8; save the file in that encoding") from error
    try:
        node = yaml.compose(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}{_line_of(error, text)}: this is no YAML: {_problem(error)}") from error
    if node is None or (node.tag == _PLAIN and node.value == ""):
        return Keyed(str(path), {})
    given = _taken(node, str(path), file=path, above=())
    if not isinstance(given, Keyed):
        raise ConfigError(f"{path} must hold keys and values, such as `rounds: 4`, not a list or a single value")
    return given


def shown(value: object) -> str:
    """A value as a sentence shows it: quoted if it is a text, and cut if it is long."""
    text = repr(value) if isinstance(value, str) else str(list(value) if isinstance(value, tuple) else value)
    text = " ".join(text.split("\n"))
    return text if len(text) <= 120 else f"{text[:80]}...{text[-20:]}"


class _Loader(yaml.BaseLoader):  # type: ignore[misc]  # yaml has no types
    """YAML in which every single value is a text, and it is known whether it stood in quotes."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        """The tag of what has none of its own."""
        if kind is yaml.ScalarNode:
            return _PLAIN if implicit[0] else _QUOTED
        return super().resolve(kind, value, implicit)


def _taken(node: Any, where: str, file: Path | None, above: tuple[Any, ...]) -> Given:
    """What a node of YAML holds; `above` are the nodes that it lies in."""
    if any(node is one for one in above):
        raise ConfigError(f"{where}: an alias stands within what it repeats; write its value out")
    if node.tag not in (_PLAIN, _QUOTED, _TEXT, _LIST, _KEYS):
        raise ConfigError(f"{where}: the tag {node.tag.replace('tag:yaml.org,2002:', '!!')} means nothing here")
    if isinstance(node, yaml.ScalarNode):
        return Text(where, node.value, quoted=node.tag != _PLAIN)
    if isinstance(node, yaml.SequenceNode):
        return Listed(where, tuple(_taken(one, _place(one, where, file), file, (*above, node)) for one in node.value))
    items: dict[str, Given] = {}
    merged: dict[str, Given] = {}
    lines: dict[str, str] = {}
    for key, value in node.value:
        at = _place(key, where, file)
        if not isinstance(key, yaml.ScalarNode):
            raise ConfigError(f"{at}: a key must be a single text, such as `rounds: 4`")
        if key.value in lines:
            raise ConfigError(f"{at}: the key {shown(key.value)} stands here a second time, after {lines[key.value]}")
        lines[key.value] = at
        given = _taken(value, at, file, (*above, node))
        if key.value == _MERGE and key.tag == _PLAIN:
            merged |= _merged(given)
        else:
            items[key.value] = given
    return Keyed(where, {**merged, **items})


def _merged(given: Given) -> Mapping[str, Given]:
    """What `<<` brings in: keys, or those of a list of such, of which earlier ones go first."""
    found: dict[str, Given] = {}
    for one in given.items if isinstance(given, Listed) else (given,):
        if not isinstance(one, Keyed):
            raise ConfigError(f"{given.where}: << must name keys and values, such as `<<: *shared`")
        found = {**one.items, **found}
    return found


def _place(node: Any, where: str, file: Path | None) -> str:
    """Where a node begins; of an override, which has no lines, where it was given."""
    return where if file is None else f"{file}, line {node.start_mark.line + 1}"


def _line_of(error: Exception, text: str) -> str:
    """Such as `, line 3`; "" where nothing is known of it."""
    mark = getattr(error, "problem_mark", None)
    position = getattr(error, "position", None)
    if mark is not None:
        return f", line {mark.line + 1}"
    return "" if position is None else f", line {1 + text[:position].count(chr(10))}"


def _problem(error: Exception) -> str:
    """What YAML says is wrong, in a few words."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    problem = str(getattr(error, "problem", None) or getattr(error, "reason", "it cannot be read"))
    if "'\\t'" in problem:
        return "a tab stands where only spaces may"
    return re.sub(r"\s+", " ", problem).removeprefix("but ")
