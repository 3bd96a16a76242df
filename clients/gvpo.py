"""GVPO on the device's own answers: implicit rewards are fitted to the real ones (Zhang et al. 2025, arXiv 2504.19599).

With a single update per rollout it is the centred policy gradient; it differs from the second one on, where the squared
gap to the old policy holds it in place of ratio and clip.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from clients.device.pack import Pack
from clients.device.rollout import Rollout
from clients.reinforcement import Judged, Reinforcement
from flsim.learning.advantage import centred
from flsim.learning.losses import gvpo_loss


@dataclass(frozen=True)
class Gvpo(Reinforcement):
    """The settings of one device's round."""

    updates: int = 2
    """Steps of the optimizer on the same responses."""
    beta: float = 0.1
    """How closely to stay at the policy that sampled; above 0."""

    may_ask: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        super().__post_init__()
        if not self.beta > 0:
            raise ValueError(f"beta={self.beta} must be above 0: without it the loss does not depend on the policy")
        if self.kl:
            raise ValueError(f"kl={self.kl}: GVPO holds the policy by beta; leave kl out")

    def advantage(self, pack: Pack, rollout: Rollout) -> Tensor:
        """`(K, P, G)`."""
        return centred(rollout.right_alone)  # (K, P, G)

    def holds(self, update: int) -> bool:
        """From the second step on, where the policy has moved."""
        return update > 0

    def loss(self, logprobs: Tensor, judged: Judged) -> Tensor:
        """`(K,)`."""
        rewards = judged.rollout.right_alone  # (K, P, G)
        return gvpo_loss(logprobs, rewards, judged.mask, judged.kept, old=judged.old, beta=self.beta)  # (K,)
