"""Load a data set by the name of a shipped reader, or by the path of one's own.

load("gsm8k", "data/gsm8k")
load("files", "data", files={"all": "questions.csv"}, columns={"question": "prompt", "answer": "gold"})
load("my_file.py:read", "data")        any function of a folder, and settings of its own, that returns items
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from flsim.config.plugins import resolve
from flsim.config.schema import ConfigError
from flsim.tasks.data_file import known_encoding, no_encoding
from flsim.tasks.item import Item
from flsim.tasks.item_table import ItemTable
from flsim.tasks.known_set import KnownSet, Reader, located
from flsim.tasks.readers.own import hub

READERS = MappingProxyType(
    {
        "gsm8k": "flsim.tasks.readers.maths:GSM8K",
        "math": "flsim.tasks.readers.maths:MATH",
        "mbpp": "flsim.tasks.readers.code:MBPP",
        "humaneval": "flsim.tasks.readers.code:HUMANEVAL",
        "taco": "flsim.tasks.readers.code:TACO",
        "arc": "flsim.tasks.readers.choice:ARC",
        "mmlu": "flsim.tasks.readers.choice:MMLU",
        "sentiment140": "flsim.tasks.readers.users:SENTIMENT140",
        "movielens": "flsim.tasks.readers.movielens:MOVIELENS",
        "celeba": "flsim.tasks.readers.celeba:CELEBA",
        "replay_gsm8k": "flsim.tasks.readers.outcomes:REPLAY_GSM8K",
        "replay_crux": "flsim.tasks.readers.outcomes:REPLAY_CRUX",
        "router_mmlu": "flsim.tasks.readers.outcomes:ROUTER_MMLU",
        "english": "flsim.tasks.readers.english:ENGLISH",
        "femnist": "flsim.tasks.readers.images:FEMNIST",
        "omniglot": "flsim.tasks.readers.images:OMNIGLOT",
        "shakespeare": "flsim.tasks.readers.plays:SHAKESPEARE",
        "images": "flsim.tasks.readers.images:IMAGES",
        "files": "flsim.tasks.readers.own:FILES",
        "leaf": "flsim.tasks.readers.users:LEAF",
        "outcomes": "flsim.tasks.readers.outcomes:OUTCOMES",
        "datasets": "flsim.tasks.readers.own:DATASETS",
        "lm_eval": "flsim.tasks.readers.harness:LM_EVAL",
        "reasoning_gym": "flsim.tasks.readers.gym:REASONING_GYM",
    }
)
"""Short names of readers, which `kind` takes, and where they are; each is imported when it is asked for."""


def reader_of(kind: str) -> Reader | KnownSet:
    """What reads a kind of data.

    Args:
        kind: a name of `READERS`, or the path of a reader: a function, a `Reader` or a `KnownSet`.

    Raises:
        ConfigError: if there is none.
    """
    if kind not in READERS and ":" not in kind:
        raise ConfigError(f"data: there is no kind {kind!r}; it is one of: {', '.join(READERS)}")
    named = resolve("reader", READERS.get(kind, kind))
    if isinstance(named, Reader | KnownSet):
        return named
    if not callable(named):
        raise ConfigError(
            f"reader={kind!r} names {named!r}, which cannot be called; name a function that returns items"
        )
    return Reader(named)


def load(kind: str, root: str | Path = ".", *, encoding: str = "utf-8", **settings: Any) -> Sequence[Item]:
    """Read a data set.

    Args:
        kind: a known set (`gsm8k`, ...), `files` for JSONL, CSV or parquet of one's own, `leaf`, `outcomes` that one
            recorded, `datasets` or `reasoning_gym`; or the path of a reader of one's own.
        root: folder that files are relative to; `datasets` and `reasoning_gym` need none.
        encoding: of files that have no byte order mark; a reader that has no such setting refuses any but `utf-8`.
        **settings: of a known set: `files`, `hub` (a name for `datasets`, with `config` and `splits`) and its own
            options; else the keyword arguments of the reader, such as `own`.

    Raises:
        ConfigError: if the kind or a setting is unknown, or the reader cannot read; the message says the mend.
    """
    reader = reader_of(kind)
    if not known_encoding(encoding):
        raise ConfigError(f"data: {no_encoding(encoding)}")
    _refuse_other_types(kind, reader, settings)
    try:
        if isinstance(reader, KnownSet):
            items = _known(reader, Path(root), encoding, **settings)
        else:
            settings |= {} if encoding == "utf-8" else {"encoding": encoding}
            items = reader.read(Path(root), **settings) if reader.rooted else reader.read(**settings)
    except TypeError as error:
        if "argument" not in str(error):
            raise
        raise ConfigError(f"data: {kind} was given {', '.join(settings) or 'nothing'}: {error}") from error
    return _checked(kind, items)


def _known(known: KnownSet, root: Path, encoding: str, **settings: Any) -> Sequence[Item]:
    """A known set from its files, or its rows from `datasets`."""
    if "hub" in settings:
        if known.item is None:
            raise ConfigError(f"{known.name}: is read from its files only; leave out hub. {known.source}")
        return hub(settings.pop("hub"), settings.pop("config", None), item=known.item, **settings)
    return known.read(located(known, root, settings.pop("files", None), encoding=encoding), **settings)


def _checked(kind: str, given: object) -> Sequence[Item]:
    """What a reader gave, if it is items; one of one's own may give anything."""
    if isinstance(given, ItemTable) and len(given):
        return given
    if not isinstance(given, Iterable):
        raise ConfigError(f"data: {kind} gives {given!r}, which is no list of items (flsim.tasks.item.Item)")
    items = list(given)
    for number, item in enumerate(items, 1):
        if not isinstance(item, Item):
            raise ConfigError(
                f"data: {kind} gives {item!r}, which is no item; make it flsim.tasks.item.Item(question, answer)"
            )
        if kind not in READERS and not _has_texts(item):
            raise ConfigError(
                f"data: item {number} that {kind} gives must have a question and an answer that are texts, not empty, "
                f"and a user and a label that are texts or None; it is {item!a}"
            )
    if not items:
        raise ConfigError(f"data: {kind} gives no items; its files hold none that could be used")
    return items


