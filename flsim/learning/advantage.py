"""The dual advantage of DA-GRPO: `A = A_r - lambda A_c` (Chen, Fang, Wang, Brinton 2026, arXiv 2602.00166).

Both parts are centred and neither is divided by its standard deviation: dividing the sum would rescale lambda from
group to group, and it would no longer be the multiplier of the budget constraint. Each centred part carries the factor
n / (n - 1) that makes the estimator unbiased although a response is part of its own baseline.
"""

import torch
from torch import Tensor

COST_BASELINES = ("group", "batch")


def task_advantage(rewards: Tensor) -> Tensor:
    """Reward minus the group's mean, times G / (G - 1).

    Args:
        rewards: `(..., P, G)`.

    Returns:
        `(..., P, G)`; zero throughout a group whose rewards are all equal.
    """
    g = rewards.shape[-1]
    return (rewards - rewards.mean(-1, keepdim=True)) * (g / (g - 1))  # (..., P, G)


def cost_advantage(costs: Tensor, *, baseline: str, real: Tensor | None = None) -> Tensor:
    """Cost minus its baseline, times n / (n - 1).

    The group's mean is the paper's baseline; it is zero in every group that asks unanimously, so a policy that always
    asks feels no price at all while lambda winds up. The mean over the device's batch has the same expectation and
    keeps its signal in unanimous groups.

    Args:
        costs: 1 where a response asks the cloud, `(..., P, G)`.
        baseline: `group` or `batch`.
        real: True at prompts that are not filling, `(..., P)`; None means all. Filling gets zero.

    Returns:
        `(..., P, G)`.
    """
    if baseline not in COST_BASELINES:
        raise ValueError(f"cost_baseline={baseline!r} is not known; choose one of: {', '.join(COST_BASELINES)}")
    real = torch.ones(costs.shape[:-1], dtype=torch.bool, device=costs.device) if real is None else real
    weight = real[..., None].to(costs.dtype)  # (..., P, 1)
    if baseline == "group":
        n = torch.tensor(float(costs.shape[-1]))
        mean = costs.mean(-1, keepdim=True)  # (..., P, 1)
    else:
        n = (weight.sum((-2, -1), keepdim=True) * costs.shape[-1]).clamp(min=2.0)  # (..., 1, 1)
        mean = (costs * weight).sum((-2, -1), keepdim=True) / n  # (..., 1, 1)
    return (costs - mean) * weight * (n / (n - 1))  # (..., P, G)


def policy_gradient_loss(logprobs: Tensor, advantages: Tensor, real: Tensor) -> Tensor:
    """Per-device loss whose gradient is minus the policy gradient: `-mean over responses of A log pi(response)`.

    A response's log-probability is the sum over its own tokens, strictly on policy, without clipping and KL. The mean
    is over the device's own responses, so that devices of a pack cannot weigh on each other.

    Args:
        logprobs: of the sampled tokens, zero after the end, `(K, P, G, T)`, with gradient.
        advantages: `(K, P, G)`.
        real: True at prompts that are not filling, `(K, P)`.

    Returns:
        `(K,)`.
    """
    weight = real[..., None].to(logprobs.dtype)  # (K, P, 1)
    gain = logprobs.sum(-1) * advantages.detach() * weight  # (K, P, G)
    responses = (real.sum(-1) * advantages.shape[-1]).clamp(min=1)  # (K,)
    return -gain.sum((-2, -1)) / responses  # (K,)
