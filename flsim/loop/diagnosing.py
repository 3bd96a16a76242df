"""Diagnose a run: what its rows say, together with the facts of its config."""

from pathlib import Path
from typing import Any

from flsim.config.load import load_config
from flsim.config.plugins import resolve
from flsim.config.schema import Config, ConfigError
from flsim.diagnosis.finding import Finding
from flsim.diagnosis.seen import Facts
from flsim.diagnosis.table import findings_of
from flsim.loop.facts import OF_THE_CLASS, facts_with
from flsim.loop.place import CONFIG
from flsim.loop.watch import SaysIfItAsks
from flsim.metrics.rows import read_compact
from flsim.storage.looking import run_folder


def diagnose(run: str | Path | Any) -> tuple[Finding, ...]:
    """What is wrong with a run, finished or not, of this release or an older one.

    Args:
        run: its folder, its address, or what `flsim.run` returned.

    Returns:
        The worst first.

    Raises:
        ConfigError: if there is no run, or none of its rounds has ended.
        DamagedFileError: if its rows cannot be read.
    """
    folder = run_folder(run) if isinstance(run, str | Path) else Path(run.folder)
    if not (folder / CONFIG).is_file():
        raise ConfigError(f"{folder} is no run: it has no {CONFIG}; give the folder of a run, such as runs/demo-seed0")
    try:
        rows = read_compact(folder)
    except FileNotFoundError as error:
        raise ConfigError(f"{folder} has no rows yet: none of its rounds has ended; go on with it first") from error
    return findings_of(rows, facts_of(load_config(folder / CONFIG)))


def facts_of(config: Config, client: object | None = None) -> Facts:
    """What a run's config says that its rows do not.

    Args:
        config: of the run.
        client: what ran its devices; None asks the class that `client.path` names, and of one that cannot be found
            nothing is known.
    """
    try:
        named = resolve("client.path", str(config.client["path"]))
    except ConfigError:
        named = None
    may_ask, dual_max, dual_lr = (getattr(named, name, None) for name in OF_THE_CLASS)
    learns = client.learns_to_ask if isinstance(client, SaysIfItAsks) else bool(may_ask) and client is None
    return facts_with(config, learns_to_ask=learns, dual_max=dual_max, dual_lr=dual_lr)
