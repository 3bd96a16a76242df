"""How settings are written, and how they are kept: a cloud's own settings stand beside those of every cloud.

    cloud: {path: flsim.cloud.endpoint:Endpoint, url: ..., cache: null}        as one writes it
    cloud: {path: ..., settings: {url: ...}, cache: null}                      as `CloudConfig` has it

Old spellings are read for one release; what is written back is new.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from types import MappingProxyType
from typing import Any

from flsim.config.given import Given, Keyed, Text, shown, unfolded
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


def kept(given: Keyed) -> Keyed:
    """What was given by keys as the dataclasses have them.

    Raises:
        ConfigError: for a `cloud.kind` that there never was, or an old key beside its new name.
    """
    for old, new in OLD_KEYS.items():
        given = _renamed(given, old, new[-1])
    cloud = unfolded(given.items["cloud"], "cloud") if "cloud" in given.items else None
    return replace(given, items={**given.items, "cloud": _cloud(cloud)}) if isinstance(cloud, Keyed) else given


def current_key(name: str) -> str:
    """What a key with dots is called now: `cloud.url` of `cloud.settings.url`, `stage.lr` of `server.lr`."""
    words = tuple(name.split("."))
    for old, new in OLD_KEYS.items():
        if words[: len(old)] == old:
            words = (*new, *words[len(old) :])
    if words[:1] != ("cloud",) or len(words) == 1:
        return ".".join(words)
    _, own, *rest = words
    if own in ("settings", "replay"):
        return ".".join(["cloud", *rest])
    return ".".join(["cloud", "path" if own == "kind" else OLD_CLOUD.get(own, own), *rest])


def _renamed(given: Keyed, old: Sequence[str], name: str) -> Keyed:
    """The keys with what stands at the path `old` called `name` instead; the same ones where nothing stands."""
    first, *rest = old
    inner = unfolded(given.items[first], first) if first in given.items else None
    if inner is None or (rest and not isinstance(inner, Keyed)):
        return given
    if not rest and name in given.items:
        raise ConfigError(f"{first!r} in {inner.where} is called {name!r} now, and both are given; leave {first!r} out")
    if isinstance(inner, Keyed) and rest:
        return replace(given, items={**given.items, first: _renamed(inner, rest, name)})
    return replace(given, items={(name if key == first else key): value for key, value in given.items.items()})


def written(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `kept`, in the new spelling."""
    cloud = dict(settings["cloud"])
    own = cloud.pop("settings")
    taken = {*_TYPED, *OLD_CLOUD}  # what would be read as something else beside the others
    below = {name: value for name, value in own.items() if name in taken}
    beside = {name: value for name, value in own.items() if name not in taken}
    kept_below = {"settings": below} if below else {}
    return {**settings, "cloud": {"path": cloud.pop("path"), **kept_below, **beside, **cloud}}


def _cloud(given: Keyed) -> Keyed:
    found: dict[str, Given] = {}
    below = unfolded(given.items["settings"], "cloud.settings") if "settings" in given.items else None
    own: dict[str, Given] = dict(below.items) if isinstance(below, Keyed) else {}
    if below is not None and not isinstance(below, Keyed):
        return replace(given, items={"settings": below})  # which is refused where it is read
    for key, value in given.items.items():
        if key == "kind":
            found["path"] = _path(value)
        elif key == "replay" and isinstance(value := unfolded(value, "cloud.replay"), Keyed):
            own |= {name: one for name, one in value.items.items() if name in OLD_CLOUD["replay"]}
        elif key in ("oracle_error", "oracle_errors"):
            own[OLD_CLOUD[key]] = value
        elif key not in _TYPED:
            own[key] = value
        elif key != "settings":
            found[key] = value
    return replace(given, items={**found, "settings": Keyed(given.where, own)} if own else found)


def _path(kind: Given) -> Given:
    kinds: dict[str, str] = OLD_CLOUD["kind"]
    if not isinstance(kind, Text) or kind.text not in kinds:
        said = shown(kind.text) if isinstance(kind, Text) else "..."
        raise ConfigError(
            f"cloud.kind={said} in {kind.where} is not known; name a class, such as cloud.path={kinds['endpoint']} or "
            f"cloud.path=my_file.py:Mine (a kind was one of: {', '.join(kinds)})"
        )
    return replace(kind, text=kinds[kind.text])
