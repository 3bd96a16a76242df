"""Measure speed: `python -m experiments.benchmark NAME` prints one table and what was measured.

Examples:
  python -m experiments.benchmark round
  python -m experiments.benchmark peers --devices 1 4 --repeats 1
  python -m experiments.benchmark peers --prompts 1 8
  python -m experiments.benchmark limit --packs 8
  python -m experiments.benchmark prefix --clock cpu
  python -m experiments.benchmark scale --devices 100 --learners
  python -m experiments.benchmark gpu --devices 1 8
  python -m experiments.benchmark aggregation --devices 30
  python -m experiments.benchmark cloud --dtypes float32 bfloat16
"""

import argparse
from collections.abc import Sequence
from types import ModuleType

from experiments.benchmark import aggregation, cloud, gpu, limit, peers, prefix, round, scale

BENCHMARKS: dict[str, ModuleType] = {
    "round": round,
    "peers": peers,
    "limit": limit,
    "prefix": prefix,
    "scale": scale,
    "gpu": gpu,
    "aggregation": aggregation,
    "cloud": cloud,
}
"""Each has a docstring that teaches, `arguments(parser)` and `main(args)`."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmark",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    for name, module in BENCHMARKS.items():
        doc = module.__doc__ or ""
        first = doc.splitlines()[0].rstrip(".")
        own = names.add_parser(name, help=first, description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
        module.arguments(own)
    args = parser.parse_args(arguments)
    BENCHMARKS[args.name].main(args)


if __name__ == "__main__":
    main()
