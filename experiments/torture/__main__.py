"""Try to break flsim: kill its processes, fill its disk, damage its files, ask more than its caps allow.

Examples:
  flsim torture                      # the whole campaign, about 30 minutes on two cores
  flsim torture drivers damage       # some of its families
  flsim torture --scale 0.1 --seed 7 # a tenth of the trials, at other moments
  flsim torture --list               # the families

A trial counts as survived if the run's rows are bit for bit those of a run left in peace, and as refused if it ends
with one sentence and a status other than 0, and nothing is lost; everything else is lost, and the command then ends
with status 1. The trials are written to ROOT/trials.jsonl as they end, and the table to ROOT/table.md.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from experiments.command.terminal import Parser, listed
from experiments.torture import caps, damage, fuzz, kills, places
from experiments.torture.trial import LOST, SKIPPED, Ground, Trial, table
from flsim.text import aligned, markdown_table

FAMILIES: Mapping[str, Callable[[Ground], Iterator[Trial]]] = {
    "drivers": kills.drivers,
    "workers": kills.workers,
    "ray": kills.ray_itself,
    "signals": kills.signals,
    "stopped": kills.stopped,
    "twice": kills.twice,
    "clocks": kills.clocks,
    "full": places.full,
    "read-only": places.read_only,
    "odd": places.odd,
    "damage": damage.files,
    "caps": caps.greedy,
    "clouds": caps.dying,
    "fuzz": fuzz.properties,
}


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    parser = Parser("torture", __doc__)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help="some of the families; none given means all")
    parser.add_argument("--seed", type=int, default=0, help="decides every moment and every byte (default 0)")
    parser.add_argument("--scale", type=float, default=1.0, help="part of the trials to make (default 1)")
    parser.add_argument("--root", type=Path, default=Path("runs/torture"), help="folder for all of it; it is emptied")
    parser.add_argument("--list", action="store_true", help="say what the families are, and do nothing")
    args = parser.parse_args(arguments)
    if args.list:
        print(listed([(name, (family.__doc__ or "").strip()) for name, family in FAMILIES.items()]))
        return 0
    for name in args.families:
        if name not in FAMILIES:
            parser.error(f"there is no family {name!r}; there are {', '.join(FAMILIES)}")
    if not 0 < args.scale <= 100:
        parser.error(f"--scale {args.scale} must be above 0 and at most 100")
    if args.root.exists() and any(args.root.iterdir()) and not (args.root / "trials.jsonl").exists():
        parser.error(f"--root {args.root} holds something that is not a campaign's; name another folder")
    shutil.rmtree(args.root, ignore_errors=True)
    args.root.mkdir(parents=True)
    return _campaign(Ground(args.root.resolve(), args.seed, args.scale), args.families or list(FAMILIES))


def _campaign(ground: Ground, families: list[str]) -> int:
    """Make the trials, say what was lost as it is, and the table at the end."""
    began, trials = time.monotonic(), list[Trial]()
    with (ground.root / "trials.jsonl").open("w") as file, tqdm(total=len(families), unit="family") as bar:
        for name in families:
            bar.set_description(name)
            for trial in FAMILIES[name](ground):
                trials.append(trial)
                file.write(json.dumps(asdict(trial)) + "\n")
                file.flush()
                bar.set_postfix(trials=len(trials))
                if trial.outcome in (LOST, SKIPPED):
                    bar.write(f"{trial.outcome}: {trial.family}, {trial.what}: {trial.note}")
            bar.update()
    lines = table(trials)
    (ground.root / "table.md").write_text(markdown_table(lines) + "\n")
    print("\n".join(aligned(lines)))
    print(
        f"\nseed {ground.seed}, {(time.monotonic() - began) / 60:.0f} min; every trial: {ground.root / 'trials.jsonl'}"
    )
    return int(any(trial.outcome == LOST for trial in trials))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
