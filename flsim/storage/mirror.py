"""A run's folder here and its objects in a store: what is put at a commit, and how the folder is brought to it again.

    config.yaml, timing/..., report.html, ...      as they are called in the folder
    rows/round-00007.3f9a0c51d2e7.parquet          with the first digits of the SHA-256 of what they hold, so that what
    checkpoints/round-00007.88aa01b2c3d4.npz       was committed is never written over
    devices/round-00007-9f00c51d2e7a.states        put by the workers, which name them by what they hold

A round is committed when its checkpoint is in the store: that is put last, and names the rows of every round. What a
folder has beyond the newest checkpoint in the store is of a round that was given up.
"""

import io
import re
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np

from flsim.files import DamagedFileError, digest_of, write_atomically
from flsim.storage.behind import bucket_behind
from flsim.storage.bucket import Bucket

CHECKPOINTS, ROWS = "checkpoints", "rows"
STATES = ("devices", "flights")
"""Folders whose files whoever writes them puts."""
_OWN_WAYS = (*STATES, CHECKPOINTS, "replays")
_JOURNALS = "purchases/"
_DIGITS = 12
_NAMED = re.compile(rf"(rows|checkpoints)/(round-(\d+))\.([0-9a-f]{{{_DIGITS}}})(\.\w+)")
_BAD = (zipfile.BadZipFile, ValueError, KeyError, EOFError, OSError)


