"""Compare the rows of four short runs before and after a change, bit for bit: `python -m tests.same_rows COMMIT`.

The runs are the demo, DA-GRPO and GRPO with a router on the fleet, strategies with distillation, and the whole path
with a checkpoint from disk. They are made twice by the same commands, by a checkout of COMMIT and by this one; both are
read by this version's `read_rows`, whose one table of renames gives old rows their present names. Then not even a last
bit may differ, in rows or adapter. It takes some minutes on two cores, so it is a script and no test:
tests/test_same_rows.py shows on made-up rows that it would notice.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import load_file

from flsim.metrics.rows import COLUMNS, read_rows, without_timing
from flsim.models.adapter import Adapter
from tests.tiny import TOKEN_RUN

ROOT = Path(__file__).resolve().parents[1]
_SHORT = ("rounds=3", "evaluation.every_rounds=2", "evaluation.prompts_per_task=6")
_STAGE = "path=strategies.stages.distillation:Distillation", "every_rounds=1", "prompts=32", "steps=2"
KEY = COLUMNS[:6]  # all but total and weight
RUNS = ("demo", "aba/da_grpo_token-seed0", "aba/grpo+classifier-seed0", "strategies", "standins/run")
"""The folders of the runs below the one that is given."""


def commands(out: Path) -> list[list[str]]:
    """What makes the runs.

    Args:
        out: folder in which they are to lie.
    """
    small = [*_SHORT, "fleet.devices=6", *TOKEN_RUN]
    stage = [f"stage.{setting}" for setting in _STAGE]
    methods = ["method=da_grpo_token,grpo+classifier", *_SHORT, "fleet.devices=4", "--root", str(out / "aba")]
    return [
        ["run", "demo", *small, "engine.pack=3", f"run_dir={out / 'demo'}"],
        ["study", "aba", *methods],
        ["run", "strategies", *small, "client.steps=2", *stage, f"run_dir={out / 'strategies'}"],
        ["standins", "--out", str(out / "standins"), *TOKEN_RUN],
    ]


def make(tree: Path, out: Path) -> None:
    """Run the commands in a checkout."""
    for command in commands(out):
        print(f"{tree.name}: flsim {' '.join(command[:3])} ...", flush=True)
        environment = {**os.environ, "PYTHONPATH": str(tree)}
        flsim = [sys.executable, "-m", "flsim", *command]
        subprocess.run(flsim, cwd=tree, env=environment, check=True, capture_output=True)


def differences(before: Path, after: Path) -> list[str]:
    """What differs between two runs, a line each; empty for runs that are equal bit for bit."""
    old, new = (
        without_timing(read_rows(folder)).sort_values(list(KEY), ignore_index=True) for folder in (before, after)
    )
    if not old[list(KEY)].equals(new[list(KEY)]):
        both = pd.concat([old[list(KEY)].assign(side="before"), new[list(KEY)].assign(side="after")])
        single = both[~both.duplicated(list(KEY), keep=False)]
        return [f"only {row.side}: {tuple(row)[1:-1]}" for row in single.itertuples()]
    unequal = (old[["total", "weight"]] != new[["total", "weight"]]).any(axis=1)
    lines = [f"{tuple(row)[1:]}" for row in old[unequal].merge(new[unequal], on=list(KEY)).itertuples()]
    mine, theirs = (_adapter_of(folder) for folder in (before, after))
    if mine.keys() != theirs.keys():
        return [*lines, "the adapters hold other tensors"]
    return lines + [f"adapter: {name}" for name in mine if not np.array_equal(mine[name], theirs[name])]


def _adapter_of(folder: Path) -> Adapter:
    """LoRA, and what the devices learned beside it."""
    files = sorted((folder / "adapter").glob("*.safetensors"))
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def compare(before: Path, after: Path) -> int:
    """Print what came of it; returns how many runs differ."""
    unequal = 0
    for run in RUNS:
        lines = differences(before / run, after / run)
        rows = len(without_timing(read_rows(after / run)))
        print(f"{run}: {f'{rows} rows and the adapter are equal to the bit' if not lines else f'{len(lines)} differ'}")
        print("".join(f"    {line}\n" for line in lines[:10]), end="")
        unequal += bool(lines)
    return unequal


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns 1 if a run differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.same_rows", description=__doc__)
    parser.add_argument("commit", help="the commit to compare with, such as HEAD~1")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        tree, before, after = (Path(folder) / name for name in ("tree", "before", "after"))
        subprocess.run(["git", "worktree", "add", "--detach", str(tree), args.commit], cwd=ROOT, check=True)
        try:
            make(tree, before)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=True)
        make(ROOT, after)
        return int(compare(before, after) > 0)


if __name__ == "__main__":
    sys.exit(main())
