"""Diagnose a run: what its rows say, together with the facts of its config."""

from pathlib import Path
from typing import Any

from flsim.config.load import load_config
from flsim.config.plugins import resolve
from flsim.config.schema import Config, ConfigError
from flsim.config.system import EVERYBODY
from flsim.diagnosis.finding import Finding
from flsim.diagnosis.seen import Facts
from flsim.diagnosis.table import findings_of
from flsim.loop.folder import CONFIG
from flsim.loop.watch import SaysIfItAsks
from flsim.metrics.rows import read_rows
from flsim.tasks.stream import TaskStream

_CARRIES_REST = ("strategies.fedex_lora:", "strategies.flora:")


def diagnose(run: str | Path | Any) -> tuple[Finding, ...]:
    """What is wrong with a run, finished or not, of this release or an older one.

    Args:
        run: its folder, or what `flsim.run` returned.

    Returns:
        The worst first.

    Raises:
        ConfigError: if there is no run, or none of its rounds has ended.
        DamagedFileError: if its rows cannot be read.
    """
    folder = Path(run) if isinstance(run, str | Path) else Path(run.folder)
    if not (folder / CONFIG).is_file():
        raise ConfigError(f"{folder} is no run: it has no {CONFIG}; give the folder of a run, such as runs/demo-seed0")
    try:
        rows = read_rows(folder)
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
    of_class = bool(getattr(named, "may_ask", False))
    learns = client.learns_to_ask if isinstance(client, SaysIfItAsks) else of_class and client is None
    settings = {name: config.client.get(name, getattr(named, name, None)) for name in ("dual_max", "dual_lr")}
    highest = settings["dual_max"] if settings["dual_lr"] else None
    if config.budget.fleet.rule == "price":
        highest = config.budget.fleet.price_max
    end = None if config.system is None else config.system.end
    return Facts(
        phases=TaskStream(config.stream, config.rounds).phases,
        tau=config.budget.tau,
        devices=config.fleet.devices,
        learns_to_ask=learns,
        highest_price=None if highest is None else float(highest),
        carries_rest=str(config.strategy["path"]).startswith(_CARRIES_REST),
        waits_for_all=end is None or end.kind == EVERYBODY,
        max_staleness=None if end is None else end.max_staleness,
    )
