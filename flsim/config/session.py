"""What a notebook's cells or a script define: named by a config as `__main__:Name`, and brought to workers by value.

A worker's own `__main__` is another program. So whatever names of the session a config holds is pickled with what they
refer to, and sent along with the client (`flsim/flower/ray_grid.py`).
"""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flsim.config.ranges import ConfigError, near

MAIN = "__main__"
_NAME = re.compile(rf"{MAIN}:(\w+)")
_brought: dict[str, Any] = {}  # in a worker only


def defined(key: str, path: str) -> Any:
    """What a path such as `__main__:MyLearner` names in this session.

    Args:
        key: where the path stands, such as `client.path`.
        path: the path.

    Raises:
        ConfigError: if the session has no such name.
    """
    found, name = _names(), path.rpartition(":")[2]
    if name not in found:
        own = [one for one, value in found.items() if callable(value) and getattr(value, "__module__", None) == MAIN]
        raise ConfigError(
            f"{key}={path!r} is of a notebook or a script, and this session has no {name!r}{near(name, own)}; run the "
            f"cell that defines it first, and a run that was begun with it goes on there by flsim.run(resume=...); "
            f"for a new run, my_file.py:{name} is found from everywhere"
        )
    return found[name]


def taken_along(config: object) -> dict[str, Any]:
    """By name, what workers need of this session: all that a config names of it; who reads it says what is missing.

    Args:
        config: dataclasses, mappings, lists and texts, in each other.
    """
    found = _names()
    named = (_NAME.fullmatch(text) for text in _texts(config))
    return {one[1]: found[one[1]] for one in named if one is not None and one[1] in found}


@dataclass(frozen=True, eq=False)
class Meant:
    """What a name stands for by now, as a cell that is run again defines another one; for keys of caches."""

    object: Any

    def __eq__(self, other: object) -> bool:
        """Whether it is the very same."""
        return isinstance(other, Meant) and self.object is other.object

    def __hash__(self) -> int:
        """Of an object that may have none of its own."""
        return id(self.object)


def meant_in(config: object) -> tuple[Meant, ...]:
    """What all names of the session stand for that stand in a config, in its order."""
    return tuple(Meant(one) for one in taken_along(config).values())


def bring(objects: Mapping[str, Any]) -> None:
    """Have them found in this process, which is a worker's, in place of what its own `__main__` has."""
    _brought.update(objects)


def path_of(key: str, kind: type) -> str:
    """The path by which a config names a class, such as `__main__:MyLearner` or `my_module:MyLearner`.

    Args:
        key: what it is given as, such as `client`.
        kind: the class.

    Raises:
        ConfigError: if no path leads to it.
    """
    if vars(sys.modules.get(kind.__module__, object)).get(kind.__qualname__) is not kind:
        raise ConfigError(
            f"{key}={kind.__module__}.{kind.__qualname__} cannot be named by a config, as it does not stand at the top "
            f"of its module, or was defined again since; define it at the top of a cell or a file, or give an object"
        )
    return f"{kind.__module__}:{kind.__qualname__}"


def _names() -> dict[str, Any]:
    return vars(sys.modules[MAIN]) | _brought


def _texts(value: object) -> Iterator[str]:
    """Every text in it."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, Sequence):
        for inner in value:
            yield from _texts(inner)
    elif hasattr(value, "__dataclass_fields__"):
        yield from _texts(vars(value))
