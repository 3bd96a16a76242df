"""Read and write configurations: YAML files, `key=value` overrides, and what differs between two.

`given.py` takes files and overrides apart, `reading.py` reads a value by the type of its field, and here one is laid
over the other, key by key.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from flsim.config.address import without_secrets
from flsim.config.explain import fields_of, refuse_out_of_range
from flsim.config.given import Given, Keyed, Text, override, read_file, shown, unfolded
from flsim.config.interpolation import escaped, resolved
from flsim.config.kinds import kinds_of, may_be_none, words_of
from flsim.config.plugins import respelt
from flsim.config.reading import is_null, is_plain, read, refused
from flsim.config.schema import CLOUD_FREE, Config, ConfigError
from flsim.config.shipped import config_file
from flsim.config.spelling import kept, written

_CLOUD = tuple(f"cloud.{name}" for name in CLOUD_FREE)
_FREE_OF_RESULTS = (
    "engine.kind",
    "engine.workers",
    "engine.address",
    "run_dir",
    "track",
    *_CLOUD,
)  # may change on resume
_ROOT = re.compile(r"data\.[^.]+\.root")  # where the files of a data set lie: they are the same ones
OF_WHAT_IS_SAID = re.compile(r"data\.[^.]+\.(strict|keep_user_ids)")
"""Keys that say what is told or shown of data, and change no result."""
_BREAKS = "\x85\u2028\u2029"  # YAML takes them for ends of lines, and only in double quotes may they be escaped


def load_config(
    path: str | Path | None = None, overrides: Sequence[str] = (), *, fragments: Sequence[str | Path] = ()
) -> Config:
    """Read a YAML file, and lay fragments and then `key=value` overrides over it, key by key; the last of a key wins.

    Whether the settings fit together, and whether data and clouds can be used with them, is what
    `flsim.loop.checks.check` says before a run: it has to import them, reading a file does not.

    Args:
        path: the YAML file, or the name of a shipped one, such as `demo`; None starts from the defaults.
        overrides: such as `["rounds=4", "budget.tau=0.5", "client.lr=0.001"]`.
        fragments: YAML files with some of the keys, each laid over what is before it.

    Raises:
        ConfigError: for an unknown or mistyped key, a value out of its range or a file that is not there.
    """
    if isinstance(overrides, str) or not isinstance(overrides, Sequence):
        raise ConfigError(f"overrides={overrides!r} must be a list of key=value, such as ['rounds=4']")
    wrong = next((one for one in overrides if not isinstance(one, str)), None)
    if wrong is not None:
        raise ConfigError(f"overrides holds {wrong!r}, which is no text; write it as key=value, such as 'rounds=4'")
    if path is not None and not isinstance(path, str | Path):
        raise ConfigError(f"{path!r} is no config; give a file, or the name of one that ships, such as 'demo'")
    taken = [kept(override(text)) for text in overrides]
    files = [*([] if path is None else [config_file(path)]), *map(_existing, fragments)]
    config = Config() if path is None else Config(name=files[0].stem)  # unless the file says otherwise
    layers = resolved([*(kept(read_file(file)) for file in files), *taken], asdict(config))
    for file, given in zip(files, layers, strict=False):
        config = _laid_over_file(config, file, given)
    for given in layers[len(files) :]:
        config = laid_over(Config, config, given)
    refuse_out_of_range(config)
    plug_ins: dict[str, Any] = {part: respelt(getattr(config, part)) for part in ("client", "strategy", "stage")}
    return replace(config, run_dir=without_secrets(config.run_dir), **plug_ins)


def _existing(file: str | Path) -> Path:
    """A fragment's file, which no shipped config's name stands for."""
    if not os.path.isfile(file):
        raise ConfigError(f"there is no config file {str(file)!r} (looked in {Path.cwd()})")
    return Path(file)


def laid_over(hint: Any, before: Any, given: Given, key: str = "") -> Any:
    """A setting, or a section of them, with what was given over what it was; the rest of it stays.

    Args:
        hint: its type.
        before: its value, or the section.
        given: what was typed; `null` puts None in the place of all that was.
        key: of it, with dots; "" is the config.

    Raises:
        ConfigError: naming key, value, place and what is allowed.
    """
    kind = _holder(hint)
    if kind is None or (is_null(given) and may_be_none(hint)):
        return read(hint, given, key)
    given = unfolded(given, key)
    if isinstance(given, Text) and given.text == "" and not given.quoted and not given.whole:
        return before  # a section of a file whose lines are all commented out
    if not isinstance(given, Keyed):
        if hint is Any:
            return read(Any, given, key)
        raise refused(given, key, f"must be {words_of(hint)}: write {key}.KEY=value")
    names = {name: f"{key}.{name}" if key else name for name in given.items}
    if is_dataclass(kind) and isinstance(kind, type):
        hints, before = _hints(kind), kind() if before is None else before
        for name, one in given.items.items():
            if name not in hints:
                raise _unknown(key, name, one.where, list(hints))
        changed = {n: laid_over(hints[n], getattr(before, n), one, names[n]) for n, one in given.items.items()}
        return replace(before, **changed)
    inner = Any if hint is Any else get_args(kind)[1]
    found = dict(before) if isinstance(before, Mapping) else {}
    for name, one in given.items.items():
        read(str, Text(one.where, name, quoted=True), key)  # a name must be a text that can be written
        start = found.get(name, inner() if is_dataclass(inner) and isinstance(inner, type) else None)
        found[name] = laid_over(inner, start, one, names[name])
    return found


def _holder(hint: Any) -> Any:
    """The type of what holds keys of its own: a dataclass, a dict, or Any, which may; None for single values."""
    return next(
        (kind for kind in kinds_of(hint) if is_dataclass(kind) or get_origin(kind) is dict or kind is Any), None
    )


@cache
def _hints(settings: type) -> dict[str, Any]:
    """The types of the fields of a dataclass."""
    hints = get_type_hints(settings)
    return {field.name: hints[field.name] for field in fields(settings)}


def _unknown(above: str, name: str, where: str, known: Sequence[str]) -> ConfigError:
    """Say which key there is not, and which come close; all of its section if none does."""
    key, every = f"{above}.{name}".lstrip("."), [one.name for one in fields_of()]
    close = [f"{above}.{one}".lstrip(".") for one in get_close_matches(name, known, n=3)]
    close = close or [one for one in every if one.rpartition(".")[2] == name]
    if name in every:  # `budget.tau: 0.5` in a file
        said = f"write {name.replace('.', ': {')}: ...{'}' * name.count('.')}"
    else:
        said = f"did you mean {' or '.join(close)}?" if close else f"allowed here: {', '.join(known)}"
    return ConfigError(f"unknown key {shown(key)} in {where}; {said}")


def _laid_over_file(config: Config, file: Path, given: Keyed) -> Config:
    """A config with a file's keys over it; a relative `root` of data, or trace, is looked for beside the file, too."""
    config = laid_over(Config, config, given)
    found = dict(config.data)
    for name in found:
        if _names(given, "data", name, "root"):
            found[name] = replace(found[name], root=_beside(file, found[name].root))
    system = config.system
    if system is not None and system.availability.path and _names(given, "system", "availability", "path"):
        trace = _beside(file, system.availability.path)
        system = replace(system, availability=replace(system.availability, path=trace))
    return replace(config, data=found, system=system)


