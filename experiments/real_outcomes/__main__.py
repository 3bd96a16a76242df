r"""Real questions, recorded verdicts: a small reader learns by DA-GRPO when to ask, beside routers.

One run per domain and seed trains the reader's adapters on eight devices; then every rule is asked about the same
devices and held-out questions. Prints the tables and leaves them with a figure in the folder. What is finished is
never done again.

  python -m experiments.pretrain reader --data ../shared/data --out runs         # once
  python -m experiments.real_outcomes                                            # all
  python -m experiments.real_outcomes --domains gsm8k --seeds 0 1
  python -m experiments.real_outcomes --seeds 100 --more evaluation.split=validation --root runs/real_validation
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.benchmark.measuring import conditions
from experiments.real_outcomes.figure import spending_figure
from experiments.real_outcomes.outcomes import BAND, Outcome, outcomes_of
from experiments.real_outcomes.plan import DOMAINS, runs_of
from experiments.real_outcomes.tables import accuracy_table, paired_table, usage_table
from experiments.reproduce_paper.phases import usage_by_phase
from experiments.study.running import do_all, exit_status
from flsim.config.schema import Config
from flsim.files import write_atomically


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    args = _arguments(arguments)
    return exit_status(lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    runs = {domain: runs_of(domain, args.seeds, args.root, args.more) for domain in args.domains}
    by_seed = sorted((config for own in runs.values() for config in own), key=lambda config: config.seed)
    failures = do_all(by_seed, args.jobs)
    if failures:
        print("\n".join(f"failed: {failure}" for failure in failures), file=sys.stderr)
        return 1
    show(runs, args.root)
    return 0


def show(runs: Mapping[str, Sequence[Config]], root: Path) -> None:
    """Print what finished runs say, and write it with the figure."""
    found: dict[str, dict[str, Outcome]] = {}
    parts = []
    for domain, configs in runs.items():
        found[domain] = outcomes_of(configs)
        parts += [_heading(domain, configs), usage_table(usage_by_phase(configs, band=BAND))]
        parts += [accuracy_table(found[domain]), paired_table(found[domain])]
    text = "\n\n".join(parts) + "\n"
    print(text, flush=True)
    write_atomically(root / "tables.md", text.encode())
    spending_figure(found, root / "spending.png")
    print(f"figure: {root / 'spending.png'}", flush=True)


def _heading(domain: str, configs: Sequence[Config]) -> str:
    first, seeds = configs[0], ", ".join(str(config.seed) for config in configs)
    what = f"{first.fleet.devices} devices, {first.rounds} rounds", f"tau {first.budget.tau:g}", f"seeds {seeds}"
    return f"## {domain}\n\n{conditions(*what)}"


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.real_outcomes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = list(DOMAINS)
    parser.add_argument("--domains", nargs="+", choices=names, default=names, help="default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4], help="default: 0 1 2 3 4")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side (default: %(default)s)")
    parser.add_argument(
        "--root", type=Path, default=Path("runs/real_outcomes"), help="folder of the runs (default %(default)s)"
    )
    parser.add_argument(
        "--more", nargs="+", default=[], metavar="key=value", help="over the config's own, such as rounds=4"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
