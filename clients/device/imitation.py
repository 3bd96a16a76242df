"""What is learned of answers that somebody else gave: those of the cloud, bought now or kept from before."""

from collections.abc import Sequence

import torch
from torch import Tensor

from clients.device.counts import count_learning, count_reading
from clients.device.pack import Pack
from flsim.learning.losses import PolicyLoss
from flsim.models.decoding import Completions, encode, given, read
from flsim.models.scoring import pull_back, pulled
from flsim.problems.problem import Problem

Lesson = tuple[Problem, str, float]
"""A question, what is said to it, and its advantage."""


def imitated_gradient(
    pack: Pack,
    lessons: Sequence[Sequence[Lesson]],
    prompts: Sequence[int],
    loss: PolicyLoss,
    *,
    weight: float,
    longest: int,
    tokens: int,
) -> Tensor:
    """The gradient of lessons as further responses of their groups, `(K, n)`.

    Args:
        pack: whose adapters have not moved since the sampling, or a step ago.
        lessons: of each device, at least one in all.
        prompts: of each device's step, over which its loss is a mean.
        loss: how tokens become one number.
        weight: of the advantages.
        longest: most tokens of an answer, the ending one included.
        tokens: most tokens in one forward pass.
    """
    base = pack.world.base
    taught = given(base, [[base.spell(text, longest) for _, text, _ in row] for row in lessons])
    gains = torch.zeros(taught.mask.shape[:3])  # (K, P, 1)
    for k, own in enumerate(lessons):
        gains[k, : len(own), 0] = torch.tensor([gain for _, _, gain in own])
    pull = _pull_of(taught, weight * gains.to(pack.theta.device), prompts, loss)
    pack.attach()
    reading = read(base, encode(base, base.prompts([[problem for problem, _, _ in row] for row in lessons])))
    count_reading(pack.devices, reading.prompts)
    count_learning(pack.devices, pulled(taught, pull))
    parts = base, pack.world.lora, reading, taught, pull
    return pull_back(*parts, temperature=1.0, tokens=tokens, may_ask=False)  # (K, n)


def _pull_of(taught: Completions, advantage: Tensor, prompts: Sequence[int], loss: PolicyLoss) -> Tensor:
    """The gradient of the loss by the log-probabilities of taught answers, `(K, P, 1, T)`, per prompt of a step."""
    logprobs = torch.zeros(taught.mask.shape, device=taught.mask.device).requires_grad_()  # (K, P, 1, T)
    real = taught.mask.any(-1)[..., 0]  # (K, P)
    value = loss.per_device(logprobs, advantage, taught.mask, real)  # (K,)
    counts = torch.tensor(prompts, device=value.device).clamp(min=1)  # (K,)
    (pull,) = torch.autograd.grad((value * real.sum(-1) / counts).sum(), logprobs)  # (K, P, 1, T)
    return pull
