"""The configs that ship, known by name from any folder: `demo` is the installed `experiments/configs/demo.yaml`."""

from difflib import get_close_matches
from pathlib import Path

from flsim.config.schema import ConfigError

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
    if path.is_file():
        return path
    if name in shipped_names():
        return FOLDER / f"{name}.yaml"
    close = get_close_matches(path.stem, shipped_names(), n=3)
    meant = f"did you mean {' or '.join(close)}? " if close else ""
    raise ConfigError(
        f"there is no config file {name!r} (looked in {Path.cwd()}); {meant}shipped are {', '.join(shipped_names())}"
    )
