"""Load a data set by the name of a shipped reader, or by the path of one's own.

load("gsm8k", "data/gsm8k")
load("files", "data", files={"all": "questions.csv"}, columns={"question": "prompt", "answer": "gold"})
load("my_file.py:read", "data")        any function of a folder, and settings of its own, that returns items
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from flsim.config.plugins import resolve
from flsim.config.schema import ConfigError
from flsim.tasks.item import Item
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
        "movielens": "flsim.tasks.readers.users:MOVIELENS",
        "replay_gsm8k": "flsim.tasks.readers.outcomes:REPLAY_GSM8K",
        "replay_crux": "flsim.tasks.readers.outcomes:REPLAY_CRUX",
        "router_mmlu": "flsim.tasks.readers.outcomes:ROUTER_MMLU",
        "files": "flsim.tasks.readers.own:FILES",
        "leaf": "flsim.tasks.readers.users:LEAF",
        "outcomes": "flsim.tasks.readers.outcomes:OUTCOMES",
        "datasets": "flsim.tasks.readers.own:DATASETS",
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


def load(kind: str, root: str | Path = ".", **settings: Any) -> list[Item]:
    """Read a data set.

    Args:
        kind: a known set (`gsm8k`, ...), `files` for JSONL, CSV or parquet of one's own, `leaf`, `outcomes` that one
            recorded, `datasets` or `reasoning_gym`; or the path of a reader of one's own.
        root: folder that files are relative to; `datasets` and `reasoning_gym` need none.
        **settings: of a known set: `files`, `hub` (a name for `datasets`, with `config` and `splits`) and its own
            options; else the keyword arguments of the reader, such as `own`.

    Raises:
        ConfigError: if the kind or a setting is unknown, or the reader cannot read; the message says the mend.
    """
    reader = reader_of(kind)
    try:
        if isinstance(reader, KnownSet):
            return _known(reader, Path(root), **settings)
        items = reader.read(Path(root), **settings) if reader.rooted else reader.read(**settings)
    except TypeError as error:
        if "argument" not in str(error):
            raise
        raise ConfigError(f"data: {kind} was given {', '.join(settings) or 'nothing'}: {error}") from error
    wrong = next((item for item in items if not isinstance(item, Item)), None)
    if wrong is not None:
        raise ConfigError(
            f"data: {kind} gives {wrong!r}, which is no item; make it flsim.tasks.item.Item(question, answer)"
        )
    return list(items)


def _known(known: KnownSet, root: Path, **settings: Any) -> list[Item]:
    """A known set from its files, or its rows from `datasets`."""
    if "hub" in settings:
        if known.item is None:
            raise ConfigError(f"{known.name}: is read from its files only; leave out hub. {known.source}")
        return hub(settings.pop("hub"), settings.pop("config", None), item=known.item, **settings)
    return known.read(located(known, root, settings.pop("files", None)), **settings)


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
