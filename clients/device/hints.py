"""Greedy answers after a request: the draft, the request, what the cloud gave of its answer, and the device goes on."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from clients.device.answering import firsts
from clients.device.counts import Drawn
from clients.device.world import World
from flsim.models.decoding import generate, prompts_of, read
from flsim.problems.problem import Problem


@torch.no_grad()
def answers_after(
    world: World,
    problems: Sequence[Sequence[Problem]],
    drafts: Sequence[Sequence[str]],
    replies: Sequence[Mapping[int, str]],
) -> tuple[list[list[str]], list[Drawn]]:
    """What each device says after it asked, `[device][prompt]`, and what it reads and draws for that.

    The adapters in use are theirs. It has read before what stood before the hint.

    Args:
        world: the worker's, of devices that are given hints.
        problems: of each device.
        drafts: what it said before it asked, "" for nothing.
        replies: what the cloud said, by the place of the problem; where it said nothing, the device goes on without.
    """
    base, hint = world.base, world.hint
    assert hint is not None, "only devices that are given hints go on"
    if not any(problems):
        return [[] for _ in problems], [Drawn.none(0) for _ in problems]
    said, put_in = [], []
    for row, own, came in zip(base.prompts([list(row) for row in problems]), drafts, replies, strict=True):
        asked = base.tokenizer(row)["input_ids"] if row else []
        hints = [hint.of(base, came[place]) if place in came else [] for place in range(len(own))]
        tails = [[*base.spell(draft)[:-1], *base.help.ids, *more] for draft, more in zip(own, hints, strict=True)]
        put_in.append(np.array([len(more) for more in hints], dtype=np.int64))
        said.append([[*prompt, *tail] for prompt, tail in zip(asked, tails, strict=True)])
    reading = read(base, prompts_of(base, said))
    most = world.answer_tokens
    found = generate(base, reading, group_size=1, max_new_tokens=most, temperature=0.0, may_ask=False)
    drawn = Drawn.of(found, reading.prompts.counts)
    return firsts(found), [replace(one, read=more) for one, more in zip(drawn, put_in, strict=True)]
