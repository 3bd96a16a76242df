"""Rules that go by what the policy has learned of asking: its own decision, the default, or its wish, calibrated."""

from dataclasses import dataclass

import numpy as np
import torch

from clients.asking.alone import Alone
from clients.asking.rule import Choice, Examined, Flags, Scores, right_alone
from clients.asking.threshold import Scored
from clients.device.rollout import Problems, answer_alone
from clients.device.world import World
from flsim.models.decoding import encode, generate, read
from flsim.models.scoring import rest_of_request


@dataclass(frozen=True)
class Own:
    """It asks where its free greedy completion is a help request: how often is what the policy has learned.

    The score is the probability of the help request as the beginning of the answer. It does not decide anything.
    """

    @torch.no_grad()
    def decide(self, pack: Examined) -> list[Choice]:
        """One choice per device; a prompt that it would not ask for is answered by the free completion itself."""
        base = pack.world.base
        reading = read(base, encode(base, base.prompts(pack.tests)))
        bias = torch.tensor(pack.biases, device=reading.logits.device) if any(pack.biases) else None  # (K,)
        if bias is not None:
            bias = bias[:, None].expand(reading.prompts.mask.shape[:2])  # (K, P)
        most = pack.world.answer_tokens
        free = generate(base, reading, group_size=1, max_new_tokens=most, temperature=0.0, help_bias=bias)
        first = torch.softmax(reading.logits.float(), -1)[:, base.help.ids[0]]  # (K * P,)
        chances = first.view(free.asked.shape[:2]) * rest_of_request(base, reading).exp()  # (K, P)
        scores, asked = chances.double().cpu().numpy(), free.asked[..., 0].cpu().numpy()  # (K, P) each
        wishes = [flags[: len(row)] for flags, row in zip(asked, pack.tests, strict=True)]
        alone = _alone(pack.world, pack.tests, wishes, [[group[0] for group in row] for row in free.texts])
        return [
            Choice(right, wanted, own[: len(wanted)]) for right, wanted, own in zip(alone, wishes, scores, strict=True)
        ]


def _alone(world: World, problems: Problems, wishes: list[Flags], texts: list[list[str]]) -> list[Flags]:
    """Whether each device is right with asking disabled; greedy, so only prompts that asked need a second try."""
    wanting = [np.flatnonzero(row).tolist() for row in wishes]
    if any(wanting):
        asked = [[problems[k][p] for p in row] for k, row in enumerate(wanting)]
        again = answer_alone(world, asked, world.answer_tokens)
        for k, row in enumerate(wanting):
            for p, text in zip(row, again[k], strict=True):
                texts[k][p] = text
    return [right_alone(*pair) for pair in zip(problems, texts, strict=True)]


OWN = Own()
"""The default of every learner."""


@dataclass(frozen=True)
class OwnCalibrated(Scored):
    """It asks where the policy most wants to, as often as the budget allows.

    DA-GRPO's lambda makes usage meet the budget on what a device meets while it learns; greedy decoding of a policy
    that is shared asks more or less often than that on the device's own mixture of old and new tasks. The rule keeps
    the policy's order of prompts, the log-probability that an answer begins with the help request, and sets where to
    cut it, as routers are cut.
    """

    def score(self, alone: Alone) -> Scores:
        """In nats, `(N,)`."""
        return alone.wish
