"""Write a run as a Flower app: a folder with `pyproject.toml`, a ServerApp, a ClientApp and the resolved config.

Files of the user's own that the config names, such as `my_method.py:MyMethod`, become modules of the app and travel
with it. Data and checkpoints do not: an app may have ten megabytes, and data stay where they are.
"""

import json
import keyword
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flsim.config.load import load_config, to_yaml
from flsim.config.schema import Config, ConfigError, EngineConfig
from flsim.files import write_atomically
from flsim.loop.place import CONFIG

_TEMPLATE = Path(__file__).parent / "template"
_FORMS = {"pyproject.toml": "app.toml", "README.md": "README.md"}
_MODULE = '''"""The {Side}App that `flwr` loads; flsim has the rest."""

from pathlib import Path

from flsim.federation.{where} import {name}

app = {name}(Path(__file__).parent)
'''
_PARTS = {"server": ("server", "server_app"), "client": ("node", "NodeApp")}
_PLUG_IN = re.compile(r"(?P<file>.+\.py):(?P<name>\w+)")
_PLACES = ("path", "adapter", "root", "model", "file", "cache")  # keys that may name a file or a folder
_LONGEST_NAME = 40
_TIMEOUT_S = 3600.0
"""Seconds that a round waits for its devices where the config waits for ever: a device may never come back."""


@dataclass(frozen=True)
class App:
    """A Flower app that was written."""

    folder: Path
    config: Config
    """Of the run, as nodes and server read it."""
    places: tuple[str, ...]
    """Files and folders outside of the app that must be on the server and on every node."""


def write_app(config: Config, folder: Path) -> App:
    """Write the app of a run.

    Args:
        config: of the run, which has been checked.
        folder: where it goes; it may be there if it is empty.

    Raises:
        ConfigError: for what a federation cannot do, a folder that is in use, and files that cannot travel.
        UnwritableError: if it cannot be written.
    """
    refuse_unfit(config)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ConfigError(f"FOLDER={str(folder)!r} is there already and not empty; name another, or delete it")
    words = re.findall(r"[a-z0-9]+", config.name.lower()) or ["run"]
    package = "_".join([*words, "app"]) if words[0][0].isalpha() else "_".join(["run", *words, "app"])
    modules, places = _Modules(package), list[str]()
    text = to_yaml(_federated(config, modules, places))
    run_dir = str(config.folder.absolute())
    marks = {
        "MY_PACKAGE": package,
        "MY-APP": package.replace("_", "-")[:_LONGEST_NAME].strip("-"),
        "MY_RUN_DIR": json.dumps(run_dir, ensure_ascii=False)[1:-1],  # a text of TOML is one of JSON, too
        "MY_FOLDER": run_dir,
        "MY_DEVICES": str(config.fleet.devices),
        "MY_ROUNDS": str(config.rounds),
        "MY_PLACES": _told(places),
    }
    files = {name: _filled((_TEMPLATE / form).read_text(), marks) for name, form in _FORMS.items()}
    files[f"{package}/__init__.py"] = f'"""The Flower app of {config.name}."""\n'
    for side, (where, name) in _PARTS.items():
        files[f"{package}/{side}_app.py"] = _MODULE.format(Side=side.title(), where=where, name=name)
    files |= {f"{package}/{name}.py": file.read_text() for name, file in modules.files.items()}
    files[f"{package}/{CONFIG}"] = text
    for name, content in files.items():
        write_atomically(folder / name, content.encode(), what="the Flower app")
    return App(folder, load_config(folder / package / CONFIG), tuple(places))


def refuse_unfit(config: Config) -> None:
    """Refuse what makes no sense on a real federation.

    Raises:
        ConfigError: naming it and the mend.
    """
    if config.system is not None:
        raise ConfigError(
            "system puts devices into virtual time, and a federation has a clock of its own; leave it out (system=null)"
        )
    if config.warmup.steps:
        raise ConfigError(
            f"warmup.steps={config.warmup.steps} is a warm-up that the server makes in its own folder, where no node "
            f"sees it; make it once by flsim warmup CONFIG FOLDER, bring the folder to every node, and set "
            f"model.adapter=FOLDER warmup.steps=0"
        )


class _Modules:
    """The files of the user's own that become modules of the app."""

    def __init__(self, package: str) -> None:
        self.package = package
        self.files: dict[str, Path] = {}

    def take(self, file: Path, name: str) -> str:
        """A plug-in as the app names it: `my_method.py:MyMethod` becomes `my_app.my_method:MyMethod`."""
        stem = file.stem
        known = self.files.setdefault(stem, file.resolve())
        taken = {f"{side}_app" for side in _PARTS} | {"__init__"}
        if not stem.isidentifier() or keyword.iskeyword(stem) or stem in taken:
            raise ConfigError(
                f"{file}:{name} cannot be a module of the app, whose name has letters, digits and underscores "
                f"alone and is no other's; give the file another name, such as my_{name.lower()}.py"
            )
        if stem.startswith("test_") or stem.endswith("_test"):
            raise ConfigError(f"{file}:{name}: Flower leaves files of tests out of an app; give the file another name")
        if known != file.resolve():
            raise ConfigError(f"{file} and {known} would be one module of the app; give one of them another name")
        return f"{self.package}.{stem}:{name}"


def _federated(config: Config, modules: _Modules, places: list[str]) -> Config:
    """A config as server and nodes read it, wherever they do."""

    def of_text(key: str, text: str) -> str:
        named = _PLUG_IN.fullmatch(text)
        if named is not None and Path(named["file"]).is_file():
            return modules.take(Path(named["file"]), named["name"])
        if key in _PLACES and os.path.exists(text):
            places.append(str(Path(text).absolute()))
            return places[-1]
        return text

    engine = EngineConfig(
        kind="local",
        workers=1,
        pack=1,
        stream=config.engine.stream,
        timeout_s=_TIMEOUT_S if config.engine.timeout_s is None else config.engine.timeout_s,
    )
    plain = replace(config, engine=engine, run_dir=str(config.folder.absolute()))
    parts: dict[str, Any] = {
        name: _changed(getattr(plain, name), of_text) for name in ("client", "strategy", "stage", "track")
    }
    data = {
        name: replace(one, **{key: _changed(value, of_text, key) for key, value in vars(one).items()})
        for name, one in plain.data.items()
        if any(name in phase for phase in plain.stream.phases)
    }
    cloud = replace(plain.cloud, **{key: _changed(value, of_text, key) for key, value in vars(plain.cloud).items()})
    model = replace(
        plain.model, **{key: _changed(getattr(plain.model, key), of_text, key) for key in ("path", "adapter")}
    )
    return replace(plain, data=data, cloud=cloud, model=model, **parts)


def _changed(value: Any, of_text: Callable[[str, str], str], key: str = "") -> Any:
    """A setting in which every text was looked at."""
    if isinstance(value, str):
        return of_text(key, value)
    if isinstance(value, dict):
        return {name: _changed(one, of_text, name) for name, one in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_changed(one, of_text, key) for one in value)
    return value


def _filled(text: str, marks: dict[str, str]) -> str:
    """A template with its marks filled in, in one go, so that no value is taken for a mark."""
    return re.sub("|".join(map(re.escape, sorted(marks, key=len, reverse=True))), lambda found: marks[found[0]], text)


def _told(places: list[str]) -> str:
    if not places:
        return ""
    listed = "\n".join(f"    {place}" for place in dict.fromkeys(places))
    return (
        f"\nThese are no part of the app: they must be on the server, and on every node there or where its own "
        f"`--node-config` says\n(such as `'model.path=\"/models/mine\"'`):\n\n{listed}"
    )
