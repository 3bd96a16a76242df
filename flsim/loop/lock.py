"""One process per run folder: a lock that dies with its process, and a lease beside it that says who has the folder.

`.lock` is held by `flock`: the kernel lets it go when its process ends, however it ends, and a process that is merely
stopped keeps it. Some file systems know no locks, and some know them on one machine only. So whoever holds the folder
also keeps a lease in `.owner.json`, and renews it: another machine that finds one takes the folder only after it has
watched the lease stand still for long enough. An owner that was stopped for so long finds another's name in it, before
it commits anything. Children that are forked do not hold the lock. Reading a folder takes no lock.

Of a run in an object store the lock holds the copy of this machine, and the lease lies in the store.
"""

import errno
import fcntl
import json
import logging
import os
import platform
import secrets
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from flsim.config.schema import ConfigError
from flsim.files import UnwritableError, called, write_atomically
from flsim.storage.mirror import Mirror

LOCK, OWNER = ".lock", ".owner.json"
EXPIRY_S = 60.0
"""A lease that another machine sees unchanged for so many seconds is over."""
_BEAT_S = 10.0  # between two renewals of a lease
_LOOK_S = 1.0  # between two looks at another's lease
_SETTLE_THERE_S = 2.0  # likewise of an object store, where a put may take a while
_SETTLE_S = 0.5  # two that take a folder without locks at once see each other after so long
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}

_guard = threading.Lock()
_held: dict[Path, "RunLock"] = {}  # of this process: some file systems' locks do not tell its threads apart


class FolderInUseError(ConfigError):
    """Another process, or this one, has the run's folder; the message names it and how to go on."""


@dataclass(frozen=True)
class Owner:
    """Who has a folder, as its lease says."""

    host: str
    pid: int
    since: str
    """Date and time, as people there read it."""
    machine: str
    """One kernel since one start; in it, locks always work."""
    space: str
    """In which its pid means something: containers of one machine count each for itself."""
    started: float
    """When the process began, so that a later one with its pid is told apart."""
    token: str
    """Unlike that of any other owner."""
    beat: int = 0
    """How often it was renewed."""

    @classmethod
    def me(cls) -> Self:
        """This process, from now on."""
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        started = psutil.Process().create_time()
        return cls(platform.node(), os.getpid(), now, _machine(), _pid_space(), started, secrets.token_hex(16))

    @classmethod
    def said_in(cls, data: str | bytes) -> Self:
        """What a lease holds.

        Raises:
            ValueError: if it holds no such thing.
        """
        try:
            found = cls(**json.loads(data))
        except (TypeError, RecursionError) as error:
            raise ValueError(f"it names no owner ({error})") from error
        if not (isinstance(found.pid, int) and found.pid > 0 and isinstance(found.started, int | float)):
            raise ValueError(f"it names no process (pid={found.pid!r}, started={found.started!r})")
        return found

    @property
    def is_near(self) -> bool:
        """Whether its pid means something here: it is of this machine since its start, and of the same container."""
        return self.machine == _machine() and self.space == _pid_space()

    @property
    def is_stopped(self) -> bool:
        """Whether it is a process near this one that is held by a signal, and may go on."""
        try:
            return self.is_near and self.runs and psutil.Process(self.pid).status() == psutil.STATUS_STOPPED
        except psutil.Error:
            return False

    @property
    def runs(self) -> bool:
        """Whether there is such a process, in the space of this one; one that is stopped counts."""
        try:
            return abs(psutil.Process(self.pid).create_time() - self.started) < 1.0
        except psutil.Error:
            return False

    def __str__(self) -> str:
        """For a sentence."""
        who = f"process {self.pid} on {self.host}, since {self.since}"
        return f"{who} (it is stopped; kill -CONT {self.pid} lets it go on)" if self.is_stopped else who


def owner_of(folder: Path) -> Owner | None:
    """Who has a run's folder, or had it and was gone before it could let it go, as the lease says; None if nobody.

    It takes no lock and disturbs nobody.

    Raises:
        OSError: if a lease is there and cannot be reached.
    """
    try:
        return Owner.said_in((folder / OWNER).read_text())
    except (FileNotFoundError, ValueError):
        return None  # a lease that cannot be read is nobody's: it is always written whole


