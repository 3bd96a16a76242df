"""The folder of a run: opened once, found again on resume, and described for whoever reads it later."""

import importlib.metadata
import json
import os
import platform
import subprocess
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from flsim.cloud.make import free_settings
from flsim.config.load import differences, load_config, to_yaml
from flsim.config.schema import Config, ConfigError
from flsim.files import DamagedFileError, called, write_atomically
from flsim.loop.checkpoints import Mark, latest_mark
from flsim.loop.checks import refuse_used
from flsim.loop.place import CONFIG, refuse_no_run

FEDERATION = "federation.json"
"""What a run on a real federation has beside it: its name on its nodes, which keep the devices' states."""
_PACKAGES = (
    "flwr",
    "ray",
    "torch",
    "transformers",
    "peft",
    "numpy",
    "omegaconf",
    "PyYAML",
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
    refuse_used(folder)
    write_atomically(folder / "environment.json", _environment(), what="the run's environment")
    said = config if called(folder) == str(folder) else replace(config, run_dir=called(folder))
    write_atomically(folder / CONFIG, to_yaml(said).encode(), what="the run's config")
    return folder


def open_again(folder: Path, config: Config | None) -> Config:
    """The config of a run that is resumed.

    Args:
        folder: the run's.
        config: what the caller asks for now; None takes the run's own. Only where it runs may differ.

    Raises:
        ConfigError: if there is no run, or the two configs would give different results.
        DamagedFileError: if its own is not the one that it was started with.
    """
    refuse_no_run(folder)
    mark = latest_mark(folder)
    saved = _saved(folder / CONFIG, mark)
    if config is None:
        return saved
    changed = differences(saved, config, free_settings(config.cloud))
    if changed:
        raise ConfigError(
            f"{folder}: the run was started with another config ({'; '.join(changed)}); resume it with its "
            f"own, or start a new run in another run_dir"
        )
    return config


def _saved(path: Path, mark: Mark | None) -> Config:
    """What `config.yaml` says, held against what the newest checkpoint has of it.

    Only settings that change no result may have been changed by hand. A file that was deleted is written again.
    """
    committed = "" if mark is None else mark.config
    if committed and not path.exists():
        write_atomically(path, committed.encode(), what="the run's config")
    mend = f"delete it, and flsim resume {path.parent} writes it again as it was"
    if not committed:
        mend = f"put a copy of it back, or delete {path.parent} and start the run again"
    try:
        text = path.read_text()
        saved = load_config(path)
    except (ConfigError, OSError, UnicodeDecodeError) as error:
        raise DamagedFileError(f"{path} is not the config that the run was started with ({error}); {mend}") from error
    if mark is None and to_yaml(saved) != text:
        raise DamagedFileError(f"{path} is not as the run wrote it, which had not finished a round yet; {mend}")
    if committed not in ("", text):
        with TemporaryDirectory() as scratch:
            (Path(scratch) / CONFIG).write_text(committed)
            changed = differences(load_config(Path(scratch) / CONFIG), saved, free_settings(saved.cloud))
        if changed:
            raise DamagedFileError(f"{path} was changed since the run was started ({'; '.join(changed)}); {mend}")
    return saved


@cache
def _environment() -> bytes:
    """What `environment.json` says; asked once, as what a process has imported stays what it is."""
    machine = {
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {platform.system()} {platform.release()}",
        "commit": source_commit(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }
    return json.dumps(machine, indent=1).encode()


def source_commit() -> str | None:
    """The commit of the source that runs, with `+` if files were changed since; None outside a checkout."""
    here = Path(__file__).parent
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
        status = subprocess.run(["git", "status", "--porcelain"], cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if status.stdout.strip() else "")
