"""The folder of a run: opened once, found again on resume, and described for whoever reads it later."""

import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path

from flsim.cloud.make import free_settings
from flsim.config.load import differences, load_config, to_yaml
from flsim.config.schema import Config, ConfigError
from flsim.files import write_atomically

_PACKAGES = (
    "flwr",
    "ray",
    "torch",
    "transformers",
    "peft",
    "numpy",
    "omegaconf",
    "openai",
    "pandas",
    "pyarrow",
    "matplotlib",
)


def open_new(config: Config) -> Path:
    """Create the run's folder with its config and environment.

    Raises:
        ConfigError: if the folder already holds something.
    """
    folder = config.folder
    if folder.exists() and any(_is_of_a_run(path) for path in folder.iterdir()):
        raise ConfigError(
            f"the run folder {folder} exists and is not empty; go on with it by flsim resume {folder}, "
            f"choose another by run_dir=..., or delete it"
        )
    machine = json.dumps(_environment(), indent=1).encode()
    write_atomically(folder / "environment.json", machine, what="the run's environment")
    write_atomically(folder / "config.yaml", to_yaml(config).encode(), what="the run's config")
    return folder


def _is_of_a_run(path: Path) -> bool:
    """Not so what a kill leaves before there is a config, with which a run begins."""
    return path.name != "environment.json" and path.suffix != ".part"


def open_again(folder: Path, config: Config | None) -> Config:
    """The config of a run that is resumed.

    Args:
        folder: the run's.
        config: what the caller asks for now; None takes the run's own. Only where it runs may differ.

    Raises:
        ConfigError: if there is no run, or the two configs would give different results.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise ConfigError(f"{folder} is no run to resume (it has no config.yaml); start one with flsim run")
    saved = load_config(path)
    if config is None:
        return saved
    changed = differences(saved, config, free_settings(config.cloud))
    if changed:
        raise ConfigError(
            f"{folder}: the run was started with another config ({'; '.join(changed)}); resume it with its "
            f"own, or start a new run in another run_dir"
        )
    return config


def _environment() -> dict[str, object]:
    return {
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {platform.system()} {platform.release()}",
        "commit": _commit(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def _commit() -> str | None:
    """The commit of the source that runs, with `+` if files were changed since; None outside a checkout."""
    here = Path(__file__).parent
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
        status = subprocess.run(["git", "status", "--porcelain"], cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if status.stdout.strip() else "")
