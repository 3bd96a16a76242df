"""Advantages: how much better, or dearer, a response is than those it is compared with.

The dual advantage of DA-GRPO is `A = A_r - lambda A_c` (Chen, Fang, Wang, Brinton 2026, arXiv 2602.00166), of
`task_advantage` and `cost_advantage`. Both parts are centred and neither is divided by its standard deviation: dividing
the sum would rescale lambda from group to group, and it would no longer be the multiplier of the budget constraint.
Each centred part carries the factor n / (n - 1) that makes the estimator unbiased although a response is part of its
own baseline. `separately_scaled` is the way to divide that leaves lambda alone.
"""

import torch
from torch import Tensor

COST_BASELINES = ("group", "batch", "budget")


def task_advantage(rewards: Tensor) -> Tensor:
    """Reward minus the group's mean, times G / (G - 1).

    Args:
        rewards: `(..., P, G)`.

    Returns:
        `(..., P, G)`; zero throughout a group whose rewards are all equal.
    """
    g = rewards.shape[-1]
    return centred(rewards) * (g / (g - 1))  # (..., P, G)


def centred(values: Tensor) -> Tensor:
    """Value minus the group's mean, without a factor: Dr.GRPO's advantage (Liu et al. 2025, arXiv 2503.20783).

    It is TRL's `scale_rewards="none"`, to the last bit. Its expected policy gradient is (G - 1) / G of the true one,
    which is a matter of the learning rate as long as nothing else is added.

    Args:
        values: `(..., P, G)`.

    Returns:
        `(..., P, G)`.
    """
    return values - values.mean(-1, keepdim=True)  # (..., P, G)


def group_scaled(rewards: Tensor, eps: float = 1e-4) -> Tensor:
    """`(r - mean) / (std + eps)` in the group: GRPO's advantage (Shao et al. 2024, arXiv 2402.03300).

    The deviation is the unbiased one and eps is 1e-4, as in TRL's `scale_rewards="group"`, which it equals to the last
    bit. It forgets how much is at stake: one response that earns 1 and one that earns 0.3 in a group of zeros get the
    same advantage, so a right answer by the cloud comes to count as much as one's own, whatever it was to earn.

    Args:
        rewards: `(..., P, G)`.
        eps: keeps a group of equal rewards from a division by 0.

    Returns:
        `(..., P, G)`.
    """
    g = rewards.shape[-1]
    offsets = centred(rewards)  # (..., P, G)
    variance = offsets.square().mean(-1, keepdim=True) * (g / (g - 1))  # (..., P, 1)
    return offsets / (variance.sqrt() + eps)  # (..., P, G)


def z_scored(values: Tensor) -> Tensor:
    """`(v - mean) / std` in the group, and zero in a group of equal values.

    Args:
        values: `(..., P, G)`.

    Returns:
        `(..., P, G)`, of mean 0 and unbiased standard deviation 1, or all zero.
    """
    # the deviation of equal values may round to something else than 0, and would blow a last bit up to 1
    varied = values.amax(-1, keepdim=True) > values.amin(-1, keepdim=True)  # (..., P, 1)
    return torch.where(varied, group_scaled(values, eps=0.0), 0.0)  # (..., P, G)


def separately_scaled(rewards: Tensor, costs: Tensor, price: Tensor) -> Tensor:
    """`Z_r - lambda Z_c`, each part in units of its own deviation (Constrained GRPO, arXiv 2602.05863, A_ScAdv).

    Scaling the sum instead multiplies lambda by std(c) / std(r - lambda c), another number in every group; here it
    weighs the same in all of them. It is no longer the price in units of reward, though: a group in which one of eight
    asks is pulled as strongly as one in which half do. A group that asks unanimously has no cost signal, as with
    `group`.

    Args:
        rewards: `(K, P, G)`.
        costs: 1 where a response asks the cloud, `(K, P, G)`.
        price: lambda of each device `(K,)`.

    Returns:
        `(K, P, G)`.
    """
    return z_scored(rewards) - price[:, None, None] * z_scored(costs)  # (K, P, G)


def cost_advantage(
    costs: Tensor, *, baseline: str, real: Tensor | None = None, tau: Tensor | float | None = None
) -> Tensor:
    """Cost minus its baseline. All three have the same expected policy gradient, and differ in what they can see.

    - `group`: the group's mean, times G / (G - 1); the paper's. It is blind to saturated groups: where all responses
      ask, or none does, it is zero whatever lambda is. A policy that always asks feels no price at all while lambda
      winds up, until it has risen so far that usage then collapses.
    - `batch`: the mean over the device's batch, times n / (n - 1). It keeps the signal in unanimous groups as long as
      others differ; a device that asks at every prompt of a step still feels nothing.
    - `budget`: tau, without a factor, since a constant holds nothing of the response. It is never blind: requests are
      pressed down even where all ask, so that lambda does not wind up unheard. Where usage is far from tau it is
      noisier than a mean, because most responses are then pulled the same way.

    Args:
        costs: 1 where a response asks the cloud, or what its request counts, in the mean 1, `(..., P, G)`.
        baseline: `group`, `batch` or `budget`.
        real: True at prompts that are not filling, `(..., P)`; None means all. Filling gets zero.
        tau: the device's budget, the share of prompts at which it may ask: `(...)` or one number; for `budget`.

    Returns:
        `(..., P, G)`.

    Raises:
        ValueError: for an unknown baseline, or `budget` without tau.
    """
    if baseline not in COST_BASELINES:
        raise ValueError(f"cost_baseline={baseline!r} is not known; choose one of: {', '.join(COST_BASELINES)}")
    real = torch.ones(costs.shape[:-1], dtype=torch.bool, device=costs.device) if real is None else real
    weight = real[..., None].to(costs.dtype)  # (..., P, 1)
    if baseline == "budget":
        if tau is None:
            raise ValueError("cost_baseline='budget' compares the cost with tau, and none is given")
        budget = torch.as_tensor(tau, dtype=costs.dtype, device=costs.device)[..., None, None]  # (..., 1, 1)
        return (costs - budget) * weight  # (..., P, G)
    if baseline == "group":
        return task_advantage(costs) * weight  # (..., P, G)
    n = (weight.sum((-2, -1), keepdim=True) * costs.shape[-1]).clamp(min=2.0)  # (..., 1, 1)
    mean = (costs * weight).sum((-2, -1), keepdim=True) / n  # (..., 1, 1)
    return (costs - mean) * weight * (n / (n - 1))  # (..., P, G)
