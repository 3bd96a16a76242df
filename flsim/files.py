"""State that must survive is written beside its place and then renamed; a damaged file is named and refused.

A write that fails ends the run, and the message says what was written, where, why it failed and how to mend it. Only
the run's log may fail: nothing depends on it.
"""

import errno
import hashlib
import logging
import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

DIGEST = 32
"""Bytes of a SHA-256, such as stands in front of a sealed file."""
REMOTE = ".remote"
"""A file in a run's folder that is a copy of what lies in an object store: its address (`flsim/storage/behind.py`)."""
_FLUSHERS = 8  # more at once make a disk no faster
_PART = ".part"
_BLOCK, _BLOCKS = 4096, 64  # bytes of a block, and blocks of a file, that a sketch looks at

_MENDS = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room within the quota there, or have it raised",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EROFS: "mount the file system for writing",
    errno.EACCES: "give this user the right to write there",
    errno.EPERM: "give this user the right to write there",
    errno.ENAMETOOLONG: "choose a folder with a shorter path",
    errno.EIO: "the disk fails, so save what is on it",
}


class DamagedFileError(ValueError):
    """A file of a run cannot be read; the message names it and the mend."""


class UnwritableError(Exception):
    """A file cannot be written; the message says what and where, why, and the mend. It travels from worker to driver.

    No `OSError`, so that nobody who expects a missing file takes it for one.
    """


