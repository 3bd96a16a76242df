"""Methods as files: a YAML fragment each, laid key by key over a config."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flsim.config.load import load_config
from flsim.config.plugins import resolve
from flsim.config.schema import Config, ConfigError

FOLDER = Path(__file__).parents[1] / "configs" / "methods"


@dataclass(frozen=True)
class Method:
    """One value of `method=`."""

    name: str
    """Of its files, without `.yaml`, joined by `+`."""
    files: tuple[Path, ...]
    """In the order in which they are laid over the config; none leaves it as it is."""


def find_method(text: str) -> Method:
    """Find the files of a method.

    Args:
        text: a name in `experiments/configs/methods/`, the path of a YAML file, or several of them joined by `+`;
            empty for none.

    Raises:
        ConfigError: naming the methods that there are.
    """
    files = tuple(_find(text, part) for part in text.split("+")) if text else ()
    return Method("+".join(file.stem for file in files), files)


def method_names() -> list[str]:
    """What is shipped."""
    return sorted(file.stem for file in FOLDER.glob("*.yaml"))


def config_with(path: str | Path, settings: Sequence[str], files: Sequence[Path]) -> Config:
    """A config under a method: its files, and settings over them.

    Where they name another learner, strategy or cloud than the config does, what the config says to its own alone is
    left out. So a config may hold the settings of the method that it ships with, and is still one for all methods.

    Raises:
        ConfigError: for what cannot be read, or names nothing.
    """
    config, plain = load_config(path, settings, fragments=files), load_config(path)
    client, strategy = (_left(part, getattr(plain, part), getattr(config, part)) for part in ("client", "strategy"))
    clouds = ({"path": one.cloud.path, **one.cloud.settings} for one in (plain, config))
    cloud = replace(config.cloud, settings={k: v for k, v in _left("cloud", *clouds).items() if k != "path"})
    return replace(config, client=client, strategy=strategy, cloud=cloud)


def _left(part: str, own: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a plug-in without those that are only its predecessor's, and were said to that one."""
    if own["path"] == now["path"] or len(own) == 1:
        return dict(now)
    before, after = (inspect.signature(resolve(f"{part}.path", spec["path"])).parameters for spec in (own, now))
    if any(taken.kind == inspect.Parameter.VAR_KEYWORD for taken in after.values()):
        return dict(now)  # it hands on what it does not name, and says itself what is refused
    gone = {name for name in own if name in before and name not in after and now[name] == own[name]}
    return {name: value for name, value in now.items() if name not in gone}


def _find(text: str, part: str) -> Path:
    if part.endswith(".yaml"):
        if not Path(part).is_file():
            raise ConfigError(f"method={text}: there is no file {part!r} (looked in {Path.cwd()})")
        return Path(part)
    if part not in method_names():
        raise ConfigError(
            f"method={text}: there is no method {part!r}; choose of: {', '.join(method_names())}, join two by +, or "
            f"give a file of your own, such as my_method.yaml"
        )
    return FOLDER / f"{part}.yaml"
