r"""Compare finished runs, paired by user and seed.

Runs that differ in nothing but their seeds are of one method; a folder that holds run folders stands for all of them.
All methods need the same stream, budget, test sets, fleet size, rounds, base model, cloud and seeds; what differs is
said.

Example, two methods on two seeds, and what it prints:
  for s in 0 1; do for m in fedavg:FedAvg flex_lora:FlexLora; do
    flsim run demo seed=$s stream.seed=$s \
      strategy.path=strategies.$m name=${m#*:} run_dir=runs/pair/${m#*:}-s$s
  done; done
  flsim compare runs/pair --against FedAvg --out runs/pair-compared

  at the end               accuracy  worst 10 %   alone  accuracy minus FedAvg
  FedAvg        77.1 % (74.9..79.3)      65.8 %  62.0 %
  FlexLora      78.0 % (75.6..80.2)      66.4 %  63.1 %      +0.9 (-0.2..+2.1)
  (made up, and a column left out; a star after an interval: it excludes 0)

The folder then holds page.html, which works offline, and its tables (CSV) and figures (PNG); docs/comparing.md explains
them.
"""

from pathlib import Path

import flsim
from experiments.command.terminal import Parser
from flsim.config.schema import ConfigError


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    parser = Parser("compare", __doc__)
    parser.add_argument("runs", nargs="*", metavar="RUN", help="run folders, folders that hold them, or addresses")
    parser.add_argument("--against", metavar="M", help="method that the others are paired with (default: the first)")
    parser.add_argument(
        "--alone", metavar="M", help="method or bound by which users are harmed (default: the frozen model at random)"
    )
    parser.add_argument("--bounds", nargs="+", default=[], metavar="RUN", help="runs that need only the same test sets")
    parser.add_argument(
        "--measures", nargs="+", metavar="NAME", help="what the table shows over the run (flsim list measures)"
    )
    parser.add_argument(
        "--weighting",
        metavar="W",
        default="uniform",
        help="what users weigh in means and differences: examples, traffic, requests or uniform (default)",
    )
    parser.add_argument(
        "--horizon",
        metavar="H",
        type=float,
        default=1.0,
        help="test prompts that a device meets for each training prompt, where both are counted together (default: 1)",
    )
    parser.add_argument(
        "--spend",
        metavar="S",
        type=float,
        help="cloud calls per prompt, training and test together, at which accuracies are compared (default: tau)",
    )
    parser.add_argument(
        "--target",
        metavar="A",
        type=float,
        help="accuracy of the mean user, such as 0.6, of which is told what it took (default: what M reaches)",
    )
    parser.add_argument(
        "--label", action="append", default=[], metavar="NAME=RUN", help="name of the method of a run; may be repeated"
    )
    parser.add_argument(
        "--out", metavar="FOLDER", type=Path, default=Path("runs/comparison"), help="default: %(default)s"
    )
    args = parser.parse_intermixed_args(arguments)
    if not args.runs and not args.label:
        parser.error("give the folders of finished runs, such as runs/demo-seed0")
    from flsim.comparison.weightings import terminal_table  # not above: `flsim compare --help` need not wait for pandas

    labels = _labels(args.label)
    found = flsim.compare(
        args.runs,
        labels=labels,
        against=args.against,
        alone=args.alone,
        bounds=args.bounds,
        measures=args.measures,
        weighting=args.weighting,
        horizon=args.horizon,
        spend=args.spend,
        target=args.target,
    )
    page, *others = found.write(args.out)
    print(f"page: {page}\n\n{terminal_table(found)}\n\n{args.out}: {', '.join(path.name for path in others)}")
    return 0


def _labels(given: list[str]) -> dict[str, list[str]]:
    """`NAME=RUN` texts by name."""
    labels: dict[str, list[str]] = {}
    for text in given:
        name, sign, run = text.partition("=")
        if not (name and sign and run):
            raise ConfigError(f"--label {text!r} must be NAME=RUN, such as --label mine=runs/demo-seed0")
        labels.setdefault(name, []).append(run)
    return labels
