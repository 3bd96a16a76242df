"""What a request at each prompt counts in `budget.unit`: what asking it can take at most, known before it is asked.

Under a mode of help that takes less than asking the whole question, a request counts the share of it that the device's
questions took so far, and, once it is helped, the share that this one took. Usage stays a share of what asking every
question would take, so that of help at half the cost a device may have twice as much.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch import Tensor

from clients.device.device import Device
from clients.device.world import World
from flsim.cloud.draft import as_sent
from flsim.cloud.protocol import Answer
from flsim.config.budget import CALLS
from flsim.problems.problem import Problem

_MEMORY = 0.9  # of a device's mean share, what a step leaves of it
_LEAST = 1e-3  # of a share, so that a request is never free


@dataclass(frozen=True)
class Weights:
    """What a request at each prompt of a step counts."""

    whole: Tensor
    """What asking the whole question does, `(K, P)`; of mean 1 over a device's own prompts."""
    expected: Tensor
    """What one counts that is not helped yet, `(K, P)`: of that the share that help took on the device so far."""
    each: Tensor
    """What it counted, `(K, P)`: where help came the share that it took, elsewhere what was expected."""


def request_weights(world: World, devices: Sequence[Device], problems: Sequence[Sequence[Problem]]) -> Weights | None:
    """Weights of the prompts of a step, before anything is asked; None where all requests are alike.

    A cost is that of the whole question as it is sent without a draft, since weights are known before there are drafts.
    """
    budget = world.config.budget
    if budget.unit == CALLS:
        return None
    weights = torch.ones(len(problems), max(len(row) for row in problems))  # (K, P)
    for k, (device, row) in enumerate(zip(devices, problems, strict=True)):
        sent = [as_sent(problem, "", world.prices) for problem in row]
        costs = [device.tariff.cost(world.cloud.quote(one), one, budget.unit) for one in sent]
        weights[k, : len(row)] = torch.tensor(over_mean(costs))
    whole = weights.to(world.base.model.device)  # (K, P)
    share = torch.tensor([device.share for device in devices], device=whole.device)[:, None]  # (K, 1)
    return Weights(whole, share * whole, share * whole)


def over_mean(costs: Sequence[Fraction]) -> list[float]:
    """Each cost over their mean; 1 for all where none costs anything.

    It is taken exactly, so that equal costs have the weight 1 to the last bit. By hand: 1 and 3 give 0.5 and 1.5.
    """
    total = sum(costs, Fraction(0))
    return [float(cost * len(costs) / total) if total else 1.0 for cost in costs]


def shares_of(
    world: World,
    devices: Sequence[Device],
    problems: Sequence[Sequence[Problem]],
    answers: Mapping[tuple[int, int], Answer],
) -> dict[tuple[int, int], float]:
    """What help took of what asking for the same answer would have, by device and prompt; above 1 it is dearer.

    Nothing where help is asking, or where a question counts as one call whatever it took. What asking takes at most
    would be no measure: an exchange that took as much as asking would then seem to be cheap.
    """
    unit = world.config.budget.unit
    if not world.works_together or unit == CALLS:
        return {}
    found = {}
    for (k, p), answer in answers.items():
        problem, tariff = problems[k][p], devices[k].tariff
        whole = tariff.took(_asked_for(world, problem, answer), problem, unit)
        found[k, p] = float(tariff.took(answer, problem, unit) / whole) if whole else 1.0
    return found


def _asked_for(world: World, problem: Problem, answer: Answer) -> Answer:
    """The answer as one request would have brought it; its tokens are counted by the device's own tokenizer."""
    most = world.cloud.quote(problem)
    said = len(world.base.spell(answer.text, most.completion_tokens))
    return Answer(answer.text, most.prompt_tokens, said)


def taken_weights(
    devices: Sequence[Device], weights: Weights | None, shares: Mapping[tuple[int, int], float]
) -> Weights | None:
    """Weights with what help took where it came, at most as much as asking; a device's mean share moves on.

    Args:
        devices: K of them.
        weights: as they were before; None where all requests are alike.
        shares: of `shares_of`, by device and prompt.
    """
    if weights is None or not shares:
        return weights
    each = weights.each.clone()  # (K, P)
    for k, device in enumerate(devices):
        own = {p: min(share, 1.0) for (at, p), share in shares.items() if at == k}
        for p, share in own.items():
            each[k, p] = share * weights.whole[k, p]
        if own:
            mean = sum(own.values()) / len(own)
            device.share = max(_MEMORY * device.share + (1 - _MEMORY) * mean, _LEAST)
    return replace(weights, each=each)
