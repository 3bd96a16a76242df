r"""`${rounds}` within a value stands for another setting, as in OmegaConf, which also reads `${oc.env:HOME}`.

A reference is looked up in the whole config, whatever file or override gave it: `run_dir=runs/${name}-${seed}` follows
an override of the seed. What is found is read by the type of its new field. `\${` is `${` itself.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from flsim.config.given import Given, Keyed, Listed, Text, shown
from flsim.config.ranges import ConfigError

_OPEN = "${"
_MEND = r"write the key of another setting with all its dots, such as ${budget.tau}, or \${ for the text itself"
_BEFORE = re.compile(r"(\\*)\$\{")


def resolved(layers: Sequence[Keyed], defaults: Mapping[str, Any]) -> list[Keyed]:
    """The layers with what their references stand for.

    Args:
        layers: what files and overrides gave, earlier ones first.
        defaults: what holds where none of them gives anything, as nested mappings.

    Raises:
        ConfigError: for a reference to nothing or to itself, or one that is not closed.
    """
    if not any(_refers(layer) for layer in layers):
        return list(layers)
    from omegaconf import OmegaConf  # not above: few configs refer to anything, and all are to be read at once
    from omegaconf.errors import OmegaConfBaseException

    whole = _typed(defaults)
    for layer in layers:
        whole = _over(whole, _tree(layer))
    try:
        everything = OmegaConf.create(whole)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: a reference is not closed, or names no key; {_MEND}") from error
    return [_with_values(layer, everything, ()) for layer in layers]


def escaped(text: str) -> str:
    """A text that is read back as itself, though it holds `${`."""
    return _BEFORE.sub(lambda found: rf"{found[1]}{found[1]}\${{", text)


def _refers(given: Given) -> bool:
    if isinstance(given, Text):
        return _OPEN in given.text
    return any(map(_refers, given.items.values() if isinstance(given, Keyed) else given.items))


def _tree(given: Given) -> Any:
    """Plain mappings, lists and texts."""
    if isinstance(given, Text):
        return given.text
    if isinstance(given, Listed):
        return [_tree(one) for one in given.items]
    return {key: _tree(one) for key, one in given.items.items()}


def _typed(value: Any) -> Any:
    """A value of the config as somebody would type it."""
    if isinstance(value, Mapping):
        return {key: _typed(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_typed(one) for one in value]
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _over(below: Any, above: Any) -> Any:
    if not (isinstance(below, Mapping) and isinstance(above, Mapping)):
        return above
    return {**below, **{key: _over(below.get(key), one) for key, one in above.items()}}


def _with_values(given: Given, everything: Any, path: tuple[str | int, ...]) -> Any:
    if isinstance(given, Keyed):
        return replace(given, items={k: _with_values(one, everything, (*path, k)) for k, one in given.items.items()})
    if isinstance(given, Listed):
        return replace(
            given, items=tuple(_with_values(one, everything, (*path, n)) for n, one in enumerate(given.items))
        )
    return _with_value(given, everything, path) if _OPEN in given.text else given


def _with_value(given: Text, everything: Any, path: tuple[str | int, ...]) -> Given:
    """What stands in the place of a text that refers to something."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    parent = everything
    try:
        for step in path[:-1]:
            parent = parent[step]
        value = parent[path[-1]]
    except OmegaConfBaseException as error:
        key = ".".join(map(str, path))
        raise ConfigError(
            f"{key}={shown(given.text)} in {given.where} refers to what there is not, or to itself; {_MEND}"
        ) from error
    found = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    return _given(found, given)


def _given(value: Any, place: Text) -> Given:
    """A value that was found, in the place of the text that referred to it."""
    if isinstance(value, dict):
        return Keyed(place.where, {str(key): _given(one, place) for key, one in value.items()})
    if isinstance(value, list):
        return Listed(place.where, tuple(_given(one, place) for one in value))
    text = _typed(value)
    only_escapes = escaped(text) == place.text
    return replace(place, text=text, quoted=place.quoted and only_escapes)
