"""A run's name among all runs that a node may have served, kept in the run's folder: nodes file states under it."""

import json
import re
import secrets
from pathlib import Path

from flsim.files import DamagedFileError, write_atomically
from flsim.loop.folder import FEDERATION

_NAME = re.compile(r"[0-9a-f]{16}")


def name_in(folder: Path) -> str:
    """The name that a run has, or is given now; it says nothing of the run, and no result depends on it.

    Raises:
        DamagedFileError: if it cannot be read.
        UnwritableError: if it cannot be written.
    """
    path = folder / FEDERATION
    if not path.is_file():
        name = secrets.token_hex(8)
        write_atomically(path, json.dumps({"run": name}).encode(), what="the run's name on its nodes")
        return name
    try:
        name = json.loads(path.read_text())["run"]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise DamagedFileError(
            f"{path} cannot be read ({error}); it names the run on its nodes: the folder of any node's states is "
            f'called by it, so write {{"run": "..."}} with that name'
        ) from error
    return checked(name)


def checked(name: object) -> str:
    """A run's name, which becomes a folder on nodes.

    Raises:
        ValueError: if it is none.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a run")
    return name
