"""The ServerApp: a run as ever, whose devices are the nodes of a federation. Its folder lies where the ServerApp runs.

What `[tool.flwr.app.config]`, and so `flwr run --run-config`, may say:

    run-dir="/data/runs/mine"     the run's folder on the server
    resume=true                   go on with the run that is there, if there is one
    wait-s=600.0                  how long to wait for the nodes of all devices
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from flsim.config.load import load_config
from flsim.config.schema import Config, ConfigError
from flsim.federation.grid import NodeGrid
from flsim.loop.checkpoints import paths
from flsim.loop.folder import FEDERATION
from flsim.loop.place import CONFIG
from flsim.loop.run import Run, run

RUN_DIR, RESUME, WAIT = "run-dir", "resume", "wait-s"
"""Keys of the app's config."""


def server_app(folder: Path) -> ServerApp:
    """What `[tool.flwr.app.components] serverapp` names.

    Args:
        folder: of the app, with its `config.yaml`.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        done = serve(folder, grid, context.run_config)
        print(f"done: {done.report}")

    return app


def serve(folder: Path, grid: Grid, given: Mapping[str, object]) -> Run:
    """Carry the run out.

    Args:
        folder: of the app.
        grid: Flower's.
        given: the app's config.

    Raises:
        ConfigError: as for `flsim.run`, for settings of the app, and if devices have no node.
    """
    where, wait_s = given.get(RUN_DIR), given.get(WAIT)
    if not isinstance(wait_s, int | float) or isinstance(wait_s, bool) or wait_s < 0:
        raise ConfigError(f"wait-s={wait_s!r} must be a number of seconds, at least 0, such as wait-s=600.0")
    if not isinstance(where, str) or not Path(where).is_absolute():
        raise ConfigError(f'run-dir={where!r} must be the whole path of a folder, such as run-dir="/data/runs/mine"')
    config = replace(load_config(folder / CONFIG), run_dir=where)
    on = NodeGrid(grid, config.folder, config.fleet.devices, model=config.model.path, wait_s=float(wait_s))
    if given.get(RESUME) is True and _is_begun(config):
        return run(config, resume=config.folder, progress=False, on=on)
    return run(config, progress=False, on=on)


def _is_begun(config: Config) -> bool:
    """Whether there is a run to go on with.

    Raises:
        ConfigError: if it is a simulation's, whose states no node has.
    """
    begun = bool(paths(config.folder))
    if begun and not (config.folder / FEDERATION).is_file():
        raise ConfigError(
            f"run-dir={str(config.folder)!r} holds a simulated run, whose devices' states no node has; give another "
            f"run-dir, or go on with it by flsim resume {config.folder}"
        )
    return begun or (config.folder / CONFIG).is_file()
