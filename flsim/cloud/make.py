"""The cloud that a config names: bare, for who keeps books, or behind the cache, for the devices of a worker."""

import inspect
from typing import Any

from flsim.cloud.cache import Cache, Shelf
from flsim.cloud.cached import CachedCloud
from flsim.cloud.desk import DeskCloud, find_desk
from flsim.cloud.protocol import NOTHING, Cloud
from flsim.config.model import AUTO
from flsim.config.plugins import build, resolve
from flsim.config.schema import CLOUD_FREE, CloudConfig, ConfigError
from flsim.files import cache_folder

_DECLARED = ("costs", "access", "shared", "reach")
_METHODS = {"quote": 1, "answer": 1, "identity": 0, "check": 2, "for_worker": 1, "for_server": 0}  # and their arguments


def make_cloud(config: CloudConfig) -> Cloud:
    """The cloud that `config.path` names, with the settings that are its own; nothing is loaded or asked yet.

    A setting of None is left to the class.

    Raises:
        ConfigError: if there is no such class, it takes no such setting, refuses one, or is no cloud.
    """
    own = {name: value for name, value in config.settings.items() if value is not None}
    return fitting(build("cloud", {"path": config.path, **own}), f"cloud.path={config.path!r} names")


def fitting(cloud: Any, what: str = "cloud= is") -> Cloud:
    """An object as a cloud.

    Args:
        cloud: the object.
        what: how the error begins.

    Raises:
        ConfigError: if it is none; says what it lacks.
    """
    if isinstance(cloud, type):
        raise ConfigError(f"{what} the class {cloud.__name__}; give an object, such as {cloud.__name__}()")
    lacking = [name for name in _DECLARED if not hasattr(cloud, name)]
    lacking += [name for name, count in _METHODS.items() if not _takes(getattr(cloud, name, None), count)]
    if lacking:
        raise ConfigError(
            f"{what} a {type(cloud).__name__}, which is no cloud, as it lacks {', '.join(lacking)}; derive it from "
            f"flsim.cloud.protocol.Cloud and write quote, answer and identity"
        )
    made: Cloud = cloud
    return made


def _takes(method: Any, count: int) -> bool:
    """Whether something can be called with so many arguments."""
    try:
        inspect.signature(method).bind(*range(count))
    except (TypeError, ValueError):
        return False
    return True


def fleet_cloud(cloud: Cloud, cache: Cache | None, workers: int) -> Cloud:
    """The cloud of the devices of one worker; with answers that cost time or money, behind the cache.

    Args:
        cloud: the run's.
        cache: of what was bought before; None keeps answers in this process only.
        workers: Ray workers that share the cloud.
    """
    desk = find_desk() if cloud.shared else None
    asked = cloud.for_worker(workers) if desk is None else DeskCloud(desk, cloud)
    return asked if cloud.costs == NOTHING else CachedCloud(asked, cache)


def free_settings(config: CloudConfig) -> tuple[str, ...]:
    """Keys of the cloud that enter no answer, such as `cloud.retries`; of a class that is gone only the common ones."""
    try:
        own = resolve("cloud.path", config.path).reach
    except (ConfigError, AttributeError):
        own = ()
    return tuple(f"cloud.{name}" for name in (*CLOUD_FREE, *own))


def cache_of(folder: str | None) -> Shelf | None:
    """What was bought before, by whichever run, in the folder `cloud.cache`; None where nothing is kept."""
    if folder is None:
        return None
    return Shelf(cache_folder() if folder == AUTO else folder)
