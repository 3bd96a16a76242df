"""Where a run lives: in its folder, or in an object store, with a copy on this machine that it works in.

The copy is brought to what is committed in the store, the rounds run in it as in any folder and put what they commit,
and what is left over is put at the end.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from flsim.config.address import is_address
from flsim.config.schema import Config, ConfigError
from flsim.files import UnwritableError
from flsim.loop.lock import FolderInUseError, RunLock
from flsim.loop.place import CONFIG, names_there, refuse_home, refuse_nowhere, refuse_place
from flsim.storage.behind import bucket_behind, copy_of, open_copy
from flsim.storage.bucket import Bucket
from flsim.storage.mirror import CHECKPOINTS


def move_in(config: Config) -> Config:
    """The config of a new run, with the folder on this machine as its `run_dir`.

    Raises:
        ConfigError: if the run cannot live where it is to be put.
    """
    refuse_home(config)
    if not is_address(config.run_dir):
        return config
    return replace(config, run_dir=str(open_copy(Bucket.at(str(config.run_dir)))))


def found_again(run: str | Path) -> Path:
    """The folder on this machine of a run that is to go on.

    Args:
        run: its folder, its address, or the copy of what lies there.

    Raises:
        ConfigError: if there is no run.
    """
    refuse_nowhere(run)
    bucket = Bucket.at(str(run)) if is_address(run) else bucket_behind(Path(run))
    if bucket is None:
        return Path(run)
    refuse_place(copy_of(bucket.address))
    bucket.check()
    if not any(name == CONFIG or name.startswith(f"{CHECKPOINTS}/") for name in names_there(bucket)):
        raise ConfigError(f"{bucket} holds no run (there is no {CONFIG}); start one with flsim run")
    return open_copy(bucket)


@contextmanager
def at_home(lock: RunLock) -> Iterator[None]:
    """Around the work of a run that holds its lock: in a folder nothing is to be done.

    Raises:
        DamagedFileError: if what is in the store cannot be gone on from.
        UnwritableError: if the store does not answer.
    """
    mirror = lock.mirror
    if mirror is None:
        yield
        return
    mirror.bring()
    mirror.tidy()
    try:
        yield
    except (FolderInUseError, UnwritableError):  # another one writes there, or nobody can
        raise
    except BaseException:
        with suppress(FolderInUseError, UnwritableError):
            lock.check()
            mirror.push(hasty=True)
        raise
    lock.check()
    mirror.push()
