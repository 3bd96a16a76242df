"""Build a plug-in from `module:Name` (or `my_file.py:Name`) and its settings; errors name the half that failed.

Names of the last release are still read for one more (`RENAMED`).
"""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_origin, get_type_hints

from flsim.config.given import shown
from flsim.config.kinds import kinds_of, misfit
from flsim.config.ranges import near
from flsim.config.schema import ConfigError
from flsim.config.session import MAIN, defined

_MANY = 20  # names in a sentence

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
        named = shown(factory)
        raise ConfigError(f"{key}.path={path!r} names {named}, which cannot be called; name a class or a function")
    given = {name: value for name, value in spec.items() if name != "path"}
    settings = {name: _built(f"{key}.{name}", value) for name, value in given.items()}
    signature = inspect.signature(factory)
    try:
        signature.bind(*args, **settings)
    except TypeError as error:
        names = [n for n, p in signature.parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        close = "".join(near(name, names[len(args) :]) for name in settings.keys() - set(names))
        taken = ", ".join(names[len(args) :]) or "no settings"
        raise ConfigError(f"{path} cannot take the settings of {key}: {error}{close}; it takes: {taken}") from None
    settings |= fitted(key, _types_of(factory), given)
    try:
        return factory(*args, **settings)
    except ConfigError:  # it names its own key: that of the model, say, which the plug-in has loaded
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path} refused the settings {shown(settings)} of {key}: {error}") from error


def refuse_unknown(kind: type, known: Sequence[str], settings: Mapping[str, Any]) -> None:
    """Refuse settings that a plug-in does not have.

    Args:
        kind: of the plug-in, for the sentence.
        known: those that it has.
        settings: as given.

    Raises:
        ValueError: naming what was given and what there is.
    """
    unknown = sorted(settings.keys() - set(known))
    if unknown:
        close = near(unknown[0], known)
        raise ValueError(f"there is no setting {', '.join(unknown)}{close}; {kind.__name__} takes: {', '.join(known)}")


def fitted(key: str, types: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a plug-in whose types are plain, as it takes them: 8 is the text that it was, where it wants one.

    Args:
        key: where they stand, such as `client`.
        types: of the plug-in's parameters, by name.
        settings: as the config has them.

    Raises:
        ConfigError: for one of another type.
    """
    found = {}
    for name, value in settings.items():
        hint = types.get(name, Any)
        if hint is Any or not _is_plain(hint):
            continue
        is_text = type(value) is int and str in kinds_of(hint) and int not in kinds_of(hint)
        found[name] = str(value) if is_text else value
        complaint = misfit(_as_tuple(hint), found[name])
        if complaint is not None:
            mend = f', such as "{value}" in quotes' if str in kinds_of(hint) and isinstance(value, float | bool) else ""
            raise ConfigError(f"{key}.{name}={shown(value)} {complaint}{mend}")
    return found


def _types_of(factory: Any) -> dict[str, Any]:
    """The types of what a class or a function takes; none where they cannot be told."""
    try:
        return get_type_hints(getattr(factory, "__init__", factory) if isinstance(factory, type) else factory)
    except Exception:  # annotations are anything, and only looked at for a better sentence
        return {}


def _is_plain(hint: Any) -> bool:
    """Whether a type is one that a config can hold."""
    if get_origin(hint) in (tuple, list, Sequence):
        return all(_is_plain(inner) for inner in get_args(hint) if inner is not ...)
    return hint is Any or all(kind in (int, float, bool, str) for kind in kinds_of(hint))


def _as_tuple(hint: Any) -> Any:
    """The type of a list as that of a tuple of any length."""
    if get_origin(hint) not in (list, Sequence):
        return hint
    (inner,) = get_args(hint)
    return tuple.__class_getitem__((inner, ...))


def _built(key: str, value: Any) -> Any:
    """A setting as the plug-in gets it."""
    return build(key, value) if isinstance(value, dict) and isinstance(value.get("path"), str) else value


def resolve(key: str, path: str) -> Any:
    """The object that `module:Name`, `file.py:Name` or, in a notebook or a script, `__main__:Name` names.

    Raises:
        ConfigError: saying whether the module or the name is missing, and what the module has instead.
    """
    path = current(path)
    module_name, colon, name = path.rpartition(":")
    if not colon or not name or not module_name.strip("."):
        raise ConfigError(f"{key}={path!r} must be written as module:Name or my_file.py:Name")
    if module_name == MAIN:
        return defined(key, path)
    module = _load_file(key, path, Path(module_name)) if module_name.endswith(".py") else _load(key, path, module_name)
    found = getattr(module, name, None)  # which also loads what a package, such as trl, imports when it is asked for
    if found is None and name not in vars(module):
        own = [n for n, v in vars(module).items() if callable(v) and getattr(v, "__module__", None) == module.__name__]
        own = own or [n for n in getattr(module, "__all__", []) if isinstance(n, str)]  # of a package's parts
        raise not_there(key, path, str(vars(module).get("__file__", "built in")), own)
    return found


def not_there(key: str, path: str, file: str, own: Sequence[str]) -> ConfigError:
    """The error for a name that a module has not; says which it has, unless these are too many to read."""
    module, _, name = path.rpartition(":")
    some = own if len(own) <= _MANY else [*own[:_MANY], f"and {len(own) - _MANY} more"]
    return ConfigError(
        f"{key}={path!r}: module {module!r} ({file}) has no {name!r}{near(name, own)}; it defines: {', '.join(some)}"
    )


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
