"""Federated methods on pictures by who drew them, as they were first tested: equal seeds, writers and rounds for all.

The set is Omniglot's characters by drawer, unless --config names another run of supervised clients, such as one of
FEMNIST. Users are writers; every method is paired with FedAvg user by user.
"""

import argparse
import sys
from pathlib import Path

from experiments.study.command import print_compared, run_missing, study_parser
from experiments.study.partitions import CONFIG, GAP, bytes_to, rounds_to
from experiments.study.plan import Arm, runs_of
from experiments.study.running import exit_status
from flsim.metrics.measures import chosen

ARMS = (
    Arm("alone", ("strategy.path=strategies.local_only:LocalOnly",)),
    Arm("FedAvg", ("strategy.path=strategies.fedavg:FedAvg",)),
    Arm(
        "FedProx, mu 0.01",
        ("strategy={path: 'flwr.serverapp.strategy:FedProx', proximal_mu: 0.01, fraction_evaluate: 0.0}",),
    ),
    Arm("FedDyn, alpha 0.01", ("strategy={path: 'strategies.fed_dyn:FedDyn', alpha: 0.01}",)),
    Arm("FedPer", ("strategy.path=strategies.fed_per:FedPer",)),
)
"""Settings of FedProx and FedDyn: of 0.1 and 0.01 the better one on validation questions."""


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = study_parser("writers", __doc__, seeds=(0, 1, 2), root="runs/writers")
    parser.add_argument("--config", type=Path, default=CONFIG, help="of the run (default omniglot)")
    parser.add_argument("--target", type=float, default=0.2, help="share that is to be right (default %(default)s)")
    args = parser.parse_args(arguments)
    return exit_status(lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    runs = runs_of(args.config, ARMS, args.seeds, args.root, ["evaluation.own=phases", *args.more])
    if not run_missing(runs, args.jobs):
        return 1
    names = ("accuracy", "p10", "p50", "p90", "worst_decile_mean")
    measures = [*chosen(names), GAP, rounds_to(args.target), bytes_to(args.target)]
    out = args.root.with_name(f"{args.root.name}-compared")
    print_compared(runs, measures, against="FedAvg", said="", out=out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
