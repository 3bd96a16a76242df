"""How settings are written, and how they are kept: a cloud's own settings stand beside those of every cloud.

    cloud: {path: flsim.cloud.endpoint:Endpoint, url: ..., cache: null}        as one writes it
    cloud: {path: ..., settings: {url: ...}, cache: null}                      as `CloudConfig` has it

Old spellings are read for one release; what is written back is new.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from types import MappingProxyType
from typing import Any

from flsim.config.schema import CloudConfig, ConfigError

OLD_CLOUD: Mapping[str, Any] = MappingProxyType(
    {
        "kind": {
            "builtin": "flsim.cloud.builtin:Builtin",
            "oracle": "flsim.cloud.builtin:Oracle",
            "endpoint": "flsim.cloud.endpoint:Endpoint",
            "model": "flsim.cloud.checkpoint:Checkpoint",
            "replay": "flsim.cloud.recorded:Recorded",
        },
        "oracle_error": "error",
        "oracle_errors": "errors",
        "replay": ("file", "question", "right", "prompt_tokens", "completion_tokens"),
    }
)
"""Of the cloud: what a `kind` is the path of, what a key is called now, and what stood below `replay`."""
OLD_KEYS: Mapping[tuple[str, ...], tuple[str, ...]] = MappingProxyType(
    {
        ("server",): ("stage",),
        ("fleet", "sharing"): ("fleet", "opt_in"),
        ("budget", "fleet", "share"): ("budget", "fleet", "division"),
    }
)
"""Of all else: what a key was called, and where its value stands now."""
_TYPED = tuple(field.name for field in fields(CloudConfig))


def kept(given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as the dataclasses have them, of settings as one writes them.

    Raises:
        ConfigError: for a `cloud.kind` that there never was.
    """
    found = dict(given)
    for old, new in OLD_KEYS.items():
        found = _renamed(found, old, new[-1])
    cloud = found.get("cloud")
    return {**found, "cloud": _cloud(cloud)} if isinstance(cloud, Mapping) else found


def _renamed(given: Mapping[str, Any], old: Sequence[str], name: str) -> dict[str, Any]:
    """Settings with what stands at the path `old` called `name` instead; the same settings where nothing stands."""
    first, *rest = old
    if first not in given or (rest and not isinstance(given[first], Mapping)):
        return dict(given)
    if not rest and name in given:
        raise ConfigError(f"{first!r} is called {name!r} now, and both are given; leave {first!r} out")
    if not rest:
        return {(name if key == first else key): value for key, value in given.items()}
    return {**given, first: _renamed(given[first], rest, name)}


def written(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `kept`, in the new spelling."""
    cloud = dict(settings["cloud"])
    own = cloud.pop("settings")
    return {**settings, "cloud": {"path": cloud.pop("path"), **own, **cloud}}


def _cloud(given: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    own = dict(given.get("settings") or {})
    for key, value in given.items():
        if key == "kind":
            found["path"] = _path(value)
        elif key == "replay" and isinstance(value, Mapping):
            own |= {name: value[name] for name in OLD_CLOUD["replay"] if name in value}
        elif key in ("oracle_error", "oracle_errors"):
            own[OLD_CLOUD[key]] = value
        elif key not in _TYPED:
            own[key] = value
        elif key != "settings":
            found[key] = value
    return {**found, "settings": own} if own else found


def _path(kind: object) -> str:
    kinds: dict[str, str] = OLD_CLOUD["kind"]
    if kind not in kinds:
        raise ConfigError(
            f"cloud.kind={kind!r} is not known; name a class, such as cloud.path={kinds['endpoint']} or "
            f"cloud.path=my_file.py:Mine (a kind was one of: {', '.join(kinds)})"
        )
    return kinds[str(kind)]
