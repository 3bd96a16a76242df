"""What is allowed in the settings of a data set; whether its files are there is looked at when a run starts."""

import re
from collections.abc import Mapping

from flsim.config.given import shown
from flsim.config.ranges import near
from flsim.config.schema import ConfigError, DataConfig
from flsim.problems.judging import GYM, HARNESS, SHIPPED
from flsim.tasks.columns import ALIASES
from flsim.tasks.data_file import known_encoding, no_encoding
from flsim.tasks.known_set import KnownSet
from flsim.tasks.load import READERS, reader_of

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_BELONGS = {
    "over": ("dirichlet",),
    "alpha": ("dirichlet",),
    "quantity_sigma": ("dirichlet", "evenly"),
    "users_per_device": ("user",),
    "least": ("user",),
}
"""Settings that mean nothing to other partitions, and the partitions that they mean something to."""


def check_data(sets: Mapping[str, DataConfig]) -> None:
    """Refuse settings of data sets that cannot work.

    Raises:
        ConfigError: naming key, value, what is allowed and the mend.
    """
    for name, data in sets.items():
        _check_name(name)
        _check_words(name, data)
        if not known_encoding(data.encoding):
            raise ConfigError(f"data.{name}.{no_encoding(data.encoding)}")
        _check_partition(name, data)
        _check_aliases(name, data)
        _check_splits(name, data)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"data: the name {shown(name)} must begin with a letter and hold letters, digits, _ and - only: files are "
            f"called by it"
        )


def _check_words(name: str, data: DataConfig) -> None:
    """Short names that are none, and a reader beside a kind."""
    if data.reader is not None and data.kind:
        raise ConfigError(f"data.{name} has kind={data.kind} and reader={data.reader}; leave one of them out")
    kind = ("kind", data.kind, tuple(READERS), "reader")
    verifier = ("verifier", data.verifier, tuple(SHIPPED), "verifier")
    for key, value, names, mend in (*([] if data.reader else [kind]), *([verifier] if data.verifier else [])):
        if value not in names and not (key == "verifier" and ":" in str(value)):
            said = f"={shown(value)} is not known" if value else " is missing"
            raise ConfigError(
                f"data.{name}.{key}{said}; choose one of: {', '.join(names)}{near(value, names)}, or give one of "
                f"your own as data.{name}.{mend}=my_file.py:NAME"
            )
    if (data.verifier == GYM) != (data.kind == "reasoning_gym") and data.verifier is not None:
        where, said = data.reader or data.kind, f"reader={data.reader}" if data.reader else f"kind={data.kind}"
        raise ConfigError(
            f"data.{name}.verifier={data.verifier!r} does not fit {said}: the judges of reasoning-gym are for its own "
            f"tasks, and its tasks for them; leave it out to take {reader_of(where).verifier}"
        )
    if data.verifier == HARNESS and data.kind != "lm_eval":
        raise ConfigError(
            f"data.{name}.verifier={HARNESS} does not fit {data.reader or data.kind}: the filters and metrics of "
            f"lm_eval are for its own tasks, which data.{name}.kind=lm_eval reads"
        )


def _check_aliases(name: str, data: DataConfig) -> None:
    columns, verifier = data.settings.get("columns"), data.verifier or "exact"
    if isinstance(columns, Mapping) and ALIASES in columns and verifier != "words" and ":" not in verifier:
        raise ConfigError(
            f"data.{name}.settings.columns.{ALIASES} is for the verifier words, and data.{name}.verifier is "
            f"{verifier}, which would take the aliases for a part of the answer; set data.{name}.verifier=words"
        )


def _check_splits(name: str, data: DataConfig) -> None:
    """By a hash of the question, what a test asks would stand in questions of training, as a verdict of the past."""
    if data.splits != "hash" or data.reader is not None:
        return
    known = reader_of(data.kind)
    if isinstance(known, KnownSet) and known.tells_the_past:
        raise ConfigError(
            f"data.{name}.splits=hash with kind={data.kind}, whose questions tell what the user answered before: "
            f"nearly every answer of a test would stand in a question of training; leave data.{name}.splits out, and "
            f"splits are in order of time"
        )


def _check_partition(name: str, data: DataConfig) -> None:
    if data.partition_settings and ":" not in data.partition:
        raise ConfigError(
            f"data.{name}.partition_settings={shown(data.partition_settings)} has no effect with "
            f"partition={data.partition}; it belongs to a partitioner by path: set data.{name}.partition, or leave it "
            f"out"
        )
    for key, rules in _BELONGS.items():
        given = getattr(data, key)
        if data.partition not in rules and given != getattr(DataConfig(), key):
            raise ConfigError(
                f"data.{name}.{key}={given} has no effect with partition={data.partition}; it belongs to "
                f"{' or '.join(rules)}: set data.{name}.partition, or leave it out"
            )