class RunLock:
    """A run's folder, held by this process. Use as a context manager."""

    def __init__(self, folder: Path, *, beat_s: float = _BEAT_S, expiry_s: float = EXPIRY_S) -> None:
        """Name the folder, which is made if it is not there.

        Args:
            folder: the run's.
            beat_s: seconds between two renewals of the lease.
            expiry_s: seconds after which a lease of another machine that is not renewed is over.
        """
        self.folder = folder
        self.owner = Owner.me()
        self._beat_s, self._expiry_s = beat_s, expiry_s
        self._key = folder.resolve()
        self.mirror = Mirror.of(folder)
        """The store in which the run counts; None if it counts in the folder."""
        self._lock: int | None = None  # the open file that holds the lock; None where there are none
        self._ended = threading.Event()
        self._writing = threading.Lock()
        self._heart = threading.Thread(target=self._renew, name="lease of a run", daemon=True)

    def __enter__(self) -> Self:
        """Take the folder.

        Raises:
            FolderInUseError: if somebody has it.
            ConfigError: if nothing can be written there.
        """
        with _guard:
            if self._key in _held:
                raise self._taken(
                    f"this very process, since {_held[self._key].owner.since}", "wait until that run ends"
                )
            _held[self._key] = self
        try:
            self._take()
        except BaseException:
            self._let_go()
            raise
        self._heart.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let it go; in a forked child there is nothing to let go."""
        if os.getpid() != self.owner.pid:
            return
        self._ended.set()
        self._heart.join()
        with suppress(UnwritableError):  # a store that is away keeps a lease that stands still
            there = self._read(hasty=True)
            if there is not None and there.token == self.owner.token:
                self._drop()
        self._let_go()

    def check(self) -> None:
        """See that the folder is still this process's, before anything is committed.

        Raises:
            FolderInUseError: if another has taken it meanwhile.
        """
        there = self._read()
        if there is None and self._tells:
            self._write()  # somebody has tidied up, and the lock still tells
        elif there is None or there.token != self.owner.token:
            raise FolderInUseError(
                f"{called(self.folder)} was taken over by {there or 'somebody who has left it since'}, while this "
                f"process ({self.owner.pid} on {self.owner.host}) was stopped or did not reach it for "
                f"{self._expiry_s:g} s; this one ends and commits nothing more, the run goes on there"
            )

    def _take(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = self._flock()
            there = self._read()
            if there is not None and self._lives(there):
                raise self._taken(str(there), f"wait until it is done, or end it there (kill {there.pid})")
            self._write()
        except OSError as error:
            raise ConfigError(
                f"the run folder {self.folder} cannot be taken ({error.strerror or error}): a run writes there; make "
                f"it writable, or choose another run_dir"
            ) from error
        if not self._tells:
            time.sleep(_SETTLE_S if self.mirror is None else _SETTLE_THERE_S)
            self.check()

    @property
    def _tells(self) -> bool:
        """Whether the lock alone tells who has the run."""
        return self._lock is not None and self.mirror is None

    def _flock(self) -> int | None:
        """The open file that holds the lock; None where the file system has no locks."""
        file = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(file)
            if error.errno in _NO_LOCKS:
                return None
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                there = self._read()
                end = "" if there is None else f", or end it there (kill {there.pid})"
                raise self._taken(str(there or "another process"), f"wait until it is done{end}") from None
            raise
        return file

    def _lives(self, there: Owner) -> bool:
        """Whether the owner that the lease names may still be at work, now that no lock is in the way."""
        if there.machine == self.owner.machine:
            if self._tells:
                return False  # the kernel would have said so
            if there.space == self.owner.space:
                return there.runs
        said = "%s: looking for %g s whether it is in use by %s"
        logging.getLogger("flsim.run").warning(said, called(self.folder), self._expiry_s, there)
        watched = time.monotonic()
        while time.monotonic() - watched < self._expiry_s:
            time.sleep(min(_LOOK_S, self._expiry_s / 10))
            now = self._read()
            if now is None:
                return False
            if now != there:
                return True
        return False

    def _renew(self) -> None:
        """Beat, until this process lets go or somebody else has the lease."""
        while not self._ended.wait(self._beat_s):
            try:
                there = self._read(hasty=True)
                if there is not None and there.token != self.owner.token:
                    return
                self._write(hasty=True)
            except (OSError, UnwritableError):
                continue  # a full disk or a server that is away may cost the lease, and no run ends by it

    def _write(self, *, hasty: bool = False) -> None:
        with self._writing:
            self.owner = replace(self.owner, beat=self.owner.beat + 1)
            data = json.dumps(asdict(self.owner)).encode()
            if self.mirror is not None:
                bucket = self.mirror.bucket.hasty() if hasty else self.mirror.bucket
                bucket.put(OWNER, data)
                return
            write_atomically(self.folder / OWNER, data, what="who has the run's folder", durable=False)

    def _read(self, *, hasty: bool = False) -> Owner | None:
        if self.mirror is None:
            return owner_of(self.folder)
        bucket = self.mirror.bucket.hasty() if hasty else self.mirror.bucket
        try:
            return Owner.said_in(bucket.get(OWNER))
        except (FileNotFoundError, ValueError):
            return None  # a lease that cannot be read is nobody's: it is always put whole

    def _drop(self) -> None:
        if self.mirror is not None:
            self.mirror.bucket.hasty().delete([OWNER])
        (self.folder / OWNER).unlink(missing_ok=True)

    def _let_go(self) -> None:
        with _guard:
            _held.pop(self._key, None)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _taken(self, by: str, mend: str) -> FolderInUseError:
        return FolderInUseError(f"the run folder {called(self.folder)} is in use by {by}; {mend}, then resume it")

    def _forget(self) -> None:
        """In a forked child: close the file, which is shared with the parent and whose lock stays the parent's."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _forget_all() -> None:
    global _guard
    _guard = threading.Lock()  # a thread of the parent may have had it
    for lock in _held.values():
        lock._forget()
    _held.clear()


os.register_at_fork(after_in_child=_forget_all)


def _machine() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"{platform.node()} {psutil.boot_time():.0f}"


def _pid_space() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
