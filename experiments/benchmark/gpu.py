"""Tokens per second, memory and the share of the card's ceilings, by pack size, against peft one adapter at a time.

The base has random weights in bfloat16, by default of Qwen2.5-0.5B's shape, and LoRA r = 16 in float32 on all seven
linear layers. Every device samples `--group-size` completions of exactly `--new-tokens` tokens for each of its prompts
(no token is an end), then learns from all of them once: forward, backward, clipping, Adam. Ours does so for K devices
in one pack; peft's LoRA model, with transformers' `generate`, for one device after the other. Of peft's K devices at
most four are run, and their time per device is compared.

A token is a generated token on both sides. "sample" is reading the prompts and generating; "train" what follows. FLOP
are 2 per parameter and token forward and 2 more for the gradient of the input, the base being frozen; bytes of decoding
are, per token, those of the base, of the adapters, and of the keys and values, a prompt's counted once (`work_of` in
experiments/benchmark/gpu_sides.py). Ceilings are measured first: a bfloat16 product of square matrices, and a copy.
Memory is the peak of torch's allocations on a card; on a CPU what the process holds after its last step.
"""

import argparse
import gc
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil
import torch

from experiments.benchmark.gpu_sides import SHAPES, Case, OneAtATime, Seconds, Stacked, Work, work_of
from experiments.benchmark.measuring import Spread, conditions, spread
from flsim.text import markdown_table as table

_FEW = 4  # of peft's devices


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    place = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--place", choices=["cuda", "cpu"], default=place, help=f"where to compute (here {place})")
    parser.add_argument("--shape", choices=SHAPES, default="qwen2.5-0.5b", help="of the base (default qwen2.5-0.5b)")
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 8, 32, 64], help="K (default 1 8 32 64)")
    parser.add_argument("--prompts", type=int, default=2, help="per device (default 2)")
    parser.add_argument("--group-size", type=int, default=8, help="completions per prompt (default 8)")
    parser.add_argument("--prompt-tokens", type=int, default=64, help="of each prompt (default 64)")
    parser.add_argument("--new-tokens", type=int, default=64, help="of each completion (default 64)")
    parser.add_argument("--micro-batch", type=int, default=2**13, help="tokens trained on at once (default 8192)")
    parser.add_argument("--repeats", type=int, default=5, help="steps per figure, after a warm-up (default 5)")
    parser.add_argument("--tf32", action="store_true", help="let adapters' float32 products round to TF32, both sides")


def main(args: argparse.Namespace) -> None:
    """Measure and print."""
    if args.place == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--place cuda: torch finds no CUDA device here; try --place cpu --shape tiny")
    if args.new_tokens < 2:
        raise SystemExit(f"--new-tokens {args.new_tokens} must be at least 2, or nothing is decoded")
    torch.set_float32_matmul_precision("high" if args.tf32 else "highest")
    sizes = args.prompts, args.group_size, args.prompt_tokens, args.new_tokens, args.micro_batch
    case = Case(args.shape, args.place, *sizes)
    where = torch.cuda.get_device_name() if args.place == "cuda" else f"{torch.get_num_threads()} threads"
    steps = (
        f"{case.prompts} prompts of {case.prompt_tokens} tokens x {case.group_size} completions of {case.new_tokens}"
    )
    count = f"median (min..max) of {args.repeats}"
    print(conditions(where, f"{args.shape}, random weights", steps, f"TF32 {'on' if args.tf32 else 'off'}", count))
    ceilings = measure_ceilings(case)
    print(
        f"Ceilings: {ceilings.flops / 1e12:.3g} TFLOP/s (bfloat16 product), {ceilings.bytes / 1e9:.4g} GB/s (copy).\n"
    )
    print(gpu_table(case, args.devices, args.repeats, ceilings))


@dataclass(frozen=True)
class Ceilings:
    """What the card can do at best, per second."""

    flops: float
    bytes: float


