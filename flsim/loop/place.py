"""Whether a run can live where it is to be put: a cheap look before any work, which leaves nothing there."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from flsim.config.address import Address, is_address
from flsim.config.schema import Config, ConfigError
from flsim.files import UnwritableError, nearest
from flsim.loop.checks import refuse_used
from flsim.loop.lock import OWNER
from flsim.storage.behind import bucket_behind, copy_of
from flsim.storage.bucket import Bucket
from flsim.storage.mirror import CHECKPOINTS

CONFIG = "config.yaml"
"""What every run's folder has, from its start."""
_LONGEST = "partitions/some-data-set/.partition.parquet.4194304.part"
"""About the longest path that a run makes in its folder, while it is written."""


def home_of(config: Config) -> Path:
    """The folder on this machine that a run works in, whether it is there or not."""
    return folder_of(str(config.run_dir)) if is_address(config.run_dir) else config.folder


def folder_of(run: str | Path) -> Path:
    """Likewise of a run that is named by its folder or its address."""
    return copy_of(Address.of(str(run))) if is_address(run) else Path(run)


def refuse_home(config: Config) -> None:
    """Refuse a new run's folder, or address, that cannot hold it, or holds something already.

    Raises:
        ConfigError: naming it, with the reason and the mend.
    """
    folder = home_of(config)
    refuse_place(folder)
    if not is_address(config.run_dir):
        refuse_used(folder)
        return
    bucket = Bucket.at(str(config.run_dir))
    bucket.check()
    if set(names_there(bucket)) - {"environment.json", OWNER}:
        raise ConfigError(
            f"{bucket} is not empty; go on with what is there by flsim resume '{bucket}', choose another by "
            f"run_dir=..., or delete it"
        )


def refuse_nowhere(run: str | Path) -> None:
    """Refuse at once to go on in a folder of this machine that holds no run and is no copy of one; others are not seen.

    Raises:
        ConfigError: if there is none.
    """
    if not is_address(run) and bucket_behind(Path(run)) is None:
        refuse_place(Path(run))
        refuse_no_run(Path(run))


def refuse_no_run(folder: Path) -> None:
    """See that there is a run in a folder.

    Raises:
        ConfigError: if there is none.
    """
    if not (folder / CONFIG).is_file() and not any(checkpoints_in(folder)):
        raise ConfigError(f"{folder} holds no run (there is no {CONFIG}); start one with flsim run")


def checkpoints_in(folder: Path) -> Iterator[Path]:
    """The checkpoints that a run has left, in any order."""
    return (folder / CHECKPOINTS).glob("round-*.npz")


def names_there(bucket: Bucket) -> list[str]:
    """All that lies at an address.

    Raises:
        ConfigError: if it cannot be read.
    """
    try:
        return list(bucket.sizes())
    except UnwritableError as error:
        raise ConfigError(f"{bucket} cannot be read: {error}") from error


def refuse_place(folder: Path) -> None:
    """Refuse a folder that a run cannot be written into.

    Args:
        folder: the run's; it may be there already, or be a link to a folder.

    Raises:
        ConfigError: if it is a file, a link that leads nowhere, below a file, too long, or not to be written into.
    """
    deepest = folder.absolute() / _LONGEST
    longest = max(len(os.fsencode(part)) for part in deepest.parts)
    too_long = f"its path is too long ({len(os.fsencode(folder.absolute()))} bytes, {longest} in its longest name)"
    try:
        os.lstat(deepest)
    except ValueError as error:  # a null byte
        raise _unfit(folder, str(error)) from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise _unfit(folder, too_long) from error
    there = nearest(folder.absolute())
    try:
        is_folder = there.is_dir()
    except OSError as error:
        raise _unfit(folder, f"{there} cannot be looked at ({error.strerror})") from error
    if not is_folder:
        raise _unfit(folder, _what(there) if there == folder.absolute() else f"{there} is no folder: {_what(there)}")
    if longest > os.pathconf(there, "PC_NAME_MAX"):
        raise _unfit(folder, too_long)
    if not os.access(there, os.W_OK | os.X_OK):
        why = "on a read-only file system" if os.statvfs(there).f_flag & os.ST_RDONLY else "not this user's to write"
        raise _unfit(folder, f"{there} is {why}")


def _what(path: Path) -> str:
    """What stands in the place of a folder."""
    if not path.is_symlink():
        return "there is a file of that name"
    try:
        path.resolve(strict=True)
    except (OSError, RuntimeError):  # a loop is a RuntimeError up to Python 3.12
        return f"it is a link that leads nowhere, to {os.readlink(path)}"
    return "it is a link to a file"


def _unfit(folder: Path, reason: str) -> ConfigError:
    return ConfigError(f"run_dir={str(folder)!r} cannot hold a run: {reason}; give another run_dir, or mend it there")
