"""What is allowed in the settings of a data set; whether its files are there is looked at when a run starts."""

import re

from flsim.config.schema import Config, ConfigError, DataConfig
from flsim.problems.judging import GYM, VERIFIERS
from flsim.tasks.load import KINDS
from flsim.tasks.load import VERIFIERS as FITTING

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_BELONGS = {
    "over": ("dirichlet",),
    "alpha": ("dirichlet",),
    "quantity_sigma": ("dirichlet", "evenly"),
    "users_per_device": ("user",),
    "least": ("user",),
}
"""Settings that mean nothing to other partitions, and the partitions that they mean something to."""


def check_data(config: Config) -> None:
    """Refuse settings of data sets that cannot work.

    Raises:
        ConfigError: naming key, value, what is allowed and the mend.
    """
    for name, data in config.data.items():
        _check_name(name)
        _check_words(name, data)
        _check_partition(name, data)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"data: the name {name!r} must begin with a letter and hold letters, digits, _ and - only: files are "
            f"called by it"
        )


def _check_words(name: str, data: DataConfig) -> None:
    """Values that are one of a few words."""
    for key, value, allowed in (
        ("kind", data.kind, KINDS),
        ("verifier", data.verifier, (None, *VERIFIERS)),
    ):
        if value not in allowed:
            words = ", ".join(word for word in allowed if word)
            said = f"={value!r} is not known" if value else " is missing"
            raise ConfigError(f"data.{name}.{key}{said}; choose one of: {words}")
    if (data.verifier == GYM) != (data.kind == "reasoning_gym") and data.verifier is not None:
        raise ConfigError(
            f"data.{name}.verifier={data.verifier!r} does not fit kind={data.kind}: the judges of reasoning-gym are "
            f"for its own tasks, and its tasks for them; leave it out to take {FITTING[data.kind]}"
        )


def _check_partition(name: str, data: DataConfig) -> None:
    for key, rules in _BELONGS.items():
        given = getattr(data, key)
        if data.partition not in rules and given != getattr(DataConfig(), key):
            raise ConfigError(
                f"data.{name}.{key}={given} has no effect with partition={data.partition}; it belongs to "
                f"{' or '.join(rules)}: set data.{name}.partition, or leave it out"
            )
