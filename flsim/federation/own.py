"""What a node says of itself, as `flower-supernode --node-config` has it.

partition-id=3                          the device that it is: its index in the fleet
state-dir="/var/lib/flsim"              where its states lie, instead of in the user's cache folder
data.notes.root="/home/me/notes"        settings of the config that are its own: those of `OWN`
"""

from collections.abc import Mapping
from pathlib import Path

from flsim.federation.envelope import UNKNOWN
from flsim.files import cache_folder

OWN = ("data.", "model.path", "cloud.", "engine.gpus")
"""Settings that a node may have of its own: where its data lie, the model, how the cloud is reached, its GPU."""
PARTITION, PARTITIONS, STATES = "partition-id", "num-partitions", "state-dir"
NodeConfig = Mapping[str, object]
"""Flower's `--node-config`."""


def count_in(config: NodeConfig, key: str) -> int:
    """A count of a node's config, or `UNKNOWN`."""
    value = config.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else UNKNOWN


def own_settings(config: NodeConfig) -> tuple[str, ...]:
    """Settings of a node's own, as `key=value`."""
    return tuple(f"{key}={_written(value)}" for key, value in sorted(config.items()) if key.startswith(OWN))


def states_root(config: NodeConfig) -> Path:
    """Where a node's states lie, those of all runs and devices."""
    given = config.get(STATES)
    return cache_folder() / "nodes" if given is None else Path(str(given)).expanduser().absolute()


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
