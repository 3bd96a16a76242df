"""Dr.GRPO, "done right": neither the group's deviation nor the length divides (Liu et al. 2025, arXiv 2503.20783)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from clients.device.pack import Pack
from clients.device.rollout import Rollout
from clients.reinforcement import Reinforcement
from flsim.learning.advantage import centred


@dataclass(frozen=True)
class DrGrpo(Reinforcement):
    """Centred advantages; the sum over tokens by a constant."""

    may_ask: ClassVar[bool] = False

    @property
    def aggregation(self) -> str:
        """The constant is the longest response."""
        return "dr_grpo"

    def advantage(self, pack: Pack, rollout: Rollout) -> Tensor:
        """`(K, P, G)`."""
        return centred(rollout.right_alone)  # (K, P, G)
