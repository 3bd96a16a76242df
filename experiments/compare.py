r"""Compare finished runs, paired by user and seed: `python -m experiments.compare RUN ...`.

Runs that differ in nothing but their seeds are of one method; a folder that holds run folders stands for all of them.
All methods need the same stream, budget, test sets, fleet size, rounds, base model, cloud and seeds; what differs is
said.

Example, two methods on two seeds, and what it prints:
  for s in 0 1; do for m in fedavg:FedAvg flex_lora:FlexLora; do
    python -m experiments.run experiments/configs/demo.yaml seed=$s stream.seed=$s \
      strategy.path=strategies.$m name=${m#*:} run_dir=runs/pair/${m#*:}-s$s
  done; done
  python -m experiments.compare runs/pair --against FedAvg --out runs/pair-compared

  at the end               accuracy  worst 10 %   alone  test usage  accuracy minus FedAvg
  FedAvg        77.1 % (74.9..79.3)      65.8 %  62.0 %      24.1 %
  FlexLora      78.0 % (75.6..80.2)      66.4 %  63.1 %      23.9 %      +0.9 (-0.2..+2.1)
  (the numbers are made up; a star after the interval means that it excludes 0)

The folder then holds page.html, which works offline, and its tables (CSV) and figures (PNG); docs/comparing.md explains
them.
"""

import argparse
import sys
from pathlib import Path

from flsim import ConfigError, compare
from flsim.comparison.table import terminal_table
from flsim.files import DamagedFileError


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", type=Path, help="run folders, or folders that hold them")
    parser.add_argument("--against", metavar="M", help="method that the others are paired with (default: the first)")
    parser.add_argument(
        "--alone", metavar="M", help="method or bound by which users are harmed (default: the frozen model at random)"
    )
    parser.add_argument(
        "--bounds", nargs="+", default=[], metavar="RUN", type=Path, help="runs that need only the same test sets"
    )
    parser.add_argument(
        "--label", action="append", default=[], metavar="NAME=RUN", help="name of the method of a run; may be repeated"
    )
    parser.add_argument(
        "--out", metavar="FOLDER", type=Path, default=Path("runs/comparison"), help="default: %(default)s"
    )
    args = parser.parse_intermixed_args(arguments)
    if not args.runs and not args.label:
        parser.error("give the folders of finished runs, such as runs/demo-seed0 (--help explains)")
    try:
        found = compare(
            args.runs, labels=_labels(args.label), against=args.against, alone=args.alone, bounds=args.bounds
        )
    except (ConfigError, DamagedFileError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    page, *others = found.write(args.out)
    print(f"page: {page}\n\n{terminal_table(found)}\n\n{args.out}: {', '.join(path.name for path in others)}")
    return 0


def _labels(given: list[str]) -> dict[str, list[Path]]:
    """`NAME=RUN` texts by name."""
    labels: dict[str, list[Path]] = {}
    for text in given:
        name, sign, run = text.partition("=")
        if not (name and sign and run):
            raise ConfigError(f"--label {text!r} must be NAME=RUN, such as --label mine=runs/demo-seed0")
        labels.setdefault(name, []).append(Path(run))
    return labels


if __name__ == "__main__":
    sys.exit(main())
