"""Run one simulation: a config, and settings that go over it.

Examples:
  flsim run demo                     # a config that ships, by its name
  flsim run demo seed=1 budget.tau=0.5 run_dir=runs/half
  flsim run demo --until 4           # the first 4 of its rounds for now
  flsim run demo --fail-on fault     # exit status 1 if the run is worthless (flsim diagnose --help)
  flsim run my_config.yaml strategy.path=my_strategy.py:MyStrategy
  flsim run demo run_dir='s3://bucket/runs/demo'     # in an object store (docs/storage.md)

  flsim list configs                 # the configs that ship
  flsim explain                      # every key with its default
  flsim explain budget.tau           # one key: what it means, who reads it

A run writes its folder, ./runs/NAME-seedSEED unless run_dir=... names another: config.yaml, rows/, adapter/,
summary.json, plots/ and report.html. It is committed after every round: stop it with Ctrl-C, or kill it, and
flsim resume goes on.
"""

import flsim
from experiments.command.diagnose import add_fail_on
from experiments.command.ending import told
from experiments.command.terminal import Parser


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    parser = Parser("run", __doc__, settings=True)
    parser.add_argument(
        "config", nargs="?", metavar="CONFIG", help="a name (flsim list configs) or a YAML file of your own"
    )
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings that go over the file's")
    parser.add_argument("--until", type=int, metavar="ROUND", help="stop after this round")
    add_fail_on(parser)
    args = parser.parse_intermixed_args(arguments)
    if args.config is None or "=" in args.config:
        parser.error("give a config first, such as demo or my_config.yaml")
    config = flsim.load_config(args.config, args.settings)
    from experiments.command.first_look import first_look  # not above: `flsim run --help` need not wait for pandas
    from flsim.loop.place import home_of

    first_look(config, args.until)
    return told(lambda: flsim.run(config, until=args.until), home_of(config), fail_on=args.fail_on)
