"""Run one device's round again, alone and in this process, and compare it bit for bit with the run.

Examples:
  flsim replay runs/demo-seed0 round=12 device=device-007
  flsim replay runs/demo-seed0 device=7                        # the last round
  flsim replay runs/demo-seed0 round=12 device=7 --pdb         # stop where the device learns
  flsim replay runs/demo-seed0 round=12 device=7 engine.kind=local

It exits with 0 if all that the device measured, and the state that it left, is what the run has of it, and with 1 if
not: then it lists what differs, by name. Devices that are trained in one pack are answered together, as they were.

A run keeps the state before its last round. That before an earlier one is made first: the rounds up to there are run
again, which gives the same bits, in RUN/replays or where --folder says. It says beforehand how long that will take.
What was made stays for the next replay; delete the folder whenever you like. Nothing else of the run is changed.
Answers of the cloud come from its cache; where one is missing and a cloud costs money, it stops, unless you add
--again. Settings of where a run runs, such as engine.workers=4, hold for the rounds before.

In a debugger:
  --pdb         stops at the first line of the client's local_update, with the pack as `devices` and the models as
                `world` (of a client that has none, where its answer begins), and where it raises; help says more
  breakpoint()  in your own code works without --pdb, too: there are no workers, all runs in this process
  an IDE        runs the module flsim with the arguments `replay RUN round=12 device=7`; in VS Code's launch.json:

    {"type": "debugpy", "request": "launch", "module": "flsim", "justMyCode": false,
     "args": ["replay", "runs/demo-seed0", "round=12", "device=7"]}

  and set breakpoints in your learner; they are hit in the rounds before, too, if these have to be made with
  engine.kind=local: let a first replay without a debugger make them.

A run that was given objects, such as flsim.run(..., strategy=MyStrategy()), is replayed from Python:
flsim.loop.rerun:rerun takes the same ones.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.command.terminal import Parser, bold, green, paragraph, red
from experiments.command.wanted import wanted

if TYPE_CHECKING:  # these take seconds
    from flsim.loop.before import Before
    from flsim.loop.rerun import Rerun

_SHOWN = 40  # differences that are listed


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status: 0, 1 if anything differs, 2 for what a user can mend."""
    parser = Parser("replay", __doc__)
    parser.add_argument("run", metavar="RUN", help="the run's folder, such as runs/demo-seed0, or its address")
    parser.add_argument("given", nargs="*", metavar="key=value", help="round=, device=, and settings of where it runs")
    parser.add_argument("--pdb", action="store_true", help="stop in the debugger where the device learns")
    parser.add_argument("--again", action="store_true", help="pay for answers of the cloud that are not kept")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where rounds before are made (RUN/replays)")
    args = parser.parse_intermixed_args(arguments)
    from flsim.storage.looking import run_folder  # not above: `flsim replay --help` need not wait for numpy

    what = wanted(run_folder(args.run, whole=True), args.given)
    if what.device is None:
        parser.error("say which device, such as device=7; flsim why RUN lists those of a round")

    from flsim.loop.before import state_before  # not above: `flsim replay --help` need not wait for torch
    from flsim.loop.rerun import rerun
    from flsim.metrics.lookup import device_of, round_of
    from flsim.metrics.rows import read_rows

    rows = read_rows(what.run)
    round_ = round_of(rows, what.round, what.run)
    device = device_of(rows, what.device, round_, what.run)
    before = state_before(what.run, round_, args.folder)
    print(paragraph(_announced(before)), file=sys.stderr)
    found = rerun(before, device, what.rest, pays=args.again, debug=args.pdb)
    print(told(found))
    return int(bool(found.differences))


def _announced(before: "Before") -> str:
    """What has to be done first, and how long that takes."""
    from flsim.text import seconds

    if before.is_complete:
        place = "is copied" if before.source != before.folder else "lies ready"
        return f"The state before round {before.round} {place}: {before.folder}."
    took = "" if before.seconds is None else f", which took the run {seconds(before.seconds)}"
    first, last = before.reached + 1, before.round - 1
    rounds = f"Round {last} is" if first == last else f"Rounds {first} to {last} are"
    return f"{rounds} run again first{took}; the state after them is kept in {before.folder}."


def told(found: "Rerun") -> str:
    """What came of it, in sentences."""
    from flsim.devices import device_name

    before, pack = found.before, found.answered.pack
    with_whom = [device_name(one) for one in pack if one != found.device]
    beside = f", in one pack with {', '.join(with_whom)}" if with_whom else ""
    lines = [bold(f"{device_name(found.device)} in round {before.round} of {before.run}")]
    lines.append(paragraph(f"The round was run again in this process{beside}."))
    lines += [paragraph(f"{line[0].upper()}{line[1:]}.") for line in found.earlier]
    was, now = found.set_aside
    if now is not None:
        lines.append(paragraph(f"The device is set aside, {now}: {found.answered.reply.error.reason}"))
    if found.answered.trace:
        lines.append("\n" + "\n".join(f"    {line}" for line in found.answered.trace.rstrip().splitlines()) + "\n")
    if was is not None and not found.heard:
        lines.append(paragraph(f"The run set it aside, {was}, and has nothing of its reply to compare with."))
    wrong = found.differences
    if wrong:
        lines.append(paragraph(red(f"{len(wrong)} of its {_what(found)} differ:")))
        lines += [f"    {line}" for line in wrong[:_SHOWN]]
        lines += [f"    and {len(wrong) - _SHOWN} more"] if len(wrong) > _SHOWN else []
    else:
        lines.append(paragraph(green(f"Its {_what(found)} are equal to the bit.")))
    lines += [paragraph(_of_others(found))]
    return "\n".join(lines)


def _what(found: "Rerun") -> str:
    """What is compared."""
    rows = f"{len(found.compared[0])} rows"
    return rows if found.same_state is None else f"{rows} and the state that it left"


def _of_others(found: "Rerun") -> str:
    """What is not compared, and why."""
    from flsim.loop.rerun import OF_SERVER

    names = sorted(set(found.recorded["name"]) & (OF_SERVER - {"set_aside"}))
    said = f"Not compared: {', '.join(names)}, which the server works out once all have replied. " if names else ""
    if found.same_state is None:
        said += "The state that it left is not compared either: the run keeps that of the last round alone. "
    return said + f"The state before the round lies in {found.before.folder}."
