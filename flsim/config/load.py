"""Read and write configurations: YAML, `key=value` overrides, and what differs between two; OmegaConf stays here."""

import re
from collections.abc import Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from flsim.config.explain import refuse_out_of_range
from flsim.config.plugins import respelt
from flsim.config.schema import CLOUD_FREE, Config, ConfigError, DataConfig
from flsim.config.shipped import config_file
from flsim.config.spelling import kept, written

_CLOUD = tuple(f"cloud.{name}" for name in CLOUD_FREE)
_FREE_OF_RESULTS = ("engine.kind", "engine.workers", "engine.address", "run_dir", *_CLOUD)  # may change on resume
_ROOT = re.compile(r"data\.[^.]+\.root")  # where the files of a data set lie: they are the same ones
OF_WHAT_IS_SAID = re.compile(r"data\.[^.]+\.(strict|keep_user_ids)")
"""Keys that say what is told or shown of data, and change no result."""


def load_config(
    path: str | Path | None = None, overrides: Sequence[str] = (), *, fragments: Sequence[str | Path] = ()
) -> Config:
    """Read a YAML file, and lay fragments and then `key=value` overrides over it, key by key.

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
    path = None if path is None else config_file(path)
    wrong = next((text for text in overrides if "=" not in text or text.startswith(("-", "="))), None)
    if wrong is not None:
        raise ConfigError(f"cannot read the override {wrong!r}: write it as key=value, such as rounds=4")
    merged = OmegaConf.structured(Config)
    if path is not None:
        merged = OmegaConf.merge(merged, {"name": Path(path).stem})  # unless the file says otherwise
    for file in [*([] if path is None else [path]), *fragments]:
        merged = _lay_over(merged, _read(Path(file)), str(file))
    merged = _lay_over(merged, _dotted(overrides), "the overrides")
    config = OmegaConf.to_object(merged)
    assert isinstance(config, Config)
    refuse_out_of_range(config)
    plug_ins: dict[str, Any] = {part: respelt(getattr(config, part)) for part in ("client", "strategy", "stage")}
    return replace(config, **plug_ins)


def _dotted(overrides: Sequence[str]) -> DictConfig:
    """The keys that `key=value` texts set."""
    for text in overrides:  # one by one, so that the error can name the text
        try:
            OmegaConf.from_dotlist([text])
        except (yaml.YAMLError, OmegaConfBaseException) as error:
            raise ConfigError(
                f"cannot read the override {text!r}: its value is no YAML, such as a list whose bracket is not closed"
            ) from error
    return OmegaConf.from_dotlist(list(overrides))


def _read(path: Path) -> DictConfig:
    """A YAML file's keys."""
    if not path.is_file():
        raise ConfigError(f"there is no config file {str(path)!r} (looked in {Path.cwd()})")
    try:
        given = OmegaConf.load(path)
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(given, DictConfig):
        raise ConfigError(f"{path} must hold keys and values, such as `rounds: 4`, not a list or a single value")
    _find_data(given, path.parent)
    return given


def _find_data(given: DictConfig, beside: Path) -> None:
    """Have a relative `data.*.root` that is not in the current folder, but beside the config file, name the latter."""
    sets = OmegaConf.select(given, "data", default=None)
    for data in sets.values() if isinstance(sets, DictConfig) else ():
        root = data.get("root") if isinstance(data, DictConfig) else None
        if isinstance(root, str) and not Path(root).exists() and (beside / root).exists():
            data.root = str((beside / root).resolve())


def _lay_over(config: Any, given: DictConfig, source: str) -> Any:
    """Merge; if that fails, key by key, so that the error can name its key."""
    given = OmegaConf.create(kept(OmegaConf.to_container(given)))  # type: ignore[arg-type]  # a DictConfig is a dict
    try:
        return _merged(config, given)
    except (OmegaConfBaseException, TypeError, ValueError):
        pass
    for key in given:
        try:
            config = _merged(config, {key: given[key]})
        except ConfigError:
            raise
        except (OmegaConfBaseException, TypeError, ValueError) as error:
            raise ConfigError(_explain(error, str(key), source)) from error
    return config


def _merged(config: Any, given: Any) -> Any:
    merged = OmegaConf.merge(config, given)
    OmegaConf.to_object(merged)  # values that the dataclasses refuse
    return merged


def _explain(error: Exception, key: str, source: str) -> str:
    """Say which key of which source is wrong and what would be right."""
    key = getattr(error, "full_key", None) or key
    if isinstance(error, ConfigKeyError):
        parent: Any = Config()
        for part in key.split(".")[:-1]:
            parent = DataConfig() if parent == {} else getattr(parent, part.split("[")[0], parent)
        known = ", ".join(f.name for f in fields(parent)) if is_dataclass(parent) else "its own keys"
        return f"unknown key {key!r} in {source}; allowed here: {known}"
    return f"wrong value for {key!r} in {source}: {str(error).splitlines()[0]}"


def to_yaml(config: Config) -> str:
    """The resolved configuration as YAML; `load_config` reads it back to an equal one."""
    return OmegaConf.to_yaml(OmegaConf.create(written(_plain(asdict(config)))))


def differences(old: Config, new: Config, free: Sequence[str] = ()) -> list[str]:
    """Keys whose change would change results, as `key: old -> new`; those in `free` would not."""
    before, after = settings_of(old), settings_of(new)
    return [
        f"{key}: {before.get(key, '(absent)')} -> {after.get(key, '(absent)')}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
        and key not in (*_FREE_OF_RESULTS, *free)
        and not _ROOT.fullmatch(key)
        and not OF_WHAT_IS_SAID.fullmatch(key)
    ]


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
