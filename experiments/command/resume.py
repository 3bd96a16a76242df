"""Go on with a run that was stopped, after the last round that it finished.

Examples:
  flsim resume runs/demo-seed0
  flsim resume runs/demo-seed0 --until 12      # no further for now
  flsim resume runs/demo-seed0 engine.workers=4
  flsim resume 's3://bucket/runs/demo'         # on any machine

Its rows are those of a run that was never stopped. Only settings that change no result may differ from the run's own:
engine.kind, engine.workers, engine.address, how the cloud is reached. A finished run gets its report again.
"""

from functools import partial

import flsim
from experiments.command.diagnose import add_fail_on
from experiments.command.ending import told
from experiments.command.terminal import Parser


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    parser = Parser("resume", __doc__, settings=True)
    parser.add_argument("run", metavar="RUN", help="the run's folder, such as runs/demo-seed0, or its address")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings of where it runs")
    parser.add_argument("--until", type=int, metavar="ROUND", help="stop after this round")
    add_fail_on(parser)
    args = parser.parse_intermixed_args(arguments)
    from flsim.loop.place import folder_of, refuse_nowhere  # not above: `flsim resume --help` need not wait for it

    refuse_nowhere(args.run)  # a run will do so again, but only after seconds of imports
    go_on = partial(flsim.run, None, args.settings, resume=args.run, until=args.until)
    return told(go_on, folder_of(args.run), goes_on=True, fail_on=args.fail_on)
