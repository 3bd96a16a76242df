"""What it saves to read once what prompts begin with alike: examples, system text, instruction.

Six English questions to each device under two examples of a chat; reading them, sampling eight responses to each, and
the gradient of a loss on these, with every prompt read whole and with the prefix shared, in turns in one process.
Responses have the length that is given, whatever they say. Figures are the median over `--repeats`.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from experiments.benchmark.measuring import clock_argument, conditions, seconds_of, spread
from experiments.benchmark.real_sides import endless
from flsim.config.model import ModelConfig
from flsim.models.adapter import initial_adapter
from flsim.models.base import BaseModel, load_model
from flsim.models.decoding import Completions, Prompts, encode, generate, given, read
from flsim.models.prefix import LEAST
from flsim.models.scoring import pull_back
from flsim.models.stacked_lora import StackedLora
from flsim.problems.problem import Problem
from flsim.text import markdown_table as table

GROUP = 8
WORDS = ("hot", "big", "fast", "happy", "left", "day", "rich", "young", "hard", "open", "full", "light")
EXAMPLES = (('What is the opposite of "wet"?', "dry"), ('What is the opposite of "near"?', "{help}"))


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    name = "HuggingFaceTB/SmolLM2-135M-Instruct"
    parser.add_argument("--model", default=name, help=f"what model.path takes, with a chat template (default {name})")
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 4], help="sizes of a pack (default 1 4)")
    parser.add_argument("--prompts", type=int, default=6, help="of each device (default 6)")
    parser.add_argument("--tokens", type=int, default=6, help="of a response (default 6)")
    parser.add_argument("--repeats", type=int, default=3, help="measurements per figure (default 3)")
    clock_argument(parser, of="the figures")


def main(args: argparse.Namespace) -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    config = ModelConfig(path=args.model, examples={"all": EXAMPLES}, shared_prefix=LEAST)
    shared = load_model(config)
    adapter = initial_adapter(shared.model, config, 0)
    lora = StackedLora(shared.model, adapter, config.shape.scale)
    sides = {"whole": replace(shared, shared_prefix=0), "shared": shared}
    print(conditions("1 thread", args.model, f"{args.clock} seconds", f"median of {args.repeats}") + "\n")
    head = ["devices", "prompt tokens", "of them read", "what", "whole", "shared", "times"]
    for devices in args.devices:
        print(table([head, *_rows(sides, lora, lora.stack([adapter] * devices), args)]) + "\n", flush=True)


def _rows(sides: dict[str, BaseModel], lora: StackedLora, theta: Tensor, args: argparse.Namespace) -> list[list[str]]:
    """One for each part of the work of a pack, whose adapters are theta `(K, n)`."""
    asked = [[_question(word) for word in _words(args.prompts)]] * len(theta)
    prompts = {name: encode(base, base.prompts(asked)) for name, base in sides.items()}
    found: dict[str, dict[str, list[float]]] = {}
    for _ in range(args.repeats):
        for name, base in sides.items():
            for part, seconds in _once(base, lora, theta, prompts[name], args.tokens, args.clock).items():
                found.setdefault(part, {}).setdefault(name, []).append(seconds)
    counts = int(prompts["whole"].mask.sum()), tokens_read(prompts["shared"])
    rows = []
    for part, of in found.items():
        whole, once = (spread(of[name]) for name in sides)
        shown = [whole.text(2), once.text(2), f"{whole.median / once.median:.2f}"]
        rows.append([str(len(theta)), *map(str, counts), part, *shown])
    return rows


def _words(count: int) -> Sequence[str]:
    return [WORDS[number % len(WORDS)] for number in range(count)]


def _question(word: str) -> Problem:
    return Problem("words", "opposite", 1, f'What is the opposite of "{word}"?', "")


def tokens_read(prompts: Prompts) -> int:
    """How many tokens are read of prompts, shared ones once."""
    shared = 0 if prompts.prefix is None else int(prompts.prefix.sees.diagonal(dim1=1, dim2=2).sum())
    return shared + int(prompts.own[1].sum())


def _once(
    base: BaseModel, lora: StackedLora, theta: Tensor, prompts: Prompts, tokens: int, clock: str
) -> dict[str, float]:
    """Seconds of each part; the words of the responses are none of the matter, so all have equal length."""
    k, p = prompts.ids.shape[:2]
    said = _alike(base, k, p, tokens)
    pull = torch.ones(said.logprobs.shape)  # (K, P, G, T)
    lora.attach(theta)
    with torch.no_grad():
        reading = read(base, prompts)
        parts: dict[str, Callable[[], object]] = {
            "reading": lambda: read(base, prompts),
            "sampling": lambda: generate(
                endless(base), reading, group_size=GROUP, max_new_tokens=tokens, temperature=0.0, may_ask=False
            ),
        }
        found = {name: seconds_of(work, clock) for name, work in parts.items()}
    lora.attach(theta, train=True)
    found["reading and gradient"] = seconds_of(
        lambda: pull_back(base, lora, read(base, prompts), said, pull, temperature=1.0), clock
    )
    return found


def _alike(base: BaseModel, devices: int, prompts: int, tokens: int) -> Completions:
    """Responses of equal length, `(K, P, G, T)`."""
    one = given(base, [[[base.eos_id] * tokens] * prompts] * devices)  # (K, P, 1, T)
    shape = (devices, prompts, GROUP, tokens)
    return replace(
        one,
        tokens=one.tokens.expand(shape).contiguous(),
        mask=one.mask.expand(shape).contiguous(),
        logprobs=one.logprobs.expand(shape).contiguous(),
        asked=one.asked.expand(shape[:3]).contiguous(),
    )
