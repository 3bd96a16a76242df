"""A card in one call: decoding, training, rounds and evaluations at real shapes, beside peft and TRL.

Bases have random weights in bfloat16, of Qwen2.5-0.5B's and SmolLM2-135M's shapes, and LoRA r = 16 in float32 on all
seven linear layers; nothing is fetched. Every device samples `--group-size` completions of exactly `--new-tokens`
tokens for each of its prompts (no token is an end), then learns from all of them once: forward, backward, clipping,
Adam. Ours does so for K devices in one pack, with and without CUDA graphs (`model.cuda_graphs`). peft's LoRA model by
transformers' `generate`, and TRL's `GRPOTrainer`, do it for one device at a time; their time for K devices is K times
that for one.

A token is a generated token on all sides. "sample" is reading the prompts and generating; "train" what follows. FLOP
are 2 per parameter and token forward and 2 more for the gradient of the input, the base being frozen; bytes of decoding
are, per token, those of the base, of the adapters, and of the keys and values, a prompt's counted once (`work_of` in
experiments/benchmark/card/case.py). Ceilings are measured first: a bfloat16 product of square matrices, and a copy. A
round is one step of DA-GRPO with texts, verdicts and notes, an evaluation the test after it, on the built-in tasks.

Checked are: that passes of static shapes agree with plain ones; that a step done twice ends at the same bits; that a
small round of the demo has the rows on the card that it has on a processor.

What matters most is measured first (K = 32, both ways), and what no longer fits the minutes is skipped. Each
measurement is recorded as it ends, in OUT/gpu.json, with what failed and why; a process that dies, or hangs, costs one
measurement. OUT/gpu.md is the table.
"""

import argparse
import platform
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from experiments.benchmark.card.plan import PEFT, TRL, plan
from experiments.benchmark.card.record import SKIPPED, Record
from experiments.benchmark.card.table import page_of
from experiments.benchmark.measuring import conditions
from flsim.files import write_atomically

SHAPES = ("qwen2.5-0.5b", "smollm2-135m", "tiny")
_LIBRARIES = ("transformers", "peft", "trl", "flwr")
_LOOK_S = 0.2  # how often the worker is looked after
_GRACE_S = 10.0  # beyond a limit, before a worker is ended: it may be writing
_STARTS = 8  # of workers; more die of something that more do not mend


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    place = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--minutes", type=float, default=8.0, help="that all of it may take (default 8)")
    parser.add_argument("--out", default="runs/gpu", help="folder of gpu.json and gpu.md (default runs/gpu)")
    parser.add_argument("--place", choices=["cuda", "cpu"], default=place, help=f"where to compute (here {place})")
    parser.add_argument("--shapes", choices=SHAPES, nargs="+", default=list(SHAPES[:2]), help="of the base")
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 8, 32, 64], help="K (default 1 8 32 64)")
    parser.add_argument("--sides", choices=[PEFT, TRL], nargs="*", default=[PEFT, TRL], help="beside ours")
    parser.add_argument("--prompts", type=int, default=2, help="per device (default 2)")
    parser.add_argument("--group-size", type=int, default=8, help="completions per prompt (default 8)")
    parser.add_argument("--prompt-tokens", type=int, default=64, help="of each prompt (default 64)")
    parser.add_argument("--new-tokens", type=int, default=64, help="of each completion (default 64)")
    parser.add_argument("--micro-batch", type=int, default=2**13, help="tokens trained on at once (default 8192)")
    parser.add_argument("--repeats", type=int, default=3, help="steps per figure, after a warm-up (default 3)")
    parser.add_argument("--tf32", action="store_true", help="let adapters' float32 products round to TF32, all sides")


def main(args: argparse.Namespace) -> None:
    """Measure, record and print."""
    if args.place == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--place cuda: torch finds no CUDA device here; try --place cpu --shapes tiny")
    if args.new_tokens < 2:
        raise SystemExit(f"--new-tokens {args.new_tokens} must be at least 2, or nothing is decoded")
    if min(args.devices) < 1:
        raise SystemExit(f"--devices {min(args.devices)} must be at least 1: it is the size of a pack")
    if not args.minutes > 0:
        raise SystemExit(f"--minutes {args.minutes} must be above 0")
    out = Path(args.out)
    if (out / "gpu.json").exists():
        raise SystemExit(f"--out {out} holds a gpu.json already; move it away, or name another folder")
    asked = {name: value for name, value in vars(args).items() if name != "out"}
    record = Record(out / "gpu.json", asked, time.time() + 60 * args.minutes, _conditions(args.place))
    record.write()
    measure(record)
    page = page_of(Record.read(record.path))
    write_atomically(out / "gpu.md", page.encode(), what="the table")
    print(page)


def _conditions(place: str) -> str:
    """The machine, its card and the libraries, as far as they are installed."""
    where = f"{torch.get_num_threads()} threads"
    if place == "cuda":
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        where = f"{torch.cuda.get_device_name()} ({memory:.0f} GiB), CUDA {torch.version.cuda}"
    return conditions(f"Python {platform.python_version()}", where, *map(_library, _LIBRARIES))


def _library(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"no {name}"


def measure(record: Record) -> None:
    """Let a worker go through the plan; where one dies or hangs, note what it was at, and let another one go on."""
    left = "the minutes were over"
    for _ in range(_STARTS):
        before = len(Record.read(record.path).entries)
        worker = subprocess.Popen([sys.executable, "-m", "experiments.benchmark.card.worker", str(record.path)])
        try:
            why = _ended(worker, record.path)
        finally:
            worker.kill()
            worker.wait()
        found = Record.read(record.path)
        found.lose(why, time.time())
        if worker.returncode == 0 or time.time() > record.until:
            break
        left = f"too many processes had to be started, the last of which: {why}"
        if len(found.entries) == before:  # so would the next one
            left = f"{why} before it measured anything; what it printed says more"
            break
    found = Record.read(record.path)
    for one in plan(*(found.asked[name] for name in ("shapes", "devices", "sides"))):
        if one.name not in found.entries:
            found.end(one.name, one.of, SKIPPED, 0.0, why=left)


def _ended(worker: "subprocess.Popen[bytes]", path: Path) -> str:
    """Wait until a worker has ended or must be ended; what is to be said of the measurement that it was at."""
    while worker.poll() is None:
        time.sleep(_LOOK_S)
        found = Record.read(path)
        until = found.until if found.running is None else found.running["until"]
        if time.time() > until + (_GRACE_S if found.running is None else 0.0):
            over = time.time() > found.until
            return "the minutes were over" if over else "it was stopped, since it took many times what was expected"
    status = worker.returncode
    return f"its process was ended by signal {-status}" if status < 0 else f"its process ended with status {status}"


if __name__ == "__main__":
    _parser = argparse.ArgumentParser(description=__doc__)
    arguments(_parser)
    main(_parser.parse_args())
