"""Write a run as a Flower app, for Flower's own simulation or a real federation.

Examples:
  flsim flower demo my_app fleet.devices=3
  flsim flower my_config.yaml my_app strategy.path=my_strategy.py:MyStrategy run_dir=/data/runs/mine

  cd my_app && flwr run . --stream --federation-config "num-supernodes=3 client-resources-num-cpus=1"
  flwr run . mine --stream           # on the SuperLink that $FLWR_HOME/config.toml calls mine
  flwr run . mine --stream --run-config 'resume=true'

The app holds the resolved config and the .py files that it names; the folder's README.md has the commands for a
SuperLink and its SuperNodes. A SuperNode is one device: that of its partition-id. The run's folder lies where the
ServerApp runs, with rows, checkpoints and report as after flsim run, and every device's rows are the simulation's with
engine.pack=1, bit for bit. docs/flower.md says what changes between the two.
"""

import shlex
from pathlib import Path

from experiments.command.terminal import Parser, bold


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    parser = Parser("flower", __doc__, settings=True)
    parser.add_argument("config", metavar="CONFIG", help="a name (flsim list configs) or a YAML file of your own")
    parser.add_argument("folder", metavar="FOLDER", help="where the app goes; there may be none yet, or an empty one")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings that go over the file's")
    args = parser.parse_intermixed_args(arguments)
    if "=" in args.folder or "=" in args.config:
        parser.error("give a config and a folder first, such as demo my_app")
    from flsim.config.load import load_config

    config = load_config(args.config, args.settings)
    from flsim.federation.app import refuse_unfit, write_app  # not above: --help need not wait for torch
    from flsim.loop.ready import prepare

    refuse_unfit(config)
    prepare(config, None, None, None, None)  # what is wrong in the settings is told here, and not on the nodes
    app = write_app(config, Path(args.folder))
    there = shlex.quote(str(app.folder))
    nodes = f'"num-supernodes={config.fleet.devices} client-resources-num-cpus=1"'
    print(
        f"{app.folder} is there: a Flower app of {config.fleet.devices} devices; its README.md has the commands. In "
        f"Flower's own simulation:\n\n  {bold(f'cd {there} && flwr run . --stream --federation-config {nodes}')}"
    )
    for place in app.places:
        print(f"\nnot in the app, and needed on the server and on every node: {place}")
    return 0
