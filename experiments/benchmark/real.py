"""A pretrained model at the settings of a shipped run: ours in packs, beside peft and TRL one device at a time.

Every side is a process of its own on one thread, with the same checkpoint, questions and tokens. A learning step of a
device is what CONFIG says: prompts, responses to each, each of exactly as many tokens as it may have, whatever they
say; forward, backward and an update. Ours does it for K devices in one pack. peft's LoRA model, by transformers'
`generate`, a plain forward and backward, and torch's fused Adam, does it for one device, and so does TRL's
`GRPOTrainer`.

A token is counted as a user counts it, on all sides alike: a prompt's all, also where several prompts begin alike and
that is read once; so what is read once shows as speed. "prefill" is reading each prompt once. `generate` reads a
prompt once for each of its responses, and so does a plain forward and backward: that is in "train" and in "a step".
"decode" is what comes after the first token. Seconds are per device; a test's answers are greedy and alone. "a round"
and "an evaluation" are the config's own, with ends, verdicts, requests and the cloud, from the adapter that round 1
starts from, each measured once.

Memory is the peak of the process while it works: beyond the weights, and beyond what it held before it began (weights,
libraries, the client).
"""

import argparse
import importlib.util
import multiprocessing
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import psutil
import torch

from experiments.benchmark.measuring import clock_argument, conditions, peak_bytes, reset_peak, spread
from experiments.benchmark.real_sides import OneAtATime, Seconds, Side, Stacked, Work
from flsim.config.load import load_config
from flsim.text import markdown_table as table

OURS, PEFT, TRL = "ours", "peft", "trl"
INSTALL = "TRL is left out, since it is missing; install it with: pip install -e '.[bench]' (-c constraints.txt)"
_MB = 10**6


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("config", nargs="?", default="smollm2", help="a name or a YAML file (default smollm2)")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings laid over it")
    parser.add_argument("--packs", type=int, nargs="+", default=[1, 4, 8], help="K of ours (default 1 4 8)")
    parser.add_argument("--sides", nargs="+", choices=(OURS, PEFT, TRL), default=[OURS, PEFT, TRL], help="default all")
    parser.add_argument("--repeats", type=int, default=3, help="measured steps, after one to warm up (default 3)")
    parser.add_argument("--questions", type=int, default=8, help="of a test, per device (default 8)")
    parser.add_argument("--rows", type=int, default=8, help="responses in one pass of peft and TRL (default 8)")
    parser.add_argument("--steps-only", action="store_true", help="no round and no evaluation of the config")
    clock_argument(parser, of="the figures", default="cpu")


def main(args: argparse.Namespace) -> None:
    """Measure and print."""
    sides = [side for side in args.sides if side != TRL or importlib.util.find_spec("trl")]
    if TRL in set(args.sides) - set(sides):
        print(INSTALL, file=sys.stderr)
    own = [f"fleet.devices={max(args.packs)}", "engine.kind=local", "engine.pack=1"]
    work = Work(load_config(args.config, [*args.settings, *own]), args.questions, args.rows, args.clock)
    columns: dict[str, Seen] = {}
    for side in sides:
        for devices in sorted(args.packs) if side == OURS else [1]:
            name = f"ours, K = {devices}" if side == OURS else side
            print(f"{name} ...", file=sys.stderr, flush=True)
            with multiprocessing.get_context("spawn").Pool(1) as alone:
                columns[name] = alone.apply(seen, (side, work, devices, args.repeats, not args.steps_only))
            print(real_table({name: columns[name]}), file=sys.stderr, flush=True)  # if it is stopped before the end
    first = next(iter(columns.values()))
    step = f"{first.prompts} prompts of {first.prompt_tokens} tokens in all x {first.responses // first.prompts}"
    what = f"{step} responses of {first.response_tokens} tokens a step"
    how = f"{args.clock} seconds, median (min..max) of {args.repeats}"
    print(conditions("1 thread", work.config.model.path, what, how) + "\n")
    print(real_table(columns))


