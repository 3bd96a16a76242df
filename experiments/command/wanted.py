"""What `flsim why` and `flsim replay` are asked for: a run, and in it a round and a device, as `key=value`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flsim.config.ranges import ConfigError

KEYS = ("round", "device")


@dataclass(frozen=True)
class Wanted:
    """As it was typed."""

    run: Path
    round: str | None
    device: str | None
    rest: tuple[str, ...]
    """What else there was, for whoever takes settings."""


def wanted(run: Path, given: Sequence[str]) -> Wanted:
    """Take `round=12 device=device-007` apart.

    Raises:
        ConfigError: if the folder is no run, or a word is not key=value.
    """
    if not (run / "config.yaml").is_file():
        raise ConfigError(f"{run} is no run: it has no config.yaml; give a run's folder, such as runs/demo-seed0")
    wrong = next((word for word in given if "=" not in word), None)
    if wrong is not None:
        raise ConfigError(f"{wrong!r} is not key=value; write it as round=12 or device=7")
    found = {key: word.partition("=")[2] for word in given if (key := word.partition("=")[0]) in KEYS}
    rest = tuple(word for word in given if word.partition("=")[0] not in KEYS)
    return Wanted(run, found.get("round"), found.get("device"), rest)
