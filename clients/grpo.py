"""GRPO on the device's own answers, without the cloud (Shao et al. 2024, arXiv 2402.03300)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from clients.device.pack import Pack
from clients.device.rollout import Rollout
from clients.reinforcement import Reinforcement
from flsim.learning.advantage import group_scaled


@dataclass(frozen=True)
class Grpo(Reinforcement):
    """Advantages in units of the group's standard deviation; the mean over responses of the mean over tokens."""

    may_ask: ClassVar[bool] = False

    @property
    def aggregation(self) -> str:
        """A token of a short response weighs more."""
        return "grpo"

    def advantage(self, pack: Pack, rollout: Rollout) -> Tensor:
        """`(K, P, G)`."""
        return group_scaled(rollout.right_alone)  # (K, P, G)