@dataclass(frozen=True)
class Seen:
    """What was measured of one side."""

    steps: tuple[Seconds, ...]
    prompts: int
    """P."""
    responses: int
    """Of a device in one step."""
    prompt_tokens: int
    """Of a device's prompts, a mean over devices."""
    response_tokens: int
    """T."""
    questions: int
    """Of a test."""
    peak: int
    """Bytes of the process at its peak, without the weights."""
    beyond: int
    """Bytes by which that is more than what it held before it began."""
    round: float | None = None
    evaluation: float | None = None

    def speed(self, part: str, tokens: int) -> list[float]:
        """Tokens per second over the steps; empty for what the side has not got."""
        return [tokens / seconds for step in self.steps if (seconds := getattr(step, part)) is not None]

    def seconds(self, part: str, count: int = 1) -> list[float]:
        """Likewise seconds, per one of `count`."""
        return [seconds / count for step in self.steps if (seconds := getattr(step, part)) is not None]


def seen(side: str, work: Work, devices: int, repeats: int, whole: bool) -> Seen:
    """Measure one side in this process; `whole` says whether with a round and an evaluation of the config."""
    torch.set_num_threads(1)
    made = _side(side, work, devices)
    model = made.model
    weights = sum(parameter.nbytes for parameter in model.parameters() if not parameter.requires_grad)
    held = psutil.Process().memory_info().rss
    reset_peak()
    steps = tuple(made.once(repeat) for repeat in range(repeats + 1))[1:]
    found = Seen(
        steps,
        work.learner.prompts,
        work.responses,
        made.prompt_tokens,
        work.tokens,
        work.questions,
        peak=peak_bytes() - weights,
        beyond=peak_bytes() - held,
    )
    if not (whole and isinstance(made, Stacked)):
        return found
    return replace(found, round=made.round(), evaluation=made.evaluation())


def _side(side: str, work: Work, devices: int) -> Side:
    if side == TRL:
        from experiments.benchmark.real_trl import Trl

        return Trl(work)
    return Stacked(work, devices) if side == OURS else OneAtATime(work)


def real_table(columns: dict[str, Seen]) -> str:
    """A line per quantity, a column per side, and how many times faster the largest pack is than the others."""
    best = next((name for name in reversed(columns) if name.startswith(OURS)), None)
    others = [name for name in columns if not name.startswith(OURS)] if best else []
    rows = [["", *columns, *(f"{best} / {other}" for other in others)]]
    for label, part, digits in _LINES:
        values = {name: _values(one, part) for name, one in columns.items()}
        cells = [spread(own).text(digits) if own else "-" for own in values.values()]
        rows.append([label, *cells, *(_times(values[best or ""], values[other], label) for other in others)])
    for label, name in (("a round, s per device", "round"), ("an evaluation, s per device", "evaluation")):
        own = [getattr(one, name) for one in columns.values()]
        rows.append([label, *("-" if one is None else f"{one:.2f}" for one in own), *("" for _ in others)])
    for label, name in (("peak beyond the weights, MB", "peak"), ("and beyond what it held, MB", "beyond")):
        rows.append([label, *(f"{getattr(one, name) / _MB:.0f}" for one in columns.values()), *("" for _ in others)])
    return table(rows)


_LINES = (
    ("prefill, prompt tokens/s", "prefill", 0),
    ("decode, tokens/s", "decode", 0),
    ("train, response tokens/s", "train", 0),
    ("a step, s per device", "step", 2),
    ("a test answer, s", "answers", 3),
)


def _values(one: Seen, part: str) -> list[float]:
    counts = {
        "prefill": one.prompt_tokens,
        "decode": one.responses * (one.response_tokens - 1),
        "train": one.responses * one.response_tokens,
    }
    if part in counts:
        return one.speed(part, counts[part])
    return one.seconds(part, one.questions if part == "answers" else 1)


def _times(own: Sequence[float], other: Sequence[float], label: str) -> str:
    """How many times faster, by the medians."""
    if not own or not other:
        return "-"
    ratio = spread(own).median / spread(other).median
    return f"{ratio if label.endswith('tokens/s') else 1 / ratio:.1f}"
