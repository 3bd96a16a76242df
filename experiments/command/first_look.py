"""What is wrong with a run's settings as far as it can be told before torch, Ray and Flower are imported.

These take seconds, and a mistake should be told at once. So the classes that ship are looked at as text
(`experiments/command/walk.py`); whatever is left is told by `flsim.run` itself, before it writes anything.
"""

import ast
import importlib.util
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from experiments.command.walk import Class, is_in_source, names_in, resolve, tree_of
from flsim.cloud.make import make_cloud
from flsim.config import plugins
from flsim.config.ranges import ConfigError, near
from flsim.config.schema import Config
from flsim.loop.checks import check_settings, refuse_until
from flsim.loop.place import refuse_home
from flsim.models.hub import look_for
from flsim.models.lora_settings import refuse_lora
from flsim.tasks.stream import stream_of
from flsim.trackers.named import SHIPPED, trackers_of

_HEAVY = {"torch", "ray", "flwr", "transformers", "peft", "sklearn", "scipy", "matplotlib", "datasets"}
_TAKES_MORE = "client_app"  # of a learner: the method whose own keywords are settings, too
_TYPES: Mapping[str, Any] = {kind.__name__: kind for kind in (int, float, str, bool, tuple, list, Sequence)}


def first_look(config: Config, until: int | None = None) -> None:
    """Refuse what is wrong with a new run, as far as that can be told at once.

    Args:
        config: of the run.
        until: the last round to run; None runs to the end.

    Raises:
        ConfigError: naming key, value, what is allowed and the mend.
    """
    refuse_until(until)
    check_settings(config)
    refuse_home(config)
    for key in ("client", "strategy", "stage"):
        _look_at(key, getattr(config, key))
    _look_at("cloud", {"path": config.cloud.path, **config.cloud.settings})
    look_for(config.model.path)
    refuse_lora(config.model)
    if _is_quick(config.cloud.path):
        make_cloud(config.cloud)
    named = [spec.get("path") if isinstance(spec, Mapping) else spec for spec in config.track]
    if all(isinstance(path, str) and _is_quick(SHIPPED.get(path, path)) for path in named):
        trackers_of(config.track)
    if config.data:
        stream_of(config)


def _look_at(key: str, spec: object) -> None:
    """A plug-in and those within its settings."""
    if not isinstance(spec, Mapping) or not isinstance(spec.get("path"), str):
        return
    for name, value in spec.items():
        _look_at(f"{key}.{name}", value)
    path = plugins.current(spec["path"])
    module, colon, name = path.rpartition(":")
    if not colon or not name or not module.strip(".") or not _is_there(module):
        plugins.resolve(f"{key}.path", path)  # which says what is wrong, with nothing to import
    elif is_in_source(module):
        found, own = resolve(module, name), names_in(module)
        if found is None and name not in own:
            classes = [one.name for one in tree_of(module).body if isinstance(one, ast.ClassDef | ast.FunctionDef)]
            raise plugins.not_there(f"{key}.path", path, f"{module.replace('.', '/')}.py", classes)
        if found is not None:
            _look_at_settings(key, found, {name: value for name, value in spec.items() if name != "path"})


def _look_at_settings(key: str, found: Class, given: Mapping[str, Any]) -> None:
    """Names and types of what a class is given."""
    known = {setting.name: setting.type for setting in found.settings()} | found.keywords(_TAKES_MORE)
    wrong = next((name for name in given if name not in known), None)
    if wrong is not None and not found.takes_anything:
        taken = ", ".join(known) or "no settings"
        raise ConfigError(f"{key}.{wrong} is no setting of {found.path}{near(wrong, known)}; it takes: {taken}")
    types = {name: _type(text) for name, text in known.items()}
    plugins.fitted(key, types, {name: given[name] for name in given if not isinstance(given[name], Mapping)})


def _type(annotation: str) -> Any:
    """The type that an annotation of plain types means; Any for all others."""
    names = set(re.findall(r"[A-Za-z_]\w*", annotation)) - {"None"}
    if not names <= _TYPES.keys() or not re.fullmatch(r"[\w\s|,.\[\]]+", annotation):
        return Any
    return eval(annotation, {"__builtins__": {}}, dict(_TYPES))  # names of plain types and brackets alone


def _is_there(module: str) -> bool:
    """Whether a module can be found; a file is looked for by whoever runs it."""
    if module.endswith(".py"):
        return os.path.isfile(module)
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _is_quick(path: str) -> bool:
    """Whether what a path names can be made at once; what has no colon is refused at once."""
    module, colon, _ = path.rpartition(":")
    return not colon or (is_in_source(module) and _is_light(module))


@cache
def _is_light(module: str) -> bool:
    """Whether a module of the source imports nothing that takes seconds, at its top or at that of what it imports."""
    names = set()
    for node in tree_of(module).body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    if {name.partition(".")[0] for name in names} & _HEAVY:
        return False
    return all(_is_light(name) for name in names if is_in_source(name))
