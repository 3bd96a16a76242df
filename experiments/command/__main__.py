"""`flsim`, alone or with a subcommand: says what there is, and hands over.

Nothing heavy is imported before the subcommand is known: torch, Ray and Flower take seconds.
"""

import gc
import importlib
import os
import sys
from collections.abc import Sequence

from experiments.command.ending import hearing_signals, status_of
from experiments.command.terminal import bold, listed, no_such, prose
from experiments.command.walk import purpose_of

COMMANDS = {
    "run": "experiments.command.run",
    "resume": "experiments.command.resume",
    "warmup": "experiments.command.warmup",
    "why": "experiments.command.why",
    "replay": "experiments.command.replay",
    "watch": "experiments.command.watch",
    "diagnose": "experiments.command.diagnose",
    "compare": "experiments.command.compare",
    "export": "experiments.command.export",
    "study": "experiments.study.__main__",
    "price": "experiments.command.price",
    "profile": "experiments.command.profile",
    "benchmark": "experiments.benchmark.__main__",
    "estimate": "experiments.real.estimate",
    "standins": "experiments.real.__main__",
    "list": "experiments.command.list",
    "explain": "experiments.command.explain",
    "judge": "experiments.command.judge",
    "record": "experiments.command.record",
    "doctor": "experiments.command.doctor",
    "torture": "experiments.torture.__main__",
    "convert": "experiments.command.convert",
    "flower": "experiments.command.flower",
    "new": "experiments.command.new",
    "complete": "experiments.command.complete",
}
"""Subcommands with their modules, each with a `main(arguments) -> int`; the first sentence of a module is its help."""

FIRST = (
    ("flsim run demo rounds=4", "a small run of 16 devices, with a report"),
    ("flsim list", "all configs, methods, strategies and parts that ship"),
    ("flsim explain budget", "what the keys of a config mean"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: 0, 2 for what a user can mend, 128 + number of a signal."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if given[0] == "--version":
        print(f"flsim {_version()}")
        return 0
    name, *rest = given
    if name not in COMMANDS:
        return no_such("subcommand", name, COMMANDS, command="flsim ")
    sys.path.append(
        os.getcwd()
    )  # as with `python -m`: strategy.path=my_module:MyStrategy may lie in the current folder
    with hearing_signals(for_good=arguments is None):
        status = _carried_out(COMMANDS[name], rest)
    if arguments is None:
        gc.freeze()  # the process ends, and to look through torch and pandas for garbage would take it a second
    return status


def _carried_out(module: str, arguments: list[str]) -> int:
    """Run a subcommand; what a user can mend ends in one sentence."""
    try:
        return int(importlib.import_module(module).main(arguments))
    except _mistakes() as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print("\nstopped", file=sys.stderr)
        return status_of(stop)
    except BrokenPipeError:  # `flsim list | head` has seen enough; Python must not flush what nobody reads
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # of a file that nobody expected to be out of reach
        if error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2


def overview() -> str:
    """What `flsim` prints by itself."""
    parts = [
        prose("flsim: a fleet of devices that learn together and may ask a cloud LLM under a budget, simulated."),
        f"{bold('To begin with')}\n{listed(FIRST)}",
        f"{bold('Subcommands')} (flsim NAME --help says more)\n"
        f"{listed([(name, purpose_of(module)) for name, module in COMMANDS.items()])}",
    ]
    return "\n\n".join(parts)


def _mistakes() -> tuple[type[Exception], ...]:
    """What a user can mend: a wrong setting, a file that cannot be read; only looked up once something was raised."""
    from flsim.config.schema import ConfigError
    from flsim.files import DamagedFileError, UnwritableError

    return ConfigError, DamagedFileError, UnwritableError


def _version() -> str:
    from importlib.metadata import version

    return version("flsim-continual")


if __name__ == "__main__":
    sys.exit(main())
