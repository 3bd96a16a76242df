"""The cloud that a config names: bare, for who keeps books, or behind the cache, for the devices of a worker."""

import os
from pathlib import Path

from flsim.cloud.builtin import BuiltinCloud, OracleCloud
from flsim.cloud.cache import Cache, CachedCloud
from flsim.cloud.checkpoint import DeskCloud, ModelCloud, find_desk, wording_of
from flsim.cloud.checks import check_key
from flsim.cloud.endpoint import EndpointCloud
from flsim.cloud.protocol import Cloud
from flsim.cloud.recorded import ReplayCloud
from flsim.config.model import AUTO
from flsim.config.schema import CloudConfig, Config


def make_cloud(config: CloudConfig, *, batch_size: int = 256, concurrency: int | None = None) -> Cloud:
    """The cloud that `config.kind` names, without a cache.

    Args:
        config: the run's.
        batch_size: questions that the built-in model reads at once; with 1 none enters another's answer's last bits.
        concurrency: requests that may be with an endpoint at a time; None takes `config.concurrency`.

    Raises:
        ConfigError: if what it needs, such as a key or a checkpoint, is not there.
    """
    if config.kind == "endpoint":
        return EndpointCloud(config, concurrency=concurrency)
    if config.kind == "model":
        return ModelCloud(config)
    if config.kind == "replay":
        return ReplayCloud(config.replay)
    if config.kind == "oracle":
        return OracleCloud(config.oracle_error, config.oracle_errors)
    return BuiltinCloud(batch_size=batch_size)


def fleet_cloud(config: Config) -> Cloud:
    """The cloud of the devices of one worker; with answers that cost time or money, behind the cache."""
    if not config.cloud.kept:
        return make_cloud(config.cloud)
    return CachedCloud(_asked(config), config.cloud, cache_of(config.cloud))


def _asked(config: Config) -> Cloud:
    """What stands behind the cache of one worker: its share of an endpoint, or the checkpoint that all share."""
    on_ray = config.engine.kind == "ray"
    desk = find_desk() if config.cloud.kind == "model" and on_ray else None
    if desk is not None:
        return DeskCloud(desk, config.cloud)
    return make_cloud(config.cloud, concurrency=config.cloud.concurrency // (config.engine.workers if on_ray else 1))


def check_reach(config: CloudConfig) -> None:
    """Make sure that what the cloud needs from outside the config is there: a key, a checkpoint, a table.

    Raises:
        ConfigError: saying what is missing.
    """
    check_key(config)
    if config.kind == "model":
        wording_of(config)
    if config.kind == "replay":
        ReplayCloud(config.replay)


def cache_of(config: CloudConfig) -> Cache | None:
    """What was bought before, by whichever run; None where nothing is kept."""
    if config.cache is None:
        return None
    if config.cache != AUTO:
        return Cache(config.cache)
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Cache(Path(root) / "flsim")
