"""What is allowed in the settings of a cloud; whether its key is there is looked at when a run starts.

A key is never part of a message: what stands where a key may have slipped in is not repeated.
"""

import os
import re
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from flsim.config.schema import CloudConfig, Config, ConfigError
from flsim.problems.families import GROUPS
from flsim.problems.recorded import RECORDED
from flsim.tasks.load import VERIFIERS

_BELONGS = {
    "url": ("endpoint",),
    "model": ("endpoint", "model"),
    "system": ("endpoint", "model"),
    "oracle_errors": ("oracle",),
}
"""Settings that mean nothing to other kinds, and the kinds that they mean something to."""
_NEEDED = {
    "endpoint": {"url": "http://localhost:8000/v1", "model": "the name that the server knows it by"},
    "model": {"model": "the folder of a checkpoint"},
}


def check_cloud(config: Config) -> None:
    """Refuse settings of the cloud that cannot work together.

    Raises:
        ConfigError: naming key, value (never one that could hold a key), what is allowed and the mend.
    """
    cloud = config.cloud
    for name, kinds in _BELONGS.items():
        if getattr(cloud, name) and cloud.kind not in kinds:
            raise ConfigError(
                f"cloud.{name} has no effect with cloud.kind={cloud.kind}; it belongs to {' or '.join(kinds)}: "
                f"set cloud.kind, or leave it out"
            )
    for name, example in _NEEDED.get(cloud.kind, {}).items():
        if not getattr(cloud, name):
            raise ConfigError(f"cloud.kind={cloud.kind} needs cloud.{name}: {example}")
    _check_numbers(cloud)
    if cloud.kind == "oracle":
        _check_errors(cloud, (*GROUPS, *config.data))
    _check_replay(config)
    if cloud.kind == "model" and not _is_checkpoint(cloud.model or ""):
        raise ConfigError(
            f"cloud.model={cloud.model!r} is no folder of a checkpoint (with a config.json); give one, or a model of "
            f"a server with cloud.kind=endpoint"
        )
    if cloud.kind == "endpoint":
        _check_endpoint(config)


def check_key(cloud: CloudConfig) -> None:
    """Make sure that an endpoint's key is in the environment.

    Raises:
        ConfigError: naming the variable.
    """
    if cloud.kind == "endpoint" and not os.environ.get(cloud.key_env) and not is_local(cloud):
        raise ConfigError(
            f"cloud.kind=endpoint needs a key for {cloud.url}, and the environment variable {cloud.key_env} is not "
            f"set; set it before the run, or name another one by cloud.key_env (the key itself is never a setting)"
        )


def is_local(cloud: CloudConfig) -> bool:
    """Whether the endpoint is on this machine, where servers ask for no key."""
    host = urlsplit(cloud.url or "").hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_numbers(cloud: CloudConfig) -> None:
    for name, least in (("concurrency", 1), ("retries", 0), ("max_tokens", 1), ("backoff_s", 0)):
        if not getattr(cloud, name) >= least:
            raise ConfigError(f"cloud.{name}={getattr(cloud, name)} must be at least {least}")
    if not 0 < cloud.deadline_s < float("inf"):
        raise ConfigError(f"cloud.deadline_s={cloud.deadline_s} must be above 0 and finite: it is a number of seconds")


def _check_errors(cloud: CloudConfig, groups: Sequence[str]) -> None:
    for group, error in cloud.oracle_errors.items():
        if group not in groups:
            raise ConfigError(
                f"cloud.oracle_errors names {group!r}, which is no task group; choose of: {', '.join(groups)}"
            )
        if not 0 <= error <= 1:
            raise ConfigError(f"cloud.oracle_errors.{group}={error} must be in [0, 1]: it is a share of questions")


def _check_replay(config: Config) -> None:
    cloud = config.cloud
    if cloud.kind == "replay" and cloud.replay.file is not None and not Path(cloud.replay.file).is_file():
        raise ConfigError(
            f"cloud.replay.file={cloud.replay.file!r} is no file; give the path of a CSV table, or leave it out where "
            f"the data record the outcomes"
        )
    if cloud.kind == "replay" and cloud.replay.file is None:
        bare = [group for phase in config.stream.phases for group in phase if not _is_recorded(config, group)]
        if bare:
            raise ConfigError(
                f"cloud.kind=replay needs cloud.replay.file, as questions of {bare[0]!r} bring no recorded outcomes; "
                f"give the path of a CSV table, or let stream.phases name data of recorded outcomes only"
            )
    if cloud.kind != "replay" and cloud.replay.file:
        raise ConfigError(
            f"cloud.replay.file has no effect with cloud.kind={cloud.kind}; add cloud.kind=replay, or leave it out"
        )


def _is_recorded(config: Config, group: str) -> bool:
    data = config.data.get(group)
    return data is not None and (data.verifier or VERIFIERS.get(data.kind)) == RECORDED


def _is_checkpoint(path: str) -> bool:
    return path.startswith("builtin:") or (Path(path) / "config.json").is_file()


def _check_endpoint(config: Config) -> None:
    cloud, engine = config.cloud, config.engine
    parts = urlsplit(cloud.url or "")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError("cloud.url must begin with http:// or https:// and name a host, as https://api.openai.com/v1")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ConfigError(
            "cloud.url holds a user, a password or a query, which would be written into the run; put the key into the "
            "environment variable that cloud.key_env names, and give the bare address"
        )
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", cloud.key_env):
        raise ConfigError(
            "cloud.key_env must be the name of an environment variable, in capitals, such as OPENAI_API_KEY; if the "
            "key itself stands there, take it out (and out of the shell's history)"
        )
    if engine.kind == "ray" and cloud.concurrency < engine.workers:
        raise ConfigError(
            f"cloud.concurrency={cloud.concurrency} is less than engine.workers={engine.workers}, and each worker "
            f"needs one request at least; raise the one or lower the other"
        )
