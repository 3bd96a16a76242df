"""Compare the rows of four short runs before and after a change, bit for bit: `python -m tests.same_rows COMMIT`.

The runs are the demo, DA-GRPO and GRPO with a router on the fleet, strategies with distillation, and the whole path
with a checkpoint from disk. They are made twice, by a checkout of COMMIT and by this one, each with the commands it
has; DA-GRPO is the paper's here, with a token that asks, as it was by default then. Both are read by this version's
`read_rows`, whose one table of renames gives old rows their present names; then not even a last bit may differ, in rows
or adapter. It takes six minutes on two cores, so it is a script and no test: tests/test_same_rows.py shows on made-up
rows that it would notice.
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
_STAGE = "path={}.distillation:Distillation", "every_rounds=1", "prompts=32", "steps=2"
KEY = COLUMNS[:6]  # all but total and weight
RUNS = {
    "demo": "demo",
    "aba/da_grpo-seed0": "aba/da_grpo_token-seed0",
    "aba/grpo+classifier-seed0": "aba/grpo+classifier-seed0",
    "strategies": "strategies",
    "real/run": "real/run",
}
"""The folders of the runs below the one that is given, as they were called -> as they are."""


def commands(out: Path, *, before: bool) -> list[list[str]]:
    """What makes the runs, as this version or as the last release spells it.

    Args:
        out: folder in which the runs are to lie.
        before: whether they are those of version 0.1, which had no command `flsim`.
    """
    old, key = "experiments/configs", "server" if before else "stage"
    run = ["experiments.run"] if before else ["flsim", "run"]
    demo, aba, strategies = (f"{old}/{name}.yaml" if before else name for name in ("demo", "aba", "strategies"))
    stage = [f"{key}.{setting}" for setting in _STAGE]
    stage[0] = stage[0].format("strategies" if before else "strategies.stages")
    token = "da_grpo" if before else "da_grpo_token"
    methods = [f"method={token},grpo+classifier", *_SHORT, "fleet.devices=4", "--root", str(out / "aba")]
    same = () if before else TOKEN_RUN
    small = [*_SHORT, "fleet.devices=6", *same]
    return [
        [*run, demo, *small, "engine.pack=3", f"run_dir={out / 'demo'}"],
        [*(["experiments.sweep"] if before else ["flsim", "study"]), aba, *methods],
        [*run, strategies, *small, "client.steps=2", *stage, f"run_dir={out / 'strategies'}"],
        ["experiments.real", "--out", str(out / "real"), *same],
    ]


def make(tree: Path, out: Path, *, before: bool) -> None:
    """Run the commands in a checkout."""
    for command in commands(out, before=before):
        print(f"{tree.name}: {' '.join(command[:3])} ...", flush=True)
        environment = {**os.environ, "PYTHONPATH": str(tree)}
        subprocess.run([sys.executable, "-m", *command], cwd=tree, env=environment, check=True, capture_output=True)


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
    for was, run in RUNS.items():
        lines = differences(before / was, after / run)
        rows = len(without_timing(read_rows(after / run)))
        print(f"{run}: {f'{rows} rows and the adapter are equal to the bit' if not lines else f'{len(lines)} differ'}")
        print("".join(f"    {line}\n" for line in lines[:10]), end="")
        unequal += bool(lines)
    return unequal


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns 1 if a run differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.same_rows", description=__doc__)
    parser.add_argument("commit", help="the commit to compare with, such as one of version 0.1")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        tree, before, after = (Path(folder) / name for name in ("tree", "before", "after"))
        subprocess.run(["git", "worktree", "add", "--detach", str(tree), args.commit], cwd=ROOT, check=True)
        try:
            make(tree, before, before=True)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=True)
        make(ROOT, after, before=False)
        return int(compare(before, after) > 0)


if __name__ == "__main__":
    sys.exit(main())
