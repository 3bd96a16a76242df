"""The configs that ship, known by name from any folder: `demo` is the installed `experiments/configs/demo.yaml`."""

import os
from difflib import get_close_matches
from pathlib import Path

from flsim.config.given import shown
from flsim.config.ranges import ConfigError

FOLDER = Path(__file__).parents[2] / "experiments" / "configs"
"""Beside this package, in a checkout and in a wheel alike; found by its place, since flsim imports nothing above it."""


def shipped_names() -> list[str]:
    """What may stand in place of a file's path, sorted."""
    return sorted(file.stem for file in FOLDER.glob("*.yaml"))


def config_file(named: str | Path) -> Path:
    """The file that a path or the name of a shipped config means; a file in the current folder goes before a name.

    Raises:
        ConfigError: if there is neither, with the names that come close.
    """
    path, name = Path(named), str(named)
    if os.path.isfile(name):  # which, unlike `Path.is_file`, takes any name
        return path
    if name in shipped_names():
        return FOLDER / f"{name}.yaml"
    if name and os.path.isdir(name):
        run = f", or go on with the run in it by flsim resume {name}" if os.path.isfile(path / "config.yaml") else ""
        raise ConfigError(f"{name} is a folder; name a YAML file{run}")
    close = get_close_matches(path.stem, shipped_names(), n=3)
    meant = f"did you mean {' or '.join(close)}? " if close else ""
    raise ConfigError(
        f"there is no config file {shown(name)} (looked in {Path.cwd()}); {meant}"
        f"shipped are {', '.join(shipped_names())}"
    )
