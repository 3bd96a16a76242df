"""Collaborative GRPO: a fixed reward for answers by the cloud, and no budget (a baseline of arXiv 2509.24050).

A right answer alone earns 1, one by the cloud `help_reward`, all others nothing. Divided by the group's standard
deviation (`form=grpo`) one right answer among wrong ones counts the same whoever gave it, which drives a policy that
rarely succeeds to ask always; `form=dr_grpo` does not divide (Liu et al. 2025, arXiv 2503.20783).
"""

from dataclasses import dataclass

from torch import Tensor

from clients.device.pack import Pack
from clients.device.rollout import Rollout
from clients.gapg import hierarchical_reward
from clients.reinforcement import Reinforcement
from flsim.learning.advantage import centred, group_scaled

FORMS = ("grpo", "dr_grpo")


@dataclass(frozen=True)
class CollaborativeGrpo(Reinforcement):
    """The settings of one device's round."""

    help_reward: float = 0.3
    """alpha_c, the reward of a right answer by the cloud, from 0 to 1; alone it is 1."""
    form: str = "grpo"
    """`grpo`: by the group's standard deviation, mean token; `dr_grpo`: neither."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        super().__post_init__()
        if not 0 <= self.help_reward <= 1:
            raise ValueError(f"help_reward={self.help_reward} must be in [0, 1]: an answer of one's own earns 1")
        if self.form not in FORMS:
            raise ValueError(f"form={self.form!r} must be one of: {', '.join(FORMS)}")

    def gain(self, pack: Pack, rollout: Rollout) -> Tensor:
        """By the reward for answers of the cloud, `(K, P)`."""
        return rollout.gain(self.help_reward)  # (K, P)

    @property
    def aggregation(self) -> str:
        """The form's own."""
        return self.form

    def advantage(self, pack: Pack, rollout: Rollout) -> Tensor:
        """`(K, P, G)`."""
        parts = rollout.right_alone, rollout.right, rollout.asked
        rewards = hierarchical_reward(*parts, alpha_c=self.help_reward)  # (K, P, G)
        return group_scaled(rewards) if self.form == "grpo" else centred(rewards)  # (K, P, G)