class Mirror:
    """The folder and the store, as far as one process has seen them agree."""

    def __init__(self, folder: Path, bucket: Bucket) -> None:
        """Begin, with nothing put yet.

        Args:
            folder: of the run, here.
            bucket: what is in it counts.
        """
        self.folder, self.bucket = folder, bucket
        self._put: dict[str, tuple[int, int]] = {}  # size and time of each file that is there as it is here
        self._own: set[str] = set()  # checkpoints that this process put, or went on from

    @classmethod
    def of(cls, folder: Path) -> "Mirror | None":
        """That of a folder which is a copy; None for all others."""
        bucket = bucket_behind(folder)
        return None if bucket is None else cls(folder, bucket)

    def push(self, *, hasty: bool = False) -> None:
        """Put all files that are new or changed since they were put, but for checkpoints and what workers put.

        Args:
            hasty: try once.

        Raises:
            UnreachableError: if the store does not take one.
        """
        changed = {name: now for name, now in self._files().items() if self._put.get(name) != now}
        bucket = self.bucket.hasty() if hasty else self.bucket
        bucket.put_all(self._objects(changed))
        self._put |= changed

    def commit(self, name: str, data: bytes) -> None:
        """Put a checkpoint, which is what commits a round; all else of the round is there.

        Raises:
            UnreachableError: if the store does not take it: the round is not committed then.
        """
        object_ = named(name, data)
        self.bucket.put(object_, data)
        self._own.add(object_)

    def forget(self, kept: list[str]) -> None:
        """Delete older checkpoints of this process from the store, all but those that the folder keeps."""
        old = {object_ for object_ in self._own if _plain(object_) not in kept}
        self.bucket.delete(old)
        self._own -= old

    def strangers(self) -> list[str]:
        """Checkpoints in the store that this process neither put nor went on from."""
        return sorted(set(self.bucket.sizes(CHECKPOINTS)) - self._own)

    def bring(self) -> None:
        """Have the folder hold what is committed in the store, and nothing else; states stay where they are.

        Raises:
            DamagedFileError: if what is there is not what was put, with what can be done.
            UnreachableError: if the store does not answer.
        """
        there = {name: size for name, size in self.bucket.sizes().items() if name.partition("/")[0] not in STATES}
        kept = self._bring_checkpoints([name for name in there if name.startswith(f"{CHECKPOINTS}/")])
        rows = self._bring_rows(kept, [name for name in there if name.startswith(f"{ROWS}/")])
        free = [name for name in there if not _NAMED.fullmatch(name) and not _is_hidden(name)]
        for name, data in self.bucket.get_all(name for name in free if not name.startswith(_JOURNALS)).items():
            write_atomically(self.folder / name, data, what=f"{name} of {self.bucket}", durable=False)
        wanted = {*free, *kept, *rows}
        for name in set(self._files(every=True)) - wanted:
            (self.folder / name).unlink(missing_ok=True)
        self._put = {name: now for name, now in self._files().items() if name in wanted}
        self._own = set(kept.values())

    def tidy(self) -> None:
        """Delete from the store what was given up: rows and checkpoints; only whoever has the run may do that."""
        self.bucket.delete(self.strangers())
        kept = {named(name, (self.folder / name).read_bytes()) for name in self._files() if name.startswith(f"{ROWS}/")}
        self.bucket.delete(set(self.bucket.sizes(ROWS)) - kept)

    def _bring_checkpoints(self, there: list[str]) -> dict[str, str]:
        """The two newest, by the names that they have here."""
        found: dict[str, str] = {}
        for object_ in sorted(there, reverse=True):
            found.setdefault(_plain(object_), object_)
        newest = dict(list(found.items())[:2])
        self._get_named(newest, "delete it to go on from the round before it, if there is one in checkpoints/")
        return newest

    def _bring_rows(self, kept: dict[str, str], there: list[str]) -> dict[str, str]:
        """The rows that the newest checkpoint names."""
        if not kept:
            return {}
        newest = next(iter(kept))
        digests = _rows_of((self.folder / newest).read_bytes())
        if digests is None:  # it cannot be read, as whoever opens it will say
            return {_plain(object_): object_ for object_ in there}
        found = {}
        for round_, digest in enumerate(digests):
            plain = f"{ROWS}/round-{round_:05d}.parquet"
            found[plain] = f"{ROWS}/round-{round_:05d}.{digest.hex()[:_DIGITS]}.parquet"
        lost = sorted(set(found.values()) - set(there))
        if lost:
            raise DamagedFileError(
                f"{self.bucket} lacks {lost[0]}, which {kept[newest]} names; put a copy of it back, or begin the run "
                f"anew at another address"
            )
        self._get_named(found, "put a copy of it back, or begin the run anew at another address")
        return found

    def _get_named(self, objects: dict[str, str], mend: str) -> None:
        """Have files here that are named by what they hold."""
        lacking = {plain: object_ for plain, object_ in objects.items() if not self._has(plain, object_)}
        got = self.bucket.get_all(lacking.values())
        for plain, object_ in lacking.items():
            data = got.get(object_)
            if data is None or named(plain, data) != object_:
                raise DamagedFileError(f"{object_} of {self.bucket} is damaged or gone; {mend}")
            write_atomically(self.folder / plain, data, what=f"{plain} of {self.bucket}", durable=False)

    def _has(self, plain: str, object_: str) -> bool:
        path = self.folder / plain
        return path.is_file() and named(plain, path.read_bytes()) == object_

    def _files(self, *, every: bool = False) -> dict[str, tuple[int, int]]:
        """The files here that are to be there, by name, with size and time; `every` has checkpoints with them."""
        found = {}
        for path in self.folder.rglob("*"):
            name = path.relative_to(self.folder).as_posix()
            top = name.partition("/")[0]
            mine = top not in _OWN_WAYS or (every and top == CHECKPOINTS)
            if mine and not _is_hidden(name) and not name.startswith(_JOURNALS):
                with suppress(FileNotFoundError):  # a worker tidies up at the same time
                    if path.is_file():
                        stat = path.stat()
                        found[name] = (stat.st_size, stat.st_mtime_ns)
        return found

    def _objects(self, names: dict[str, tuple[int, int]]) -> list[tuple[str, bytes]]:
        read = {name: (self.folder / name).read_bytes() for name in names}
        return [(named(name, data) if name.startswith(f"{ROWS}/") else name, data) for name, data in read.items()]


def named(name: str, data: bytes) -> str:
    """The object that holds a file of rows or a checkpoint."""
    stem, dot, ending = name.rpartition(".")
    return f"{stem}.{digest_of(data).hex()[:_DIGITS]}{dot}{ending}"


def _plain(object_: str) -> str:
    found = _NAMED.fullmatch(object_)
    return object_ if found is None else f"{found.group(1)}/{found.group(2)}{found.group(5)}"


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _rows_of(checkpoint: bytes) -> list[bytes] | None:
    """The SHA-256 of the rows of every round, as a checkpoint names them (`flsim/loop/checkpoints.py`)."""
    try:
        with np.load(io.BytesIO(checkpoint), allow_pickle=False) as file:
            return [digest.tobytes() for digest in file["rows"]]
    except _BAD:
        return None


def shown(path: Path) -> str:
    """A file as people find it: in the store, where the folder is a copy of what is there."""
    bucket = bucket_behind(path.parent)
    if bucket is None:
        return str(path)
    name = path.name
    if path.parent.name in (CHECKPOINTS, ROWS) and path.is_file():
        name = named(name, path.read_bytes())
    return str(bucket.address.below(name))
