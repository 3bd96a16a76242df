"""The trackers that `track` names: short names of those that ship, or a path, with settings of their own."""

import importlib.util
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from flsim.config.given import shown
from flsim.config.plugins import build
from flsim.config.ranges import near
from flsim.config.schema import ConfigError
from flsim.trackers.tracker import Tracker

SHIPPED = MappingProxyType(
    {
        "tensorboard": "flsim.trackers.tensorboard:TensorBoard",
        "wandb": "flsim.trackers.wandb:Wandb",
        "mlflow": "flsim.trackers.mlflow:Mlflow",
        "trackio": "flsim.trackers.trackio:Trackio",
    }
)
"""Short names of what ships."""


@dataclass(frozen=True)
class Named:
    """A tracker with what it is called in this run."""

    name: str
    """Such as `wandb`, or `wandb-2` for the second of its kind; in messages, and of its file in the run's folder."""
    tracker: Tracker


def trackers_of(track: Iterable[Any]) -> list[Named]:
    """Build what `track` of a config names; nothing is opened or sent yet.

    Args:
        track: names of `SHIPPED`, paths, or `{path: ..., ...}` with settings of what is named.

    Raises:
        ConfigError: for a name or path that leads to no tracker, a setting that it does not take, or a package that is
            not installed.
    """
    found = list[Named]()
    for place, spec in enumerate(track):
        key = f"track[{place}]"
        path, settings = _taken_apart(key, spec)
        tracker = build(key, {"path": SHIPPED.get(path, path), **settings})
        if not isinstance(tracker, Tracker):
            raise ConfigError(
                f"{key}={path!r} makes a {type(tracker).__name__}, which is no tracker; derive it from "
                f"flsim.trackers.tracker.Tracker and write start and measures"
            )
        wait = tracker.wait_s
        if not (isinstance(wait, int | float) and 0 <= wait < math.inf):
            raise ConfigError(f"{key}: wait_s={shown(wait)} is no time to wait; give seconds, 0 or more")
        found.append(Named(_free_name(path, [one.name for one in found]), tracker))
    return found


def need(key: str, package: str, install: str) -> None:
    """See that a package is there, without loading it.

    Args:
        key: what needs it, such as `track=wandb`.
        package: as it is imported.
        install: as pip calls it.

    Raises:
        ConfigError: with the command that installs it.
    """
    if importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"{key} needs the package {install}, which is not installed: pip install {install}; track=[] does without"
        )


def _taken_apart(key: str, spec: Any) -> tuple[str, dict[str, Any]]:
    """The path or short name, and the settings beside it."""
    path, settings = spec, dict[str, Any]()
    if isinstance(spec, dict):
        path, settings = spec.get("path"), {name: value for name, value in spec.items() if name != "path"}
    if not isinstance(path, str) or not path:
        raise ConfigError(
            f"{key}={shown(spec)} names no tracker; give one of {', '.join(SHIPPED)}, a path such as "
            f"my_file.py:MyTracker, or settings with it: {{path: wandb, project: mine}}"
        )
    if path not in SHIPPED and ":" not in path:
        raise ConfigError(
            f"{key}={path!r} is not known{near(path, SHIPPED)}; there are {', '.join(SHIPPED)}, and one of your own is "
            f"my_file.py:MyTracker"
        )
    return path, settings


def _free_name(path: str, taken: Sequence[str]) -> str:
    """What a tracker is called that nobody before it is called."""
    own = path if path in SHIPPED else re.sub(r"\W+", "-", path.rpartition(":")[2]).lower()
    count = 1 + sum(name == own or re.fullmatch(rf"{re.escape(own)}-\d+", name) is not None for name in taken)
    return own if count == 1 else f"{own}-{count}"