def write_atomically(path: Path, data: bytes | Iterable[bytes], *, what: str = "a file", durable: bool = True) -> None:
    """Write so that a reader finds the old file or the new one, never a part, whenever the process is killed.

    Args:
        path: of the file; its folders are made.
        data: all of it, or its parts in order, which are taken one after the other.
        what: is written, for people, such as `the checkpoint of round 7`.
        durable: wait until the disk has it, so that it survives a loss of power too; that takes milliseconds per file.

    Raises:
        UnwritableError: if that fails; the old file is then as it was, and no part is left.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}{_PART}")
    with writing(what, path, len(data) if isinstance(data, bytes) else None):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                for piece in (data,) if isinstance(data, bytes) else data:
                    file.write(piece)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(part, path)
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise
        if durable:
            _flush(path.parent)


@contextmanager
def writing(what: str, path: Path, size: int | None = None) -> Iterator[None]:
    """Around whatever writes to `path`.

    Args:
        what: is written, for people.
        path: where to.
        size: bytes that it takes; None if that is not known.

    Raises:
        UnwritableError: for any `OSError` of the block.
    """
    try:
        yield
    except OSError as error:
        raise UnwritableError(f"{what} could not be written to {path}: {why(error, path, size)}") from error


def why(error: OSError, path: Path, size: int | None = None) -> str:
    """The reason of a write that failed, with what is needed and free where that is it, and the mend."""
    reason = error.strerror or type(error).__name__
    if error.errno == errno.ENOSPC:
        needed = "" if size is None else f"it takes {size:,} bytes, and "
        reason += f" ({needed}{_free(path)} are free)"
    elif size is not None and error.errno in (errno.EDQUOT, errno.EFBIG):
        reason += f" (it takes {size:,} bytes)"
    elif error.errno == errno.ENAMETOOLONG:
        reason += f" (it has {len(os.fsencode(path))} bytes)"
    mend = _MENDS.get(error.errno or 0)
    return reason if mend is None else f"{reason}; {mend}"


def cache_folder() -> Path:
    """Where flsim keeps what it can make or buy again, for all runs of a user: by `XDG_CACHE_HOME`, else `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flsim"


def sketch_of(files: Iterable[Path]) -> str:
    """A cheap SHA-256 of files: their names, sizes and 64 blocks of each; it need not see a bit that is flipped."""
    found = hashlib.sha256()
    for file in sorted(set(files)):
        size = file.stat().st_size
        found.update(f"{file.name} {size} ".encode())
        with file.open("rb") as opened:
            for place in sorted({max(0, size - _BLOCK) * part // (_BLOCKS - 1) for part in range(_BLOCKS)}):
                opened.seek(place)
                found.update(opened.read(_BLOCK))
    return found.hexdigest()


def nearest(path: Path) -> Path:
    """The path itself if there is something, else the nearest of its parents that is there."""
    return next((one for one in (path, *path.parents) if os.path.lexists(one)), Path("/"))


def flush(paths: Sequence[Path], what: str) -> None:
    """Wait until the disk has these files, whoever wrote them, and their names; many at once cost little more than one.

    Args:
        paths: of the files.
        what: they are, for people.

    Raises:
        UnwritableError: if the disk does not take them.
    """

    def one(path: Path) -> None:
        with writing(what, path):
            _flush(path)

    folders = {path.parent for path in paths}
    with ThreadPoolExecutor(_FLUSHERS) as pool:
        for some in (paths, [*folders, *{folder.parent for folder in folders}]):
            list(pool.map(one, some))


def _flush(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _free(path: Path) -> str:
    try:
        return f"{shutil.disk_usage(nearest(path)).free:,}"
    except OSError:
        return "an unknown number"


def remove_parts(folder: Path) -> int:
    """Delete what processes that are gone had half written under a folder; how many files that were.

    Those of processes that are alive on this machine are left to them.
    """
    removed = 0
    for part in folder.rglob(f".*{_PART}"):
        pid = part.name.split(".")[-2]
        if not (pid.isdigit() and _is_alive(int(pid))):
            with suppress(OSError):
                part.unlink()
                removed += 1
    return removed


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OverflowError:
        return False
    except OSError as error:
        return error.errno == errno.EPERM
    return True


def left_in(folder: Path) -> str:
    """What a run that ended too early has left in its folder, and how to go on with it, in a sentence for people."""
    try:
        begun = (folder / "config.yaml").is_file()
        rounds = [path.stem.partition("-")[2] for path in (folder / "checkpoints").glob("round-*.npz")]
    except OSError:
        begun, rounds = False, []
    if not begun:
        return "nothing of a run was written"
    kept = f"everything up to round {int(max(rounds))} is kept" if rounds else "no round was finished yet"
    return f"{kept}; go on with: flsim resume {shlex.quote(called(folder))}"


def called(folder: Path) -> str:
    """What people call a run's folder: of a copy of what lies in an object store, the address there."""
    try:
        return (folder / REMOTE).read_text()
    except OSError:
        return str(folder)


def seal(data: bytes) -> bytes:
    """Put the data's SHA-256 in front of it."""
    return digest_of(data) + data


def digest_of(data: bytes) -> bytes:
    """Its SHA-256."""
    return hashlib.sha256(data).digest()


def seal_of(path: Path) -> bytes:
    """The SHA-256 that stands in front of a sealed file, whether it is right or not."""
    with path.open("rb") as file:
        return file.read(DIGEST)


def unseal(path: Path, mend: str) -> bytes:
    """Read a sealed file.

    Args:
        path: of the file.
        mend: what to do if it is damaged, for the error.

    Raises:
        DamagedFileError: if the bytes are not the ones that were sealed.
    """
    raw = path.read_bytes()
    sealed, data = raw[:DIGEST], raw[DIGEST:]
    if digest_of(data) != sealed:
        raise DamagedFileError(f"{path} is damaged ({len(raw)} bytes, wrong checksum); {mend}")
    return data


class _LogFile(logging.FileHandler):
    """A log that may fail: what it cannot write is lost, and standard error says so once."""

    _told = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line; the file is opened with the first one."""
        try:
            super().emit(record)
        except OSError:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Called by `logging` for a line that could not be written, within its `except`."""
        error = sys.exc_info()[1]
        if not self._told and isinstance(error, OSError):
            self._told = True
            reason = why(error, Path(self.baseFilename))
            print(f"warning: the log {self.baseFilename} lacks lines from here on: {reason}", file=sys.stderr)

    def close(self) -> None:
        """Close; lines that wait for a full disk are lost."""
        with suppress(OSError):
            super().close()


@contextmanager
def said_in(log: logging.Logger) -> Iterator[None]:
    """Around a run: what ends it too early stands in its log, too, for whoever looks at it later."""
    try:
        yield
    except KeyboardInterrupt as stop:
        log.info("stopped (%s)", str(stop) or "Ctrl-C")
        raise
    except BaseException as error:
        log.error("the run failed: %s: %s", type(error).__name__, " ".join(str(error).split()))
        raise


def log_to(folder: Path) -> logging.Logger:
    """The run's log, `run.log`: what happened and who was set aside, with times."""
    logging.getLogger("flwr").setLevel(logging.WARNING)  # stock strategies report every sampled cohort
    logger = logging.getLogger("flsim.run")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for handler in list(logger.handlers):
        handler.close()
        logger.removeHandler(handler)
    file = _LogFile(folder / "run.log", delay=True)  # a worker may not see the folder, which is found later
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(file)
    return logger
