"""GAPG: group-adaptive policy gradient with a reward in two steps and a filter of prompts (Fang et al., 2509.24050).

The filter learns from prompts that the device can solve and, for every so many of them, from one that only the cloud
can; so it is the filter, not a price, that ties the share of asking to the budget.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from clients.app import DeviceApp
from clients.learner import learner_app
from clients.pack import Pack
from clients.reinforcement import Reinforcement
from clients.rollout import Rollout
from flsim.config import Config
from flsim.learning.advantage import task_advantage
from flsim.learning.gapg import hierarchical_reward, kept_prompts


@dataclass(frozen=True)
class Gapg(Reinforcement):
    """The settings of one device's round."""

    help_reward: float = 0.3
    """alpha_c, the reward of a right answer by the cloud, from 0 to 1; alone it is 1."""
    rho: float | None = None
    """Prompts that only the cloud can solve for each that the device can; None is tau / (1 - tau)."""
    strict: bool = False
    """Whether a prompt that the device can solve must also have a wrong response (the paper's Algorithm 1; its text
    does not ask for it)."""

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

    def kept(self, pack: Pack, rollout: Rollout) -> Tensor:
        """The two sets of the filter, `(K, P)`."""
        tau = pack.world.config.budget.tau
        rho = tau / max(1 - tau, 1e-9) if self.rho is None else self.rho
        return kept_prompts(rollout.right_alone, rollout.right, rollout.prompts.real, rho=rho, strict=self.strict)


def client_app(config: Config, **settings: Any) -> DeviceApp:
    """The plug-in that `client.path=clients.gapg:client_app` names."""
    return learner_app(config, Gapg, **settings)
