"""Looking at runs that lie in an object store: copied to this machine first, apart from the copy of a run at work."""

from pathlib import Path

from flsim.config.address import is_address
from flsim.config.ranges import ConfigError
from flsim.files import DamagedFileError, UnwritableError, write_atomically
from flsim.storage.behind import READ, open_copy
from flsim.storage.bucket import Bucket
from flsim.storage.mirror import STATES, Mirror

_CONFIG = "config.yaml"
_TRIES = 3  # a run that is at work deletes its older checkpoints meanwhile


def run_folder(run: str | Path, *, whole: bool = False) -> Path:
    """A folder in which a run can be looked at: its own, or a copy of what its address has by now.

    Args:
        run: a folder, or an address.
        whole: whether the states of devices and the journals are wanted, too, as a replay needs them.

    Raises:
        ConfigError: if there is no run at the address, or it cannot be read.
        DamagedFileError: if something of it is damaged.
    """
    if not is_address(run):
        return Path(run)
    bucket = Bucket.at(str(run))
    if _CONFIG not in _names(bucket):
        raise ConfigError(f"{bucket} is no run: it has no {_CONFIG}; give the address of a run")
    return _copied(bucket, whole)


def run_folders(runs: str) -> list[Path]:
    """Likewise of an address at which a run lies, or several, one below it each; sorted.

    Raises:
        ConfigError: if there is none.
    """
    bucket = Bucket.at(runs)
    names = [name for name in _names(bucket) if name.rpartition("/")[2] == _CONFIG and name.count("/") <= 1]
    if not names:
        raise ConfigError(f"{bucket} has no {_CONFIG}, and nothing below it has one; give the address of runs")
    if _CONFIG in names:
        return [_copied(bucket, whole=False)]
    return [_copied(bucket.below(name.rpartition("/")[0]), whole=False) for name in sorted(names)]


def _copied(bucket: Bucket, whole: bool) -> Path:
    folder = open_copy(bucket, READ)
    for left in reversed(range(_TRIES)):
        try:
            Mirror(folder, bucket).bring()
            break
        except DamagedFileError:
            if not left:
                raise
        except UnwritableError as error:
            raise ConfigError(f"{bucket} cannot be read: {error}") from error
    if whole:
        wanted = [name for name in _names(bucket) if name.partition("/")[0] in (*STATES, "purchases")]
        for name, data in bucket.get_all(wanted).items():
            write_atomically(folder / name, data, what=f"{name} of {bucket}", durable=False)
    return folder


def _names(bucket: Bucket) -> list[str]:
    try:
        return list(bucket.sizes())
    except UnwritableError as error:
        raise ConfigError(f"{bucket} cannot be read: {error}") from error
