"""State that must survive is written beside its place and then renamed; a damaged file is named and refused."""

import hashlib
import logging
import os
from pathlib import Path

_DIGEST = 32  # bytes of SHA-256 in front of a sealed file


class DamagedFileError(ValueError):
    """A file of a run cannot be read; the message names it and the mend."""


def write_atomically(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write so that a reader finds the old file or the new one, never a part, whenever the process is killed.

    Args:
        path: of the file; its folders are made.
        data: all of it.
        durable: wait until the disk has it, so that it survives a loss of power too; that takes milliseconds per file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with part.open("wb") as file:
        file.write(data)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    os.replace(part, path)


def seal(data: bytes) -> bytes:
    """Put the data's SHA-256 in front of it."""
    return hashlib.sha256(data).digest() + data


def unseal(path: Path, mend: str) -> bytes:
    """Read a sealed file.

    Raises:
        DamagedFileError: if the bytes are not the ones that were sealed.
    """
    raw = path.read_bytes()
    digest, data = raw[:_DIGEST], raw[_DIGEST:]
    if hashlib.sha256(data).digest() != digest:
        raise DamagedFileError(f"{path} is damaged ({len(raw)} bytes, wrong checksum); {mend}")
    return data


def log_to(folder: Path) -> logging.Logger:
    """The run's log, `run.log`: what happened and who was set aside, with times."""
    logging.getLogger("flwr").setLevel(logging.WARNING)  # stock strategies report every sampled cohort
    logger = logging.getLogger("flsim.run")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for handler in list(logger.handlers):
        handler.close()
        logger.removeHandler(handler)
    file = logging.FileHandler(folder / "run.log", delay=True)  # a worker may not see the folder, which is found later
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(file)
    return logger
