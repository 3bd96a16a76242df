"""Run a few rounds and say where their time went.

Examples:
  flsim profile demo
  flsim profile demo engine.pack=4 engine.workers=4
  flsim profile demo --rounds 3 fleet.devices=64
  flsim profile demo run_dir=runs/look
  flsim profile --run runs/demo-seed0

The first rounds of the config run as they would in the whole run: same devices, same prompts, evaluation in the same
rounds. Then a table says what the mean round spent on each part, and a picture shows every round:

  wall s     the part's piece of the round; the pieces add up to the round
  worker-s   the same summed over the workers, two that train for 1 s make 2
  share      of all worker-seconds, idle ones included

Round 0 only measures, and round 1 also loads and warms up; both are named, and neither is in the mean. Without --rounds
as many rounds run as it takes for one evaluation after the warm-up (at most 9), so that evaluation has its true share.

The run itself is thrown away, and the picture lies in runs/. With run_dir=... the run is kept, has its report, and goes
on with `flsim resume RUN_DIR`. --run RUN_DIR runs nothing and reads what a run has left.
What to do about a large part: docs/profiling.md.
"""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import flsim
from experiments.command.terminal import Parser
from flsim.config.schema import ConfigError
from flsim.timing import read_timings

_MOST_ROUNDS = 9  # unless --rounds asks for more


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    parser = Parser("profile", __doc__, settings=True)
    parser.add_argument("config", nargs="?", metavar="CONFIG", help="a name (flsim list configs) or a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that go over the file's")
    parser.add_argument("--rounds", metavar="N", type=int, help="rounds to run, the warm-up included")
    parser.add_argument("--run", metavar="RUN_DIR", help="read this run instead of running anything")
    parser.add_argument("--picture", metavar="FILE", type=Path, help="where the picture (PNG) goes")
    args = parser.parse_intermixed_args(arguments)
    given = [args.config, *args.overrides] if args.config else []
    if not given and args.run is None:
        parser.error("give a config, such as demo, or --run RUN_DIR")
    if args.run is not None and (given or args.rounds is not None):
        parser.error("--run reads a run as it is: leave out the config, its settings and --rounds")
    if args.rounds is not None and args.rounds < 1:
        parser.error(f"--rounds {args.rounds} must be at least 1; the first is the warm-up")
    if args.run is not None:
        from flsim.storage.looking import run_folder  # not above: --help need not wait for numpy

        run = run_folder(args.run)
        _show(run, args.picture or run / "plots" / "time.png")
    else:
        path = None if "=" in given[0] else given.pop(0)
        profile(path, given, rounds=args.rounds, picture=args.picture)
    return 0


def profile(
    path: str | None, overrides: Sequence[str], *, rounds: int | None = None, picture: Path | None = None
) -> None:
    """Run the first rounds of a config, print where their time went, and draw it.

    Args:
        path: a YAML file or the name of a shipped config; None starts from the defaults.
        overrides: `key=value` over the file; with `run_dir=...` among them the run is kept.
        rounds: how many, the warm-up included; None takes one evaluation's worth after the warm-up, at most 9.
        picture: where it goes; None takes the kept run's plots, or else `runs/profile-NAME-seedSEED.png`.

    Raises:
        ConfigError: for anything wrong in the settings, before long work starts.
    """
    config = flsim.load_config(path, overrides)
    wanted = min(config.evaluation.every_rounds + 1, _MOST_ROUNDS) if rounds is None else rounds
    last = min(config.rounds, wanted)
    print(f"profiling {last} of {config.rounds} rounds of {config.name}", file=sys.stderr)
    if any(override.startswith("run_dir=") for override in overrides):
        kept = flsim.run(config, until=last)
        _show(kept.folder, picture or kept.folder / "plots" / "time.png")
        return
    picture = picture or Path("runs") / f"profile-{config.name}-seed{config.seed}.png"
    with tempfile.TemporaryDirectory(prefix="flsim-profile-") as folder:
        _show(flsim.run(replace(config, run_dir=str(Path(folder) / config.name)), until=last).folder, picture)


def _show(run_dir: Path, picture: Path) -> None:
    """Print the table of a run's rounds and draw them into `picture`."""
    from flsim.charts.breakdown import break_down
    from flsim.metrics.rows import read_rows  # not above: `flsim profile --help` need not wait for matplotlib
    from flsim.report.plot import drawing_style, save_figure
    from flsim.report.table import time_table
    from flsim.report.time_figure import time_figure

    timings = read_timings(run_dir)
    if not timings:
        raise ConfigError(
            f"{run_dir} has no timing/ to read: it is no run, has no finished round, or is older than this command; "
            f"give a run's folder, or profile a config"
        )
    found = break_down(timings)
    print(time_table(found))
    with drawing_style():
        save_figure(time_figure(timings, found), picture)
    print(f"\npicture: {picture}")
    rows = read_rows(run_dir)
    failed = rows.loc[rows["name"] == "set_aside", "task"]
    if len(failed):
        reasons = ", ".join(sorted(set(failed)))
        print(f"note: updates set aside: {len(failed)} ({reasons}); their work is not all above", file=sys.stderr)
