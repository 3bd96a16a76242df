"""What a request at each prompt counts in `budget.unit`: what asking it can take at most, known before it is asked."""

from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor

from clients.device.device import Device
from clients.device.rollout import Problems
from clients.device.world import World
from flsim.cloud.draft import as_sent
from flsim.config.budget import CALLS


def request_weights(world: World, devices: Sequence[Device], problems: Problems) -> Tensor | None:
    """Weights of the prompts of a step, of mean 1 over each device's own, `(K, P)`; None where all requests are alike.

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
    return weights.to(world.base.model.device)  # (K, P)


def over_mean(costs: Sequence[Fraction]) -> list[float]:
    """Each cost over their mean; 1 for all where none costs anything.

    It is taken exactly, so that equal costs have the weight 1 to the last bit. By hand: 1 and 3 give 0.5 and 1.5.
    """
    total = sum(costs, Fraction(0))
    return [float(cost * len(costs) / total) if total else 1.0 for cost in costs]
