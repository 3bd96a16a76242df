"""What reads a data set, and a set that is known: its files, where to get them, its verifier, and what lacks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flsim.config.schema import ConfigError
from flsim.tasks.item import Item
from flsim.tasks.tables import Row, rows_of_all

Files = Mapping[str, tuple[str, ...]]
"""Split (or part of the data) -> paths or patterns under a root; the first that is there is taken."""
Found = Mapping[str, tuple[Path, ...]]
"""Split (or part) -> the files that are there."""


@dataclass(frozen=True)
class Reader:
    """A function that reads items, and what fits them; a function of one's own needs none of it."""

    read: Callable[..., list[Item]]
    """Items from a folder, its first argument, and settings of its own."""
    verifier: str = "exact"
    """Which verifier its references are for: a short name, or a path."""
    rooted: bool = True
    """Whether it takes a folder; one that brings its own items, or gets them from a hub, does not."""
    judged: Callable[[Item], Item] | None = None
    """Turns an item into one whose answer its own verifier takes; None where it is one."""


@dataclass(frozen=True)
class KnownSet:
    """One data set that has a name."""

    name: str
    files: Files
    """What it comes in; the layouts of its own archive first, then that of its Hugging Face repository."""
    read: Callable[..., list[Item]]
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


def located(known: KnownSet, root: Path, files: Mapping[str, str] | None = None) -> dict[str, tuple[Path, ...]]:
    """The files of a set.

    Args:
        known: the set.
        root: folder that its paths are relative to.
        files: split -> path or pattern, in place of the set's own layout; only the splits named here are read.

    Raises:
        ConfigError: if one is not there; says where it was looked for and where to get it.
    """
    wanted: Files = {split: (pattern,) for split, pattern in files.items()} if files else known.files
    found = {}
    for split, patterns in wanted.items():
        there = next((paths for paths in (matches(root, pattern) for pattern in patterns) if paths), ())
        if there:
            found[split] = there
        elif files or split not in known.optional:
            looked = " or ".join(str(root / pattern) for pattern in patterns)
            raise ConfigError(f"{known.name}: no file for {split!r}; looked for {looked}. {known.source}")
    if not found:
        looked = ", ".join(str(root / pattern) for patterns in wanted.values() for pattern in patterns)
        raise ConfigError(f"{known.name}: none of its files is there; looked for {looked}. {known.source}")
    return found


def matches(root: Path, pattern: str) -> tuple[Path, ...]:
    """Files under the root that a path or pattern names, sorted; an absolute path stands for itself."""
    whole = Path(pattern)
    if whole.is_absolute():
        root, pattern = Path(whole.anchor), str(whole.relative_to(whole.anchor))
    return tuple(sorted(path for path in root.glob(pattern) if path.is_file()))


def by_row(item: Callable[..., Item]) -> Callable[..., list[Item]]:
    """Read every row of every file as one item; options go to `item`."""

    def read(found: Found, **options: object) -> list[Item]:
        return [item(row, split, **options) for split, paths in found.items() for row in rows_of_all(paths)]

    return read