def measure_ceilings(case: Case) -> Ceilings:
    """The best of ten: a large square product in the base's dtype, and a copy, read and write counted."""
    width, size = (8192, 2**30) if case.place == "cuda" else (512, 2**25)
    left = torch.randn(width, width, device=case.place).to(case.dtype)
    out = torch.empty_like(left)
    source = torch.ones(size, dtype=torch.uint8, device=case.place)
    target = torch.empty_like(source)

    def best(work: Callable[[], object]) -> float:
        work()
        return min(case.timed(work)[1] for _ in range(10))

    multiply = best(lambda: torch.mm(left, left, out=out))
    return Ceilings(2 * width**3 / multiply, 2 * size / best(lambda: target.copy_(source)))


@dataclass(frozen=True)
class Measured:
    """A side's steps."""

    seconds: tuple[Seconds, ...]
    memory: int
    """Bytes."""

    def speed(self, tokens: int, *, train: bool) -> Spread:
        """Tokens per second over the steps."""
        return spread([tokens / (s.train if train else s.read + s.generate) for s in self.seconds])


def gpu_table(case: Case, devices: Sequence[int], repeats: int, ceilings: Ceilings) -> str:
    """A line per K."""
    names = ["K"]
    for phase in ("sample", "train"):
        names += [f"{phase}, tokens/s", f"peft {phase}", "ratio"]
    rows = [[*names, "GiB", "peft GiB", "sample TFLOP/s", "train TFLOP/s", "decode GB/s"]]
    for k in devices:
        rows.append([str(k), *cells(case, k, repeats, ceilings)])
        print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    return table(rows)


def cells(case: Case, k: int, repeats: int, ceilings: Ceilings) -> list[str]:
    """The cells of one K; ours says so where the card's memory does not suffice."""
    peft = measured_peft(case, min(k, _FEW), repeats)
    try:
        ours: Measured | None = measured_ours(case, k, repeats)
    except torch.OutOfMemoryError:
        ours = None
    speeds = []
    for train in (False, True):
        other = peft.speed(case.tokens, train=train)
        own = None if ours is None else ours.speed(k * case.tokens, train=train)
        speeds += ["-", other.text(0), "-"] if own is None else [own.text(0), other.text(0), ratio(own, other)]
    theirs = f"{peft.memory / 2**30:.1f}"
    if ours is None:
        return [*speeds, "too much", theirs, "-", "-", "-"]
    return [*speeds, f"{ours.memory / 2**30:.1f}", theirs, *_shares(work_of(case, k), ours, ceilings)]


def ratio(own: Spread, other: Spread) -> str:
    """Of the medians."""
    return f"{own.median / other.median:.2f}"


def _shares(work: Work, ours: Measured, ceilings: Ceilings) -> list[str]:
    """What was achieved per second when sampling, training and decoding, with its share of the ceiling."""
    sample = spread([work.sample_flops / (s.read + s.generate) for s in ours.seconds]).median
    train = spread([work.train_flops / s.train for s in ours.seconds]).median
    decode = spread([work.decode_bytes / s.generate for s in ours.seconds]).median
    flops = [f"{found / 1e12:.3g} ({found / ceilings.flops:.1%})" for found in (sample, train)]
    return [*flops, f"{decode / 1e9:.4g} ({decode / ceilings.bytes:.1%})"]


def measured_ours(case: Case, k: int, repeats: int) -> Measured:
    """A pack of K devices, from an empty card."""
    _begin(case)
    side = Stacked(case, k)
    side.step()
    seconds = tuple(side.step() for _ in range(repeats))
    return Measured(seconds, _memory(case))


def measured_peft(case: Case, devices: int, repeats: int) -> Measured:
    """One device after the other, from an empty card."""
    _begin(case)
    side = OneAtATime(case)
    side.step(0)
    seconds = tuple(side.step(device) for _ in range(repeats) for device in range(devices))
    return Measured(seconds, _memory(case))


def _begin(case: Case) -> None:
    """Let go of what the side before has left."""
    gc.collect()
    if case.place == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _memory(case: Case) -> int:
    if case.place == "cuda":
        return torch.cuda.max_memory_allocated()
    resident: int = psutil.Process().memory_info().rss
    return resident
