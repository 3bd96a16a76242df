"""Build a plug-in from `module:Name` (or `my_file.py:Name`) and its settings; errors name the half that failed.

Names of the last release are still read for one more (`RENAMED`).
"""

import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from flsim.config.schema import ConfigError

RENAMED = {
    "clients.collaborative_grpo:client_app": "clients.collaborative_grpo:CollaborativeGrpo",
    "clients.da_grpo:client_app": "clients.da_grpo:DaGrpo",
    "clients.dapo:client_app": "clients.dapo:Dapo",
    "clients.dr_grpo:client_app": "clients.dr_grpo:DrGrpo",
    "clients.fixed_price:client_app": "clients.fixed_price:FixedPrice",
    "clients.gapg:client_app": "clients.gapg:Gapg",
    "clients.grpo:client_app": "clients.grpo:Grpo",
    "clients.gvpo:client_app": "clients.gvpo:Gvpo",
    "clients.poisoning:client_app": "clients.poisoning:Poisoned",
    "clients.sft:client_app": "clients.sft:Sft",
    "clients.asking.always:": "clients.asking.simple:",
    "clients.asking.at_random:": "clients.asking.simple:",
    "clients.asking.cascade:": "clients.asking.learned:",
    "clients.asking.classifier:": "clients.asking.learned:",
    "clients.asking.confidence:": "clients.asking.scores:",
    "clients.asking.entropy:": "clients.asking.scores:",
    "clients.asking.never:": "clients.asking.simple:",
    "clients.asking.oracle:": "clients.asking.simple:",
    "clients.asking.own:": "clients.asking.policy:",
    "clients.asking.own_calibrated:": "clients.asking.policy:",
    "flsim.problems.text:NumericVerifier": "flsim.problems.numbers:NumericVerifier",
    "strategies.distillation:": "strategies.stages.distillation:",
    "strategies.geometric_median:": "strategies.robust:",
    "strategies.median:": "strategies.robust:",
    "strategies.multi_krum:": "strategies.robust:",
    "strategies.reducers:": "strategies.parts.reducers:",
    "strategies.samplers:": "strategies.parts.samplers:",
    "strategies.server_optimizers:": "strategies.parts.server_optimizers:",
    "strategies.trimmed_mean:": "strategies.robust:",
    "strategies.weighters:": "strategies.parts.weighters:",
}
"""What plug-ins were called, and are now: whole paths, or modules, ending in a colon, whose names stayed."""


def current(path: str) -> str:
    """A plug-in's path, or what it is called now."""
    module, colon, name = path.rpartition(":")
    return RENAMED.get(path) or RENAMED.get(module + colon, module + colon) + name


def respelt(spec: Any) -> Any:
    """A plug-in's settings with every path in them as it is now; whatever else they hold stays as it is."""
    if not isinstance(spec, dict):
        return spec
    return {
        key: current(value) if key == "path" and isinstance(value, str) else respelt(value)
        for key, value in spec.items()
    }


def build(key: str, spec: dict[str, Any], *args: Any) -> Any:
    """Call what `spec["path"]` names with `args` and the rest of `spec` as keyword arguments.

    Args:
        key: where the spec comes from, such as `strategy`; used in messages.
        spec: `{"path": "strategies.fedavg:FedAvg", "server_lr": 1.0}`; a setting that has a `path` itself, such as
            `{"weighter": {"path": "strategies.parts.weighters:QFair", "q": 2.0}}`, is built first.
        args: positional arguments that every plug-in of this kind gets.

    Raises:
        ConfigError: if the path does not resolve or a setting is not taken.
    """
    return call(resolve(f"{key}.path", str(spec["path"])), key, spec, *args)


def call(factory: Any, key: str, spec: dict[str, Any], *args: Any) -> Any:
    """The same for a path that is resolved already, to `factory`.

    Raises:
        ConfigError: if it cannot be called or does not take a setting.
    """
    path = str(spec["path"])
    if not callable(factory):
        raise ConfigError(f"{key}.path={path!r} names {factory!r}, which cannot be called; name a class or a function")
    settings = {name: _built(f"{key}.{name}", value) for name, value in spec.items() if name != "path"}
    signature = inspect.signature(factory)
    try:
        signature.bind(*args, **settings)
    except TypeError as error:
        names = [n for n, p in signature.parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        taken = ", ".join(names[len(args) :]) or "no settings"
        raise ConfigError(f"{path} cannot take the settings of {key}: {error}; it takes: {taken}") from None
    try:
        return factory(*args, **settings)
    except ConfigError:  # it names its own key: that of the model, say, which the plug-in has loaded
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path} refused the settings {settings} of {key}: {error}") from error


def _built(key: str, value: Any) -> Any:
    """A setting as the plug-in gets it."""
    return build(key, value) if isinstance(value, dict) and isinstance(value.get("path"), str) else value


def resolve(key: str, path: str) -> Any:
    """The object that `module:Name` or `file.py:Name` names.

    Raises:
        ConfigError: saying whether the module or the name is missing, and what the module has instead.
    """
    path = current(path)
    module_name, colon, name = path.rpartition(":")
    if not colon or not name or not module_name.strip("."):
        raise ConfigError(f"{key}={path!r} must be written as module:Name or my_file.py:Name")
    module = _load_file(key, path, Path(module_name)) if module_name.endswith(".py") else _load(key, path, module_name)
    if name not in vars(module):
        own = [n for n, v in vars(module).items() if callable(v) and getattr(v, "__module__", None) == module.__name__]
        where = vars(module).get("__file__", "built in")
        raise ConfigError(
            f"{key}={path!r}: module {module_name!r} ({where}) has no {name!r}; it defines: {', '.join(own)}"
        )
    return vars(module)[name]


def _load(key: str, path: str, module_name: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"{key}={path!r}: cannot import module {module_name!r} ({error}); give a module that Python can import "
            f"from here, or a file as my_file.py:Name"
        ) from error


def _load_file(key: str, path: str, file: Path) -> ModuleType:
    if not file.is_file():
        raise ConfigError(f"{key}={path!r}: there is no file {str(file)!r} (looked in {Path.cwd()})")
    name = f"flsim_plugin_{file.stem}"  # never the name of a module that is in use, such as `strategies`
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ConfigError(f"{key}={path!r}: {file} cannot be run: {type(error).__name__}: {error}") from error
    from ray import cloudpickle  # only now: reading a config does not need it

    cloudpickle.register_pickle_by_value(module)  # Ray workers cannot import it by name
    return module