def _names(given: Given, *keys: str) -> bool:
    """Whether a file gives the setting at the end of these keys."""
    for key in keys:
        if not isinstance(given, Keyed) or key not in given.items:
            return False
        given = given.items[key]
    return True


def _beside(file: Path, path: str) -> str:
    """A path that is not there from the current folder, but from the folder of the config file, as one that is."""
    beside = file.parent / path
    return str(beside.resolve()) if not os.path.exists(path) and os.path.exists(beside) else path


def to_yaml(config: Config) -> str:
    """The resolved configuration as YAML; `load_config` reads it back to an equal one."""
    settings = written(_plain(asdict(replace(config, run_dir=without_secrets(config.run_dir)))))
    text: str = yaml.dump(settings, Dumper=_Dumper, default_flow_style=False, allow_unicode=True, sort_keys=False)
    return text


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]  # yaml has no types
    """YAML in which a text stands in quotes wherever it could be taken for something else."""

    def ignore_aliases(self, data: Any) -> bool:
        """What stands twice is written twice."""
        return True

    def text(self, text: str) -> Any:
        """A text."""
        plain = None if is_plain(text) else "'"
        style = '"' if any(letter in text for letter in _BREAKS) else plain
        text = escaped(text)
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _Dumper.text)


def differences(old: Config, new: Config, free: Sequence[str] = ()) -> list[str]:
    """Keys whose change would change results, as `key: old -> new`; those in `free` would not."""
    before, after = settings_of(old), settings_of(new)
    if (old.system is None) != (new.system is None):  # which is one difference, and not one for each of its keys
        before, after = (_without_system(own, of) for own, of in ((before, old), (after, new)))
    return [
        f"{key}: {before.get(key, '(absent)')} -> {after.get(key, '(absent)')}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
        and key not in (*_FREE_OF_RESULTS, *free)
        and not _ROOT.fullmatch(key)
        and not OF_WHAT_IS_SAID.fullmatch(key)
    ]


def _without_system(settings: dict[str, Any], config: Config) -> dict[str, Any]:
    """Settings with one word for the whole system."""
    own = {key: value for key, value in settings.items() if not key.startswith("system.")}
    return own | {"system": "(absent)" if config.system is None else "(given)"}


def settings_of(config: Config) -> dict[str, Any]:
    """Every key with its value, such as `budget.tau: 0.3`; of a plug-in those that are set."""
    return _flat(written(_plain(asdict(config))))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
