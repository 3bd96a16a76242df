"""What a request at each prompt counts in `budget.unit`: what asking it can take at most, known before it is asked.

Under a mode of help that takes less than asking the whole question, a request counts the share of it that the device's
questions took so far, and, once it is helped, the share that this one took.
"""

from collections.abc import Mapping, Sequence
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
_LEAST = 1e-3  # of a share, so that it can be divided by


def request_weights(world: World, devices: Sequence[Device], problems: Sequence[Sequence[Problem]]) -> Tensor | None:
    """Weights of the prompts of a step, `(K, P)`; None where all requests are alike.

    Of asking they have mean 1 over each device's own; of a mode that takes less, its share of that. A cost is that of
    the whole question as it is sent without a draft, since weights are known before there are drafts.
    """
    budget = world.config.budget
    if budget.unit == CALLS:
        return None
    weights = torch.ones(len(problems), max(len(row) for row in problems))  # (K, P)
    for k, (device, row) in enumerate(zip(devices, problems, strict=True)):
        sent = [as_sent(problem, "", world.prices) for problem in row]
        costs = [device.tariff.cost(world.cloud.quote(one), one, budget.unit) for one in sent]
        weights[k, : len(row)] = device.share * torch.tensor(over_mean(costs))
    return weights.to(world.base.model.device)  # (K, P)


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
    """What help took of what asking the whole question takes at most, at most 1, by device and prompt.

    Nothing where help is asking, or where a question counts as one call whatever it took.
    """
    unit = world.config.budget.unit
    if not world.works_together or unit == CALLS:
        return {}
    found = {}
    for (k, p), answer in answers.items():
        problem, tariff = problems[k][p], devices[k].tariff
        whole = tariff.cost(world.cloud.quote(problem), problem, unit)
        found[k, p] = min(float(tariff.took(answer, problem, unit) / whole), 1.0) if whole else 1.0
    return found


def taken_weights(
    devices: Sequence[Device], weight: Tensor | None, shares: Mapping[tuple[int, int], float]
) -> Tensor | None:
    """Weights `(K, P)` as they were expected, with what help took where it came; a device's mean share moves on.

    Args:
        devices: K of them.
        weight: as expected, `(K, P)`; None where all requests are alike.
        shares: of `shares_of`, by device and prompt.
    """
    if weight is None or not shares:
        return weight
    weight = weight.clone()
    for k, device in enumerate(devices):
        own = {p: share for (at, p), share in shares.items() if at == k}
        for p, share in own.items():
            weight[k, p] *= share / device.share
        if own:
            mean = sum(own.values()) / len(own)
            device.share = max(_MEMORY * device.share + (1 - _MEMORY) * mean, _LEAST)
    return weight
