"""What reads a data set, and a set that is known: its files, where to get them, its verifier, and what lacks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from flsim.config.schema import ConfigError
from flsim.tasks.data_file import DataFile
from flsim.tasks.item import Item
from flsim.tasks.tables import Row, rows_of_all

Made = TypeVar("Made")
"""An item, or for a row that is left out None."""
Files = Mapping[str, tuple[str, ...]]
"""Split (or part of the data) -> paths or patterns under a root; the first that is there is taken."""
Found = Mapping[str, tuple[DataFile, ...]]
"""Split (or part) -> the files that are there."""


@dataclass(frozen=True)
class Reader:
    """A function that reads items, and what fits them; a function of one's own needs none of it."""

    read: Callable[..., Sequence[Item]]
    """Items from a folder, its first argument, and settings of its own."""
    verifier: str = "exact"
    """Which verifier its references are for: a short name, or a path."""
    rooted: bool = True
    """Whether it takes a folder; one that brings its own items, or gets them from a hub, does not."""
    files: Callable[[Path, Any, str], Mapping[str, tuple[DataFile, ...]]] | None = None
    """Which files it reads, of a folder, its setting `files` and an encoding; None where that cannot be said."""
    judged: Callable[[Item], Item] | None = None
    """Turns an item into one whose answer its own verifier takes; None where it is one."""
    judge: Callable[[Path, Mapping[str, Any]], str] | None = None
    """Which verifier, of a folder and settings, where that depends on what is read; None: always the same."""


@dataclass(frozen=True)
class KnownSet:
    """One data set that has a name."""

    name: str
    files: Files
    """What it comes in; the layouts of its own archive first, then that of its Hugging Face repository."""
    read: Callable[..., Sequence[Item]]
    """Items from the found files; its keyword arguments are the set's options."""
    verifier: str
    """Which verifier its references are for: a short name, or a path."""
    source: str
    """Where to get it."""
    licence: str
    columns: tuple[str, ...]
    """Columns that its rows must have."""
    optional: tuple[str, ...] = ()
    """Splits or parts that it can do without."""
    item: Callable[[Row, str | None], Item] | None = field(default=None)
    """One row as an item, for a set that `datasets` can bring; None where files are read as a whole."""
    in_parts: bool = False
    """Whether its files are no splits but parts that need each other, such as ratings and films: those that a setting
    `files` does not name are then looked for where the set has them."""
    tells_the_past: bool = False
    """Whether a question tells what its user answered before, so that its splits must be in order of time."""


def located(
    known: KnownSet, root: Path, files: Mapping[str, str] | None = None, *, encoding: str = "utf-8"
) -> dict[str, tuple[DataFile, ...]]:
    """The files of a set.

    Args:
        known: the set.
        root: folder that its paths are relative to.
        files: split -> path or pattern, in place of the set's own layout; only the splits named here are read, but of
            a set in parts the others, too.
        encoding: of its files, where the set does not say which.

    Raises:
        ConfigError: if one is not there; says where it was looked for and where to get it.
    """
    wanted: Files = {split: (pattern,) for split, pattern in files.items()} if files else known.files
    if known.in_parts:
        wanted = {**known.files, **wanted}
        unknown = sorted(wanted.keys() - known.files.keys())
        if unknown:
            raise ConfigError(f"{known.name}: files names {unknown[0]!r}; its files are: {', '.join(known.files)}")
    found = {}
    for split, patterns in wanted.items():
        there = next((paths for paths in (matches(root, pattern, encoding) for pattern in patterns) if paths), ())
        if there:
            found[split] = there
        elif files or split not in known.optional:
            looked = " or ".join(str(root / pattern) for pattern in patterns)
            raise ConfigError(f"{known.name}: no file for {split!r}; looked for {looked}. {known.source}")
    if not found:
        looked = ", ".join(str(root / pattern) for patterns in wanted.values() for pattern in patterns)
        raise ConfigError(f"{known.name}: none of its files is there; looked for {looked}. {known.source}")
    return found


def matches(root: Path, pattern: str, encoding: str = "utf-8") -> tuple[DataFile, ...]:
    """Files under the root that a path or pattern names, sorted; an absolute path stands for itself.

    Raises:
        ConfigError: if it is no pattern, names a folder or a link to nothing, or may not be looked for.
    """
    if not isinstance(pattern, str) or not pattern:
        raise ConfigError(f"files: {pattern!r} is no file and no pattern of files; write such as train.jsonl")
    whole = Path(pattern)
    try:
        exact = root / whole
        if exact.is_file():  # also one with a bracket in its name
            return (DataFile(exact, encoding),)
        if exact.is_dir():
            raise ConfigError(f"{exact} is a folder, not a file; name the files in it, such as {exact}/*.jsonl")
        if exact.is_symlink():
            raise ConfigError(f"{exact} is a link to {exact.readlink()}, which is not there")
        if whole.is_absolute():
            root, pattern = Path(whole.anchor), str(whole.relative_to(whole.anchor))
        return tuple(DataFile(path, encoding) for path in sorted(root.glob(pattern)) if path.is_file())
    except (OSError, ValueError, NotImplementedError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{pattern!r} under {str(root)!r} cannot be looked for ({error})") from error


def item_of(item: Callable[..., Made], row: Row, split: str | None, **options: object) -> Made:
    """A row of a known set as an item.

    Raises:
        ConfigError: naming the row, also where its columns hold other things than the set's.
    """
    try:
        made = item(row, split, **options)
        return replace(made, where=row.where) if isinstance(made, Item) else made
    except ConfigError:
        raise
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, TypeError) and "keyword argument" in str(error):
            raise  # a setting that the set does not have
        said = f"{type(error).__name__}: {error}"
        raise row.error(f"its columns do not hold what this data set has there ({said})") from error


def by_row(item: Callable[..., Item]) -> Callable[..., list[Item]]:
    """Read every row of every file as one item; options go to `item`."""

    def read(found: Found, **options: object) -> list[Item]:
        return [item_of(item, row, split, **options) for split, files in found.items() for row in rows_of_all(files)]

    return read
