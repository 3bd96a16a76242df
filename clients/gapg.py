"""GAPG: group-adaptive policy gradient with a reward in two steps and a filter of prompts (Fang et al., 2509.24050).

The filter learns from prompts that the device can solve and, for every so many of them, from one that only the cloud
can; so it is the filter, not a price, that ties the share of asking to the budget.

Its estimator is `1 / (G - 1) sum_i (r_i - mean) grad log pi(y_i)`, averaged over the kept prompts D1 and D2 instead of
all. `task_advantage` over G responses is that estimator, so the loss is that of DA-GRPO with lambda 0 and with the kept
prompts in the place of those that are not filling; where nothing is kept it is 0.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from clients.device.pack import Pack
from clients.device.rollout import Rollout
from clients.reinforcement import Reinforcement
from flsim.learning.advantage import task_advantage


def hierarchical_reward(
    right_alone: Tensor, right: Tensor, asked: Tensor, *, alpha_a: float = 1.0, alpha_c: float = 0.3
) -> Tensor:
    """`alpha_a` for a right answer of one's own, `alpha_c` for one by the cloud, 0 for a wrong one (equation 18).

    Args:
        right_alone: 1 where the response itself is right, `(K, P, G)`.
        right: 1 where the final answer is right, whoever gave it, `(K, P, G)`.
        asked: 1 where the response asked, `(K, P, G)`.
        alpha_a: above `alpha_c`.
        alpha_c: the paper's are 0.2 to 0.6, less for weaker devices; at 0 there is no reason to ask, and near
            `alpha_a` none not to.

    Returns:
        `(K, P, G)`.

    Raises:
        ValueError: unless `0 <= alpha_c <= alpha_a`.
    """
    if not 0 <= alpha_c <= alpha_a:
        raise ValueError(
            f"alpha_c={alpha_c} must lie between 0 and alpha_a={alpha_a}: help must not earn more than one's own answer"
        )
    by_cloud = right * asked * (1 - right_alone)  # (K, P, G)
    return alpha_a * right_alone + alpha_c * by_cloud  # (K, P, G)


def kept_prompts(
    right_alone: Tensor,
    right: Tensor,
    real: Tensor,
    *,
    rho: Sequence[float],
    strict: bool = False,
    weight: Tensor | None = None,
    whole: Tensor | None = None,
) -> Tensor:
    """The prompts that are learned from: D1, which the device can solve, and a few of D2, which only the cloud can.

    D1 holds the prompts with at least one right answer of the device's own. D2 holds those without one at which asking
    brought the right answer, the first `floor(rho |D1|)` in their order. So at most rho / (1 + rho) of what is kept
    teaches to ask, which bounds the usage that is learned; prompts that nobody solves are dropped. Where requests have
    weights, D2 is the first of those prompts at which they weigh at most rho / (1 + rho) of what asking at all of D1
    and D2 would: with w of a request and v of asking, `sum_D2 (w + rho (w - v)) <= rho sum_D1 v`.

    Args:
        right_alone: 1 where the response itself is right, `(K, P, G)`.
        right: 1 where the final answer is right, whoever gave it, `(K, P, G)`.
        real: True at prompts that are not filling, `(K, P)`.
        rho: of each device, K of them, at least 0; tau / (1 - tau) for a budget tau, such as 3/7 for 0.3.
        strict: whether a prompt of D1 must also have a response that is not right by itself. The paper's text asks for
            a right one only (section 3.3.2), its Algorithm 1 for both; without it, a group of equal rewards adds
            nothing to the sum and still counts in the mean.
        weight: what a request counts at each prompt, `(K, P)`; None is 1.
        whole: what asking the whole question would, `(K, P)`; None is `weight`.

    Returns:
        True at kept prompts, `(K, P)`; by each device's own counts.

    Raises:
        ValueError: for a rho that is not finite or below 0.
    """
    for one in rho:
        if not (math.isfinite(one) and one >= 0):
            raise ValueError(f"rho={one} must be finite and at least 0; for a budget tau it is tau / (1 - tau)")
    alone = right_alone > 0  # (K, P, G)
    solved = alone.any(-1) & real  # (K, P)
    d1 = solved & ~alone.all(-1) if strict else solved  # (K, P)
    helped = (right > right_alone).any(-1) & real & ~solved  # (K, P)
    each = torch.tensor(rho, dtype=torch.float64, device=d1.device)  # (K,)
    counts = (torch.ones_like(d1) if weight is None else weight).double()  # (K, P)
    asking = counts if whole is None else whole.double()  # (K, P)
    quota = each * (d1 * asking).sum(-1) + 1e-9  # (K,): 0.29 x 100 is 28.999... in binary, and means 29
    taken = helped * (counts + each[:, None] * (counts - asking))  # (K, P); below 0 where help takes less than tau
    d2 = helped & (taken.cumsum(-1).cummax(-1).values <= quota[:, None])  # (K, P)
    return d1 | d2  # (K, P)


@dataclass(frozen=True)
class Gapg(Reinforcement):
    """The settings of one device's round."""

    help_reward: float = 0.3
    """alpha_c, the reward of a right answer by the cloud, from 0 to 1; alone it is 1."""
    rho: float | None = None
    """Prompts that only the cloud can solve for each that the device can; None is tau / (1 - tau) of the device's own
    tau, which under a shared budget of the fleet changes from round to round."""
    strict: bool = False
    """Whether a prompt that the device can solve must also have a wrong response (the paper's Algorithm 1; its text
    does not ask for it)."""

    weighs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        super().__post_init__()
        if not 0 <= self.help_reward <= 1:
            raise ValueError(f"help_reward={self.help_reward} must be in [0, 1]: an answer of one's own earns 1")
        if self.rho is not None and not self.rho >= 0:
            raise ValueError(f"rho={self.rho} must be at least 0")

    def advantage(self, pack: Pack, rollout: Rollout) -> Tensor:
        """`(K, P, G)`; zero where the prompt is filtered out."""
        parts = rollout.right_alone, rollout.right, rollout.asked
        rewards = hierarchical_reward(*parts, alpha_c=self.help_reward)  # (K, P, G)
        return task_advantage(rewards) * self.kept(pack, rollout)[..., None]  # (K, P, G)

    def gain(self, pack: Pack, rollout: Rollout) -> Tensor:
        """By the reward for answers of the cloud, `(K, P)`; zero where the prompt is filtered out."""
        return rollout.gain(self.help_reward) * self.kept(pack, rollout)  # (K, P)

    def kept(self, pack: Pack, rollout: Rollout) -> Tensor:
        """The two sets of the filter, `(K, P)`; what the cloud got right at an explored prompt is known, too."""
        right = rollout.right  # (K, P, G)
        if rollout.explored is not None:
            bought = (rollout.help.right * rollout.help.came).to(right.device)  # (K, P)
            right = right.maximum((bought * rollout.explored)[..., None])  # (K, P, G)
        taus = [device.ledger.budget.tau for device in pack.devices]  # not pack.tau, which is rounded to float32
        rho = [tau / max(1 - tau, 1e-9) if self.rho is None else self.rho for tau in taus]
        parts = rollout.right_alone, right, rollout.prompts.real
        return kept_prompts(*parts, rho=rho, strict=self.strict, weight=rollout.weights, whole=rollout.whole)
