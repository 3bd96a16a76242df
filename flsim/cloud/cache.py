"""What was bought from the cloud once, kept on disk: a rerun and a resume buy nothing twice.

One SQLite file of sealed values under the SHA-256 of all that was asked, the same for devices and server. Any number of
processes may share it: a value is written in one transaction, and the first one to come stays, so that whoever asks
later gets the very same bits. `flsim/cloud/cached.py` stands before a cloud and asks it every question once.
"""

import hashlib
import json
import logging
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from flsim.config.schema import ConfigError
from flsim.files import DamagedFileError, seal
from flsim.problems.families import is_builtin
from flsim.problems.problem import Problem

_WAIT_S = 60.0  # for another process that writes
_AT_ONCE = 500  # keys of one query; SQLite takes 999
_TRIED = b"tried"  # the key of what is written to see whether that works; others have 32 bytes
_TRIED_BYTES = 2**16

_log = logging.getLogger("flsim.run.cloud")


class Cache:
    """Values by key, in a folder."""

    def __init__(self, folder: str | Path) -> None:
        """Name the folder; it is made when something is put into it."""
        self.path = Path(folder) / "bought.sqlite"

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The values of those keys that are known.

        Raises:
            DamagedFileError: if the file or one of the values cannot be read.
        """
        if not self.path.is_file():
            return {}
        found: dict[bytes, bytes] = {}
        with self._open() as connection:
            for start in range(0, len(keys), _AT_ONCE):
                some = list(keys[start : start + _AT_ONCE])
                marks = ", ".join("?" * len(some))
                found |= dict(connection.execute(f"SELECT key, value FROM bought WHERE key IN ({marks})", some))
        return {key: self._unsealed(value) for key, value in found.items()}

    def check(self) -> None:
        """Make sure that it can be read and written, by doing so.

        Raises:
            ConfigError: saying what went wrong, and the mend.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._open() as connection, connection:
                connection.execute("INSERT OR REPLACE INTO bought VALUES (?, ?)", (_TRIED, seal(bytes(_TRIED_BYTES))))
            self.get([_TRIED])
            with self._open() as connection, connection:
                connection.execute("DELETE FROM bought WHERE key = ?", (_TRIED,))
        except DamagedFileError as error:
            raise ConfigError(str(error)) from error
        except (OSError, sqlite3.Error) as error:
            why = getattr(error, "strerror", None) or error
            raise ConfigError(
                f"the cache of cloud answers {self.path} cannot be written ({why}); give it room and permission, name "
                f"another folder by cloud.cache (a stage's by stage.cache), or keep nothing with cloud.cache=null"
            ) from error

    def put(self, values: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """Keep values and return what is kept: another's, where one was there first."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as connection, connection:
            rows = [(key, seal(value)) for key, value in values.items()]
            connection.executemany("INSERT OR IGNORE INTO bought VALUES (?, ?)", rows)
        return self.get(list(values))

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=_WAIT_S)) as connection:
                connection.execute("CREATE TABLE IF NOT EXISTS bought (key BLOB PRIMARY KEY, value BLOB NOT NULL)")
                yield connection
        except sqlite3.OperationalError:
            raise  # locked, a full disk, no permission: SQLite's own words say it
        except sqlite3.DatabaseError as error:
            raise self._damaged(str(error)) from error

    def _unsealed(self, value: bytes) -> bytes:
        data = value[len(seal(b"")) :]
        if seal(data) != value:
            raise self._damaged("wrong checksum")
        return data

    def _damaged(self, why: str) -> DamagedFileError:
        return DamagedFileError(f"the cache {self.path} is damaged ({why}); delete it, and answers are bought again")


class Shelf(Cache):
    """The cache of a run: once it fails it is left out, since what was paid must not be lost over what is kept of it.

    What could not be kept stays in the memory of this process; the log says so once.
    """

    def __init__(self, folder: str | Path) -> None:
        """Name the folder."""
        super().__init__(folder)
        self.left_out = False
        """Whether nothing is kept any more."""
        self._reads = True
        self._here: dict[bytes, bytes] = {}

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The values of those keys that are known, as far as they can be read."""
        found = {key: self._here[key] for key in keys if key in self._here}
        try:
            return (super().get(keys) if self._reads else {}) | found
        except (OSError, sqlite3.Error, DamagedFileError) as error:
            self._reads = False
            self._leave_out(error)
            return found

    def put(self, values: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """Keep values, at least here, and return what is kept."""
        kept: dict[bytes, bytes] = {}
        if not self.left_out:
            try:
                kept = super().put(values)
            except (OSError, sqlite3.Error, DamagedFileError) as error:
                self._leave_out(error)
        if not self.left_out:
            return kept
        self._here = {**values, **kept, **self._here}
        return {key: self._here[key] for key in values}

    def _leave_out(self, error: Exception) -> None:
        if not self.left_out:
            _log.warning("the cache of cloud answers %s is left out from now on: %s", self.path, error)
        self.left_out = True


def key_of(
    identity: Sequence[object],
    level: str,
    problem: Problem,
    top: int = 0,
    tokens: Sequence[int] = (),
    layers: Sequence[int] = (),
) -> bytes:
    """The key of one request.

    Args:
        identity: of the cloud, which says all else that its answers depend on.
        level: the access that it takes, one of `CLOUD_ACCESS`.
        problem: what is asked.
        top: how many of the likeliest tokens to tell.
        tokens: what to score.
        layers: whose hidden states to tell.
    """
    # a list, as the same words are another question where no notation is explained with them
    asked = problem.prompt if is_builtin(problem) else [problem.prompt]
    all_of_it = [*identity, level, asked, top, list(tokens), *([list(layers)] if layers else [])]
    return hashlib.sha256(json.dumps(all_of_it, sort_keys=True).encode()).digest()
