"""Measure speed and memory: one table, and what was measured.

Examples:
  flsim benchmark real
  flsim benchmark round
  flsim benchmark peers --devices 1 4 --repeats 1
  flsim benchmark peers --prompts 1 8
  flsim benchmark limit --packs 8
  flsim benchmark prefix --clock cpu
  flsim benchmark scale --devices 100 --learners
  flsim benchmark population --devices 1000 1000000
  flsim benchmark flights --in-flight 100 10000
  flsim benchmark writers
  flsim benchmark gpu --minutes 8
  flsim benchmark aggregation --devices 30
  flsim benchmark cloud --dtypes float32 bfloat16
  flsim benchmark data --ratings 100000
  flsim benchmark collaboration --lengths 0 2 4 8
  flsim benchmark tracking --sides tensorboard wandb
  flsim benchmark reporting --devices 100
  flsim benchmark all --quick
"""

import argparse
import importlib
import sys

from experiments.command.terminal import listed, no_such, prose
from experiments.command.walk import purpose_of

BENCHMARKS = (
    "real",
    "round",
    "peers",
    "limit",
    "prefix",
    "scale",
    "population",
    "flights",
    "writers",
    "gpu",
    "aggregation",
    "cloud",
    "data",
    "collaboration",
    "tracking",
    "reporting",
    "all",
)
"""Modules beside this one, each with a docstring that teaches, `arguments(parser)` and `main(args)`."""


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status. Only the benchmark that is named is imported: torch takes seconds."""
    given = sys.argv[1:] if arguments is None else arguments
    if not given or given[0] in ("-h", "--help"):
        names = listed([(name, purpose_of(f"{__package__}.{name}")) for name in BENCHMARKS])
        print(f"{prose(__doc__)}\n\nBenchmarks (flsim benchmark NAME --help says more)\n{names}")
        return 0
    name, *rest = given
    if name not in BENCHMARKS:
        return no_such("benchmark", name, BENCHMARKS)
    module = importlib.import_module(f"{__package__}.{name}")
    parser = argparse.ArgumentParser(
        prog=f"flsim benchmark {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.arguments(parser)
    module.main(parser.parse_intermixed_args(rest))
    return 0


if __name__ == "__main__":
    sys.exit(main())
