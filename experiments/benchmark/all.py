"""All benchmarks one after the other, each in a process of its own, into one page.

Each is called as docs/results/performance.md calls it, which takes hours in all; with `--quick` so small that its
figures mean nothing, to see that it works. The page is written anew after each, so that what was measured stays if the
rest is stopped. A benchmark that fails is a line of the page, with the last that it said, and the others go on; the
command then ends with status 1.
"""

import argparse
import datetime
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from experiments.benchmark.measuring import conditions
from experiments.command.terminal import no_such
from flsim.files import write_atomically
from flsim.loop.folder import source_commit
from flsim.text import markdown_table

_SCRATCH = "SCRATCH"  # stands for a folder that goes afterwards

IN_FULL: dict[str, tuple[str, ...]] = {"peers": ("--prompts", "1", "8")}
"""Arguments of those that are not called without any."""

QUICK: dict[str, tuple[str, ...]] = {
    "real": ("--packs", "1", "--repeats", "1", "--questions", "1", "--steps-only"),
    "round": ("--packs", "1", "--repeats", "1"),
    "peers": ("--devices", "1", "--seeds", "0", "--repeats", "1"),
    "limit": ("--packs", "1", "--seeds", "0", "--repeats", "1"),
    "prefix": ("--devices", "1", "--prompts", "2", "--repeats", "1"),
    "scale": ("--devices", "10", "--learners", "--rounds", "1", "--no-flower"),
    "population": ("--devices", "1000", "--cohort", "10", "--rounds", "1"),
    "flights": ("--in-flight", "20", "--rounds", "1", "--demo", "1"),
    "writers": ("--writers", "4", "--networks", "narrow", "--rounds", "1"),
    "gpu": ("--place", "cpu", "--shapes", "tiny", "--devices", "1", "--minutes", "3", "--out", f"{_SCRATCH}/gpu"),
    "aggregation": ("--devices", "5", "--repeats", "1", "--threads", "1"),
    "cloud": ("--questions", "4", "--dtypes", "float32"),
    "data": ("--ratings", "20000", "--devices", "10", "--repeats", "1"),
    "collaboration": ("--devices", "1", "--questions", "2", "--lengths", "0", "2", "--together", "1", "--repeats", "1"),
    "tracking": ("--rounds", "2", "--repeats", "1", "--sides", "watch"),
    "reporting": ("--devices", "20", "--rounds", "3", "--repeats", "1"),
}
"""The least that each can be asked for."""

_NEED_A_CARD = ("gpu",)


@dataclass(frozen=True)
class Measured:
    """What came of one benchmark."""

    name: str
    command: str
    seconds: float
    status: int | None
    """0 if it measured all; None if it was passed over."""
    said: str
    """What it printed; of one that failed or was passed over, one line."""

    @property
    def verdict(self) -> str:
        """For the table: a word, or the line."""
        return "measured" if self.status == 0 else self.said


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="which (default all)")
    parser.add_argument("--quick", action="store_true", help="as small as can be: does each of them work?")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks.md"), help="the page (default %(default)s)")


def main(args: argparse.Namespace) -> None:
    """Run them and write the page."""
    for name in args.names:
        if name not in QUICK:
            sys.exit(no_such("benchmark", name, tuple(QUICK)))
    done: list[Measured] = []
    for name in args.names or QUICK:
        print(f"{name} ...", flush=True)
        done.append(measured(name, QUICK[name] if args.quick else IN_FULL.get(name, ())))
        print(f"{name}: {done[-1].verdict}, {done[-1].seconds / 60:.1f} min", flush=True)
        write_atomically(args.out, page(done, quick=args.quick).encode(), what="the page of benchmarks")
    print(f"all of it is in {args.out}")
    if failed := [one.name for one in done if one.status]:
        sys.exit(f"{len(failed)} of {len(done)} failed: {', '.join(failed)}; {args.out} says why")


def measured(name: str, given: Sequence[str]) -> Measured:
    """One of them, in a process of its own."""
    command = " ".join(["flsim benchmark", name, *given])
    if name in _NEED_A_CARD and "cpu" not in given and not torch.cuda.is_available():
        return Measured(name, command, 0.0, None, "passed over: this machine has no CUDA card")
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        parts = [part.replace(_SCRATCH, scratch) for part in given]
        done = subprocess.run([*_benchmark(), name, *parts], capture_output=True, text=True)
    lines = done.stderr.strip().splitlines()
    said = done.stdout if done.returncode == 0 else f"failed: {lines[-1] if lines else f'status {done.returncode}'}"
    return Measured(name, command, time.monotonic() - started, done.returncode, said)


def page(done: Sequence[Measured], *, quick: bool) -> str:
    """Markdown: a table of all, then what each printed."""
    day = datetime.datetime.now(datetime.UTC).date()
    head = conditions(f"commit {source_commit() or 'unknown'}", f"measured on {day}")
    rows = [[one.name, f"{one.seconds / 60:.1f}", one.verdict] for one in done]
    parts = ["# Benchmarks", head, markdown_table([["benchmark", "minutes", "what came of it"], *rows])]
    if quick:
        parts.insert(1, "**Called with `--quick`: these figures say that the benchmarks work, and nothing else.**")
    parts += [f"## {one.name}\n\n    {one.command}\n\n{one.said.strip()}" for one in done if one.status == 0]
    return "\n\n".join(parts) + "\n"


def _benchmark() -> list[str]:
    """The command that a benchmark's name and arguments follow."""
    return [sys.executable, "-m", "experiments.benchmark"]
