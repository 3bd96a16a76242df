"""DAPO's token loss and its higher clip, without its sampling (Yu et al. 2025, arXiv 2503.14476, sections 3.1 and 3.3).

What is left out: drawing prompts anew until no group is unanimous, which would be other work than the other methods'
(such groups have no advantage here, and count in the mean), and the penalty on overlong responses.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from clients.device.pack import Pack
from clients.device.rollout import Rollout
from clients.reinforcement import Reinforcement
from flsim.learning.advantage import group_scaled


@dataclass(frozen=True)
class Dapo(Reinforcement):
    """The mean over all of a device's tokens; the clip matters from the second update on the same responses."""

    clip_high: float = 0.28
    """The ratio of new to old probability counts up to `1 + clip_high`."""

    may_ask: ClassVar[bool] = False

    @property
    def aggregation(self) -> str:
        """All tokens weigh the same."""
        return "dapo"

    def advantage(self, pack: Pack, rollout: Rollout) -> Tensor:
        """`(K, P, G)`."""
        return group_scaled(rollout.right_alone)  # (K, P, G)
