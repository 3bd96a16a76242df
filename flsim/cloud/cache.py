"""What was bought from the cloud once, kept on disk: a rerun and a resume buy nothing twice.

One SQLite file of sealed values under the SHA-256 of all that was asked. Any number of processes may share it: a value
is written in one transaction, and the first one to come stays, so that whoever asks later gets the very same bits.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from flsim.files import DamagedFileError, seal

_WAIT_S = 60.0  # for another process that writes
_AT_ONCE = 500  # keys of one query; SQLite takes 999


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