def _has_texts(item: Item) -> bool:
    """Whether an item's texts are texts, and whole characters."""
    texts = [item.question, item.answer, *(text for text in (item.user, item.label) if text is not None)]
    try:
        return all(isinstance(text, str) and text.encode().strip() for text in texts)
    except UnicodeEncodeError:
        return False


def _refuse_other_types(kind: str, reader: Reader | KnownSet, settings: Mapping[str, Any]) -> None:
    """A text where a table is due, such as `files: mine.csv`, would fail in the middle of reading.

    Raises:
        ConfigError: naming the setting, and what it must be.
    """
    try:
        hints = get_type_hints(reader.read)
    except (NameError, TypeError):  # one's own function, whose hints name what is not there, or that has none
        hints = {}
    hints |= {"files": Mapping[str, str], "hub": str} if isinstance(reader, KnownSet) else {}
    for name, value in settings.items():
        if not _fits(value, hints.get(name, Any)):
            raise ConfigError(f"data: settings.{name}={value!r} of {kind} must be {_words(hints[name])}")


def _fits(value: object, hint: Any) -> bool:
    """Whether a value read from YAML is of a type; whatever is not listed here fits."""
    origin, parts = get_origin(hint) or hint, get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is Mapping:
        return isinstance(value, Mapping)  # what it holds is named by whoever reads it
    if origin is Sequence:
        return isinstance(value, list | tuple) and all(_fits(own, parts[0]) for own in value)
    if origin in (int, float):
        return isinstance(value, int if origin is int else int | float) and not isinstance(value, bool)
    return isinstance(value, origin) if origin in (str, bool, NoneType) else True


def _words(hint: Any) -> str:
    """A type in words."""
    origin, parts = get_origin(hint) or hint, get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(_words(part) for part in parts)
    if origin in (Mapping, Sequence):
        return "a table of names with values" if origin is Mapping else f"a list, each {_words(parts[0])}"
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", NoneType: "null"}
    return words.get(origin, str(hint))


def missing(root: str | Path, names: Mapping[str, str] | None = None) -> dict[str, str]:
    """What is not there of the known sets.

    Args:
        root: folder with a folder per set.
        names: set -> its folder under the root; None means every known set in the folder of its name.

    Returns:
        Set -> what was looked for and where to get it; sets that are there are left out.
    """
    known = {name: reader for name in READERS if isinstance(reader := reader_of(name), KnownSet)}
    found = {}
    for name, folder in (names or {name: name for name in known}).items():
        try:
            located(known[name], Path(root) / folder)
        except ConfigError as error:
            found[name] = str(error)
    return found
