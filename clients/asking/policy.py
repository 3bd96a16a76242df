"""Rules that go by what the policy has learned of asking: its own decision, the default, or its wish, calibrated."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clients.asking.alone import Alone, hear, wish_of
from clients.asking.rule import TEXTS, Choice, Examined, Flags, Scores, named, right_alone
from clients.asking.threshold import Scored
from clients.device.answering import firsts, reply_alone
from clients.device.counts import Drawn
from clients.device.hints import answers_after
from clients.device.world import World
from flsim.models.decoding import Completions, Reading, generate, read
from flsim.models.scoring import rest_of_request


@dataclass(frozen=True)
class Own:
    """It asks where its free greedy completion is a help request: how often is what the policy has learned.

    The score is the probability of the help request, where `wish_of` reads it, after the free completion. It does not
    decide anything, and is what the policy claims of being wrong: a request is worth its price where that is likely.

    With a benefit head it asks where the benefit of its greedy answer exceeds the device's lambda, `b > lambda`: the
    rule that it learned by, at temperature 0. Then the score is b, the claim `1 - p_alone`, and lambda 0 where nobody
    has one, as on the frozen model.
    """

    @torch.no_grad()
    def decide(self, pack: Examined) -> list[Choice]:
        """One choice per device; a prompt that it would not ask for is answered by the free completion itself.

        So is one where it asks after a draft, if the model asks after its drafts: that draft is what the device says
        if its request is not granted. It may be less than its answer with asking disabled, of which it is the
        beginning, as the policy may ask at any place of it; `alone_accuracy` is that of the draft here, and that of
        the answer with asking disabled under the rules that decide after it. Where it asks without a draft, or the
        model asks before it answers, it is answered with asking disabled.
        """
        if pack.world.head is not None:
            return self._by_head(pack)
        base, most = pack.world.base, pack.world.answer_tokens
        reading = read(base, pack.world.encoded(pack.tests))
        bias = torch.tensor(pack.biases, device=reading.logits.device) if any(pack.biases) else None  # (K,)
        if bias is not None:
            bias = bias[:, None].expand(reading.prompts.mask.shape[:2])  # (K, P)
        plain: dict[str, Any] = {"group_size": 1, "max_new_tokens": most, "temperature": 0.0}
        free = generate(base, reading, **plain, help_bias=bias, surprise=pack.world.surprise)
        scores = self._chances(pack.world, reading, free).double().cpu().numpy()  # (K, P)
        asked = free.asked[..., 0].cpu().numpy()  # (K, P)
        wishes = [flags[: len(row)] for flags, row in zip(asked, pack.tests, strict=True)]
        texts, drafts, again = _alone(pack, reading, wishes, firsts(free))
        drawn = Drawn.of(free, reading.prompts.counts, reading.prompts)
        alone = [right_alone(*pair) for pair in zip(pack.tests, texts, strict=True)]
        parts = zip(alone, wishes, scores, drafts, drawn, again, strict=True)
        return [
            Choice(right, wanted, own[: len(wanted)], said, np.clip(own[: len(wanted)], 0.0, 1.0), *counted)
            for right, wanted, own, said, *counted in parts
        ]

    def _by_head(self, pack: Examined) -> list[Choice]:
        tried, biases = hear(pack, pack.tests), pack.biases or [0.0] * len(pack.tests)
        return [
            Choice(right_alone(tests, own.answers), own.wish + bias > 0, own.wish, claims=own.wrong)
            for tests, own, bias in zip(pack.tests, tried, biases, strict=True)
        ]

    def _chances(self, world: World, reading: Reading, free: Completions) -> Tensor:
        """Of the request, `(K, P)`."""
        if world.config.model.drafts:
            return wish_of(world, reading, free).exp()  # (K, P)
        first = torch.softmax(reading.logits.float(), -1)[:, world.base.help.ids[0]]  # (K * P,)
        return first.view(free.asked.shape[:2]) * rest_of_request(world.base, reading).exp()  # (K, P)


def _alone(
    pack: Examined, reading: Reading, wishes: list[Flags], texts: list[list[str]]
) -> tuple[list[list[str]], list[tuple[str, ...] | None], list[Drawn]]:
    """What each device says without the cloud, its drafts, or None where the model asks before it answers, and tries.

    Greedy, so only prompts that asked without a draft need a second try. Devices that are given hints go on without.
    """
    world, problems = pack.world, pack.tests
    drafts = [tuple(row) if world.config.model.drafts else None for row in texts]
    goes_on = world.hint is not None
    wanting = [
        [p for p in np.flatnonzero(row).tolist() if goes_on or said is None or not said[p].strip()]
        for row, said in zip(wishes, drafts, strict=True)
    ]
    tried = [Drawn.none(len(row)) for row in problems]
    if any(wanting):
        if goes_on:
            asked = [[problems[k][p] for p in row] for k, row in enumerate(wanting)]
            said = [["" if own is None else own[p] for p in row] for row, own in zip(wanting, drafts, strict=True)]
            again, drawn = answers_after(world, asked, said, [{} for _ in asked])
        else:
            replies = reply_alone(world, reading.of(wanting), world.answer_tokens)
            again, drawn = firsts(replies), Drawn.of(replies, [len(row) for row in wanting])
        for k, row in enumerate(wanting):
            tried[k] = drawn[k].at(row, len(problems[k]))
            for p, text in zip(row, again[k], strict=True):
                texts[k][p] = text
    if not goes_on and not world.config.model.drafts:
        pack.heard[TEXTS, named(problems)] = texts  # a greedy answer without a request is that with asking disabled
    return texts, drafts, tried


OWN = Own()
"""The default of every learner whose help request is a token."""


@dataclass(frozen=True)
class OwnCalibrated(Scored):
    """It asks where the policy most wants to, as often as the budget allows.

    DA-GRPO's lambda makes usage meet the budget on what a device meets while it learns; greedy decoding of a policy
    that is shared asks more or less often than that on the device's own mixture of old and new tasks. The rule keeps
    the policy's order of prompts, the log-probability of the help request (`clients.asking.alone.wish_of` says where),
    and sets where to cut it, as routers are cut. With a benefit head the order is that of the benefit.
    """

    def score(self, alone: Alone) -> Scores:
        """In nats, or b of a head, `(N,)`."""
        return alone.wish

    def claim(self, scores: Scores, alone: Alone) -> Scores:
        """The chance of the request, or a head's of being wrong, as of `Own`."""
        return alone.wrong if len(alone.wrong) else np.clip(np.exp(scores), 0.0, 1.0)
