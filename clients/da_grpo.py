"""DA-GRPO: learn the tasks and when to ask the cloud, together (Chen, Fang, Wang, Brinton 2026, arXiv 2602.00166).

Per prompt a group of G responses, some of which ask; one cloud query per prompt, shared by its asking responses; reward
1 if the final answer is right, cost 1 if the response asked. The advantage is `A = A_r - lambda A_c`, the update the
plain on-policy gradient, and lambda rises while usage is above tau and falls while it is below (Algorithm 1). The
paper's plain form is `dual_gain=0, dual_max=inf, cost_baseline=group`; the defaults are the guards that make it settle.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from clients.device.device import Device
from clients.device.pack import Pack
from clients.device.rollout import Rollout
from clients.reinforcement import Reinforcement
from flsim.config.schema import Config
from flsim.learning.advantage import COST_BASELINES, cost_advantage, separately_scaled, task_advantage
from flsim.learning.dual import DualRule

NORMALISATIONS = ("centred", "separately")


@dataclass(frozen=True)
class DaGrpo(Reinforcement):
    """The settings of one device's round."""

    help_reward: float = 1.0
    """alpha_c, the reward of a right answer by the cloud; alone it is 1."""
    cost_baseline: str = "batch"
    """`group` (the paper's); `batch`, which keeps a signal in groups that ask unanimously; or `budget` (tau), which
    keeps one even where all groups do."""
    normalise: str = "centred"
    """`centred` (the paper's), or `separately`: each part by its own standard deviation in the group, so that neither
    the rewards' nor the costs' spread decides what lambda means (Constrained GRPO, arXiv 2602.05863)."""
    dual_init: float = 0.5
    """lambda at the start."""
    dual_lr: float = 0.1
    """eta of the dual ascent."""
    dual_gain: float = 2.0
    """Proportional gain beside the integral; 0 is the paper's form."""
    dual_max: float = 1.0
    """Upper clip of lambda; .inf is the paper's form."""
    dual_bias: float = 0.0
    """How far lambda itself holds the help request back: its logit is lowered by `dual_bias (lambda - dual_init)`, a
    threshold of the device's own, which no averaging of adapters takes away; 0 is the paper's form."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        super().__post_init__()
        if not 0 <= self.dual_bias < math.inf:
            raise ValueError(f"dual_bias={self.dual_bias} must be finite and at least 0, in logits per unit of lambda")
        if self.cost_baseline not in COST_BASELINES:
            raise ValueError(f"cost_baseline={self.cost_baseline!r} must be one of: {', '.join(COST_BASELINES)}")
        if self.normalise not in NORMALISATIONS:
            raise ValueError(f"normalise={self.normalise!r} must be one of: {', '.join(NORMALISATIONS)}")

    @classmethod
    def check(cls, config: Config, settings: Mapping[str, Any]) -> None:
        """Refuse to move a lambda of the device's own where the fleet has one for all."""
        super().check(config, settings)
        own = [name for name in settings if name.startswith("dual_")]
        if own and config.budget.fleet.rule == "price":
            raise ValueError(
                f"{', '.join(own)} would move a device's own dual variable, and budget.fleet.division=price has one "
                f"for all; leave it out, and set budget.fleet.price_init, price_lr, price_gain or price_max"
            )

    @property
    def first_dual(self) -> float:
        """Lambda of a device that has not learned yet."""
        return self.dual_init

    def help_bias(self, dual: float) -> float:
        """`dual_bias (dual_init - lambda)`: none at the start, less than none where asking has become dear."""
        return self.dual_bias * (self.dual_init - dual)

    def advantage(self, pack: Pack, rollout: Rollout) -> Tensor:
        """`A_r - lambda A_c`, `(K, P, G)`."""
        by_cloud = rollout.right - rollout.right_alone  # (K, P, G)
        rewards = rollout.right_alone + self.help_reward * by_cloud  # (K, P, G)
        price = self._rule(pack.devices).price(pack.dual, rollout.usage, pack.tau)  # (K,)
        if self.normalise == "separately":
            return separately_scaled(rewards, rollout.asked, price)  # (K, P, G)
        costs = cost_advantage(rollout.asked, baseline=self.cost_baseline, real=rollout.open, tau=pack.tau)  # (K, P, G)
        return task_advantage(rewards) - price[:, None, None] * costs  # (K, P, G)

    def after(self, pack: Pack, rollout: Rollout) -> None:
        """The dual ascent."""
        pack.dual = self._rule(pack.devices).ascend(pack.dual, rollout.usage, pack.tau)  # (K,)

    def _rule(self, devices: Sequence[Device]) -> DualRule:
        """The devices' own rule; under a price of the fleet one that leaves it as it is, equal for all."""
        if any(device.price is not None for device in devices):
            return DualRule(lr=0.0, gain=0.0, maximum=math.inf)
        return DualRule(self.dual_lr, self.dual_gain, self.dual_max)
