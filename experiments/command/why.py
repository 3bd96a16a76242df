"""Say in plain words what happened to a device in a round, or to all of a round, from the records of a run.

Examples:
  flsim why runs/demo-seed0                               # the last round, and its devices in a table
  flsim why runs/demo-seed0 round=12
  flsim why runs/demo-seed0 round=12 device=device-007    # or device=7
  flsim why runs/demo-seed0 round=12 device=7 --json      # the same as data

Of a device it says what it met, sampled, asked, was granted and earned, how its price of asking moved, what it cost,
how its update was weighed and what that changed, and why it was set aside if it was. All of it stands in the run's
rows, or follows from its config; what does not is said to be not recorded, with the setting that would record it.

flsim replay runs/demo-seed0 round=12 device=7 runs that round of the device again, in a debugger if you like.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.command.terminal import Parser, bold, paragraph
from experiments.command.walk import find
from experiments.command.wanted import wanted
from flsim.config.load import load_config

if TYPE_CHECKING:  # it takes a second
    from flsim.config.schema import Config
    from flsim.metrics.one_round import Records


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    parser = Parser("why", __doc__)
    parser.add_argument("run", metavar="RUN", help="the run's folder, such as runs/demo-seed0, or its address")
    parser.add_argument("given", nargs="*", metavar="key=value", help="round= and device=")
    parser.add_argument("--json", action="store_true", help="print the facts as JSON, for programs")
    args = parser.parse_intermixed_args(arguments)
    from flsim.storage.looking import run_folder  # not above: `flsim why --help` need not wait for numpy

    what = wanted(run_folder(args.run), args.given)
    if what.rest:
        parser.error(f"{what.rest[0].partition('=')[0]} is no part of a question; round= and device= are")

    from flsim.devices import device_name  # not above: `flsim why --help` need not wait for pandas
    from flsim.files import called
    from flsim.metrics.lookup import device_of, round_of
    from flsim.metrics.whole_round import facts_of_round

    config, name = load_config(what.run / "config.yaml"), called(what.run)
    records = records_of(what.run, config)
    round_ = round_of(records.rows, what.round, what.run)
    if what.device is None:
        facts = facts_of_round(records, round_)
        print(json.dumps(facts, indent=1) if args.json else _of_round(facts, name))
        return 0
    device = device_of(records.rows, what.device, round_, what.run)
    facts = records.of_round(round_).of_device(device_name(device)).facts()
    print(json.dumps(facts, indent=1) if args.json else _of_device(facts, name, config))
    return 0


def records_of(run: Path, config: "Config") -> "Records":
    """What a run has to say."""
    from flsim.metrics.one_round import Records
    from flsim.metrics.rows import read_rows
    from flsim.tasks.stream import TaskStream

    log = run / "run.log"
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    stream = TaskStream(config.stream, config.rounds)  # phases and mixtures need no data
    return Records(read_rows(run), stream, config.budget, config.evaluation, _first_dual(config), lines)


def _first_dual(config: "Config") -> float | None:
    """What lambda starts from: as the config says, else as the class does whose source ships; None if neither."""
    given = config.client.get("dual_init")
    if given is None:
        try:
            settings = find(str(config.client["path"])).settings()
        except LookupError:
            return None
        given = next((one.default for one in settings if one.name == "dual_init"), None)
    return None if given is None else float(given)


def _of_device(facts: dict[str, object], run: str, config: "Config") -> str:
    from flsim.report.one_round import told

    lines = [bold(f"{facts['device']} in round {facts['round']} of {run}")]
    for about, text in told(facts, config.evaluation):
        lines += [bold(about), paragraph(text)]
    if facts["learned"]:  # else it was another round of it
        lines += ["", f"To run it again: flsim replay {run} round={facts['round']} device={facts['device']}"]
    return "\n".join(lines)


def _of_round(facts: dict[str, object], run: str) -> str:
    from flsim.report.whole_round import table_of_round, told_of_round

    lines = [bold(f"round {facts['round']} of {run}")]
    for about, text in told_of_round(facts):
        lines += [bold(about), paragraph(text)]
    table, left_out = table_of_round(facts)
    lines += ["", *table]
    if left_out:
        lines.append(f"and {left_out} more, which earned more; --json has all")
    return "\n".join([*lines, "", f"Of one of them: flsim why {run} round={facts['round']} device=NAME"])
