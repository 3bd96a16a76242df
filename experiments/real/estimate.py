"""Estimate memory, pack size and seconds per round of checkpoints on GPUs.

    flsim estimate --prompt 200 --response 200 --devices 16

Nothing is measured here. Memory is the sum of what flsim keeps; time takes the longer of arithmetic and of reading
weights and cache, at the shares of a GPU's peak that `UTILISATION` names.
"""

import sys
from dataclasses import dataclass

from experiments.command.terminal import Parser
from flsim.models.memory import LOGITS, kept_per_token
from flsim.models.scoring import TOKENS
from flsim.system.shapes import DECODERS, Decoder
from flsim.text import markdown_table as table

GIB = 2**30
SHAPES = tuple(DECODERS[name] for name in ("Qwen2.5-0.5B", "Qwen2.5-1.5B", "Qwen2.5-3B"))
UTILISATION = {"arithmetic": 0.35, "bandwidth": 0.6}
"""Shares of the peaks that such code commonly reaches; an assumption."""
RESERVE = 0.1
"""Share of the memory left to the allocator, kernels and what is freed late."""


@dataclass(frozen=True)
class Gpu:
    """Peaks by the maker's data sheet: dense bfloat16 arithmetic and memory bandwidth."""

    name: str
    memory: float
    """GB, of 10^9 bytes."""
    flops: float
    """Per second."""
    bandwidth: float
    """Bytes per second."""


GPUS = (
    Gpu("RTX 4090, 24 GB", 24, 165e12, 1.01e12),
    Gpu("A100, 80 GB", 80, 312e12, 2.04e12),
    Gpu("H200, 141 GB", 141, 989e12, 4.8e12),
)


@dataclass(frozen=True)
class Work:
    """What a device does in a round."""

    prompt: int = 200
    """Tokens of a prompt."""
    response: int = 200
    """Tokens of a response."""
    prompts: int = 8
    group: int = 8
    steps: int = 4
    rank: int = 8
    checkpointing: bool = True


def bytes_needed(shape: Decoder, work: Work, pack: int) -> float:
    """Of a bfloat16 base and a pack of float32 adapters in training.

    The larger of sampling (the cache of all responses) and learning (the graph of the prompts, that of one micro-batch
    of responses, and three float32 copies of its logits) on top of weights, adapters, gradient and two moments.
    """
    always = 2 * shape.parameters + 16 * pack * shape.adapter(work.rank)
    prompts = pack * work.prompts * work.prompt
    responses = pack * work.prompts * work.group * work.response
    passed = min(responses, TOKENS, max(LOGITS // shape.vocabulary, work.response))
    graph = kept_per_token(shape.hidden, shape.intermediate, shape.layers, checkpointing=work.checkpointing)
    read = 2 * prompts * (shape.cache + graph)
    sampling = 2 * responses * shape.cache
    learning = passed * (2 * graph + 3 * 4 * shape.vocabulary)
    return always + read + max(sampling, learning)


def largest_pack(shape: Decoder, work: Work, gpu: Gpu, devices: int) -> int:
    """The most devices of a fleet that fit into one pack; 0 if not even one does."""
    room = (1 - RESERVE) * gpu.memory * 1e9
    return max((pack for pack in range(1, devices + 1) if bytes_needed(shape, work, pack) <= room), default=0)


def seconds_per_round(shape: Decoder, work: Work, gpu: Gpu, pack: int, devices: int) -> float:
    """Of one GPU, all devices one pack after the other; evaluation comes on top.

    A token costs two operations per parameter forward and two more backward, as only adapters get a gradient; with
    gradient checkpointing two more for the second forward pass.
    """
    flops, bandwidth = UTILISATION["arithmetic"] * gpu.flops, UTILISATION["bandwidth"] * gpu.bandwidth
    per_token = 2 * shape.parameters
    learned = per_token * (3 if work.checkpointing else 2)
    prompts = pack * work.prompts * work.prompt
    rows = pack * work.prompts * work.group
    read = prompts * learned / flops
    cache = 2 * shape.cache * (rows * work.response / 2 + prompts)  # bytes at half the way
    step = max((2 * shape.parameters + cache) / bandwidth, rows * per_token / flops)
    learn = rows * work.response * learned / flops
    return -(-devices // pack) * work.steps * (read + work.response * step + learn)


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = Parser("estimate", __doc__)
    parser.add_argument("--devices", type=int, default=16, help="of the fleet (default %(default)s)")
    for name in ("prompt", "response", "prompts", "group", "steps", "rank"):
        default = getattr(Work, name)
        parser.add_argument(f"--{name}", type=int, default=default, help=f"as in the config (default {default})")
    parser.add_argument("--no-checkpointing", action="store_true", help="keep every layer's activations")
    args = parser.parse_args(arguments)
    work = Work(args.prompt, args.response, args.prompts, args.group, args.steps, args.rank, not args.no_checkpointing)
    lines = [["checkpoint", "GPU", "weights", "one device", "devices in a pack", "memory", "a round"]]
    for shape in SHAPES:
        for gpu in GPUS:
            pack = largest_pack(shape, work, gpu, args.devices)
            alone = f"{bytes_needed(shape, work, 1) / GIB:.1f} GiB"
            cells = [shape.name, gpu.name, f"{2 * shape.parameters / GIB:.1f} GiB", alone]
            if not pack:
                lines.append([*cells, "0", "too large", "-"])
                continue
            memory, seconds = bytes_needed(shape, work, pack), seconds_per_round(shape, work, gpu, pack, args.devices)
            lines.append([*cells, str(pack), f"{memory / GIB:.0f} GiB", f"{seconds:.0f} s"])
    print(f"estimated, not measured: {args.devices} devices, {work}")
    print(table(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
