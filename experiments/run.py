"""Run one simulation: `python -m experiments.run CONFIG [key=value ...]`, or go on with one: `--resume RUN_DIR`.

Examples:
  python -m experiments.run experiments/configs/demo.yaml
  python -m experiments.run experiments/configs/demo.yaml seed=1 budget.tau=0.5 run_dir=runs/half
  python -m experiments.run experiments/configs/demo.yaml strategy.path=my_strategy.py:MyStrategy
  python -m experiments.run experiments/configs/demo.yaml rounds=4 engine.kind=local
  python -m experiments.run --resume runs/demo-seed0

A run writes its folder (run_dir, default runs/NAME-seedSEED): config.yaml, rows/, adapter/, summary.json, plots/ and
report.html. It is committed after every round: stop it with Ctrl-C, or kill it, and --resume goes on.
"""

import argparse
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path

from flsim import Config, ConfigError, run
from flsim.config.load import load_config
from flsim.config.schema import DataConfig
from flsim.files import DamagedFileError
from flsim.flower.contract import StrategyError
from flsim.report.table import end_table


def keys_help(config: object = None, prefix: str = "") -> list[str]:
    """Every key with its default, as `--help` lists them."""
    config = Config() if config is None else config
    lines: list[str] = []
    for field in fields(config):  # type: ignore[arg-type]
        value = getattr(config, field.name)
        if is_dataclass(value):
            lines += keys_help(value, f"{prefix}{field.name}.")
        elif field.name == "data":
            lines += keys_help(DataConfig(), f"{prefix}{field.name}.NAME.")
        elif isinstance(value, dict) and "path" in value:
            lines.append(f"  {prefix}{field.name}.path={value['path']} (its other keys: the settings of what it names)")
        else:
            text = list(value) if isinstance(value, tuple) else value
            lines.append(f"  {prefix}{field.name}={text}")
    return lines


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    doc = (
        f"{__doc__}\nkeys and their defaults (explained in flsim/config/schema.py and docs/running.md):\n"
        + "\n".join(keys_help())
    )
    parser = argparse.ArgumentParser(
        prog="python -m experiments.run", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", nargs="?", help="a YAML file, such as experiments/configs/demo.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that go over the file's")
    parser.add_argument("--resume", metavar="RUN_DIR", type=Path, help="go on with a run that was stopped")
    args = parser.parse_intermixed_args(arguments)
    config, overrides = args.config, list(args.overrides)
    if config is not None and "=" in config:
        config, overrides = None, [config, *overrides]
    if config is None and args.resume is None:
        parser.error("give a config, such as experiments/configs/demo.yaml, or --resume RUN_DIR (--help explains)")
    try:
        finished = run(config, overrides, resume=args.resume)
    except (ConfigError, DamagedFileError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (StrategyError, KeyboardInterrupt) as stop:
        where = args.resume or load_config(config, overrides).folder
        why = "\nstopped" if isinstance(stop, KeyboardInterrupt) else f"\nerror: {stop}\nwhat was finished is kept"
        print(f"{why}; go on with: python -m experiments.run --resume {where}", file=sys.stderr)
        return 130 if isinstance(stop, KeyboardInterrupt) else 2
    print(end_table(finished.summary))
    print(f"\nreport: {finished.report}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
