"""Ask where it helps, as if one knew: the upper bound of all rules on the same learner and cloud."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from clients.asking.alone import answers_alone
from clients.asking.rule import Choice, Examined, cloud_right, right_alone


@dataclass(frozen=True)
class Oracle:
    """A wish where the device alone is wrong and the cloud right, and no other.

    No rule is more accurate under the same budget: sending another prompt gains nothing. (RouteLLM's optimal accuracy,
    arXiv 2406.18665: right alone, and up to the budget those that only the cloud has right.)
    """

    asks_all: ClassVar[bool] = True
    """It needs the cloud's answer to every test prompt."""

    def decide(self, pack: Examined) -> list[Choice]:
        """One choice per device; what the cloud would spoil scores lowest, so that the curve is the highest, too."""
        choices = []
        for tests, own in zip(pack.tests, answers_alone(pack.world, pack.tests), strict=True):
            alone = right_alone(tests, own.answers)  # (N,)
            gains = cloud_right(pack.world, tests).astype(np.float64) - alone  # (N,)
            choices.append(Choice(alone, gains > 0, gains))
        return choices
