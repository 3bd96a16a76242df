"""Which runs lie under a folder, and which of their files may be opened: regular ones that do not lead outside."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

CONFIG, ROWS = "config.yaml", "rows"
QUEUE = ".waiting.json"


@dataclass(frozen=True)
class Found:
    """What lies under a folder."""

    runs: tuple[Path, ...]
    """Folders of runs."""
    queues: tuple[Path, ...]
    """Files in which studies say which runs are still to come (`flsim/live/queue.py`)."""


def found_under(root: Path) -> Found:
    """All runs under a folder, itself included, in the order of their names, and what is still to come there.

    Within a run there is no other one (what `flsim replay` makes there is a part of it). Hidden folders and links to
    folders are left out, the latter since they may lead anywhere, and in circles; so are folders that cannot be read.

    Args:
        root: need not be there (yet).
    """
    runs, queues = list[Path](), list[Path]()
    for folder, folders, files in os.walk(root):
        if is_run(folders, files):
            folders.clear()
            runs.append(Path(folder))
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        queues += [Path(folder) / QUEUE] if QUEUE in files else []
    return Found(tuple(runs), tuple(queues))


def is_run(folders: list[str], files: list[str]) -> bool:
    """Whether a folder that holds these is a run's: it has a config, and what a run writes before it or after it."""
    return CONFIG in files and ("environment.json" in files or ROWS in folders)


def signature(path: Path) -> tuple[int, int, int] | None:
    """What tells a version of a file from the next one, as files of a run are replaced whole; None if it is not there.

    Returns:
        Its inode, time of change in nanoseconds, and size.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def readable(path: Path, root: Path) -> bool:
    """Whether a file may be opened for whoever looks at the page.

    Args:
        path: below `root`.
        root: what the page shows; a link that leads out of it is not followed.

    Returns:
        False also for what is no regular file: opening a pipe would wait for ever.
    """
    try:
        return stat.S_ISREG(path.stat().st_mode) and path.resolve().is_relative_to(root.resolve())
    except OSError:
        return False


def newest_round(run: Path) -> tuple[int | None, tuple[int, int, int] | None]:
    """The last round that has rows, with the signature of their file; None before the first, which is round 0."""
    numbers = [number for number in map(round_of, names_in(run / ROWS)) if number is not None]
    if not numbers:
        return None, None
    return max(numbers), signature(run / ROWS / f"round-{max(numbers):05d}.parquet")


def names_in(folder: Path) -> list[str]:
    """What lies in a folder, by name; nothing if it is not there, or has just gone."""
    try:
        return os.listdir(folder)
    except OSError:
        return []


def round_of(name: str) -> int | None:
    """The round of a file such as `round-00012.parquet`; None for any other, such as one that is being written."""
    stem, _, ending = name.partition(".")
    number = stem.removeprefix("round-")
    return int(number) if stem != number and ending in ("parquet", "json") and number.isdecimal() else None
