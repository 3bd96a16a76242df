"""What devices say by themselves, with asking disabled: greedy answers to prompts that are read or have been."""

from collections.abc import Sequence

import torch

from clients.device.counts import count_drawing
from clients.device.device import Device
from clients.device.world import World
from flsim.models.decoding import Completions, Reading, encode, generate, read
from flsim.problems.problem import Problem

Problems = list[list[Problem]]  # [device][prompt]


@torch.no_grad()
def answer_alone(
    world: World, problems: Problems, max_new_tokens: int, devices: Sequence[Device] = ()
) -> list[list[str]]:
    """Every device's own greedy answers with asking disabled, `[device][prompt]`.

    Args:
        world: the worker's.
        problems: of each device.
        max_new_tokens: of an answer, the ending token included.
        devices: in whose counts the answers enter, and not the prompts, which they have read before; none for nobody.
    """
    reading = read(world.base, encode(world.base, world.base.prompts(problems)))
    replies = reply_alone(world, reading, max_new_tokens)
    if devices:
        count_drawing(devices, replies)
    return firsts(replies)


@torch.no_grad()
def reply_alone(world: World, reading: Reading, max_new_tokens: int) -> Completions:
    """The same to prompts that have been read already, as tokens `(K, P, 1, T)`."""
    return generate(world.base, reading, group_size=1, max_new_tokens=max_new_tokens, temperature=0.0, may_ask=False)


def firsts(replies: Completions) -> list[list[str]]:
    """The text of the first response to every prompt, `[device][prompt]`."""
    return [[group[0] for group in row] for row in replies.texts]


def seeded(seed: int) -> torch.Generator:
    """A torch generator of its own."""
    return torch.Generator().manual_seed(seed)
