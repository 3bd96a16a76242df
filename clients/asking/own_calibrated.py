"""Ask where the policy most wants to, as often as the budget allows: its own wish, with a calibrated threshold.

DA-GRPO's lambda makes usage meet the budget on what a device meets while it learns; greedy decoding of a policy that is
shared asks more or less often than that on the device's own mixture of old and new tasks. The rule keeps the policy's
order of prompts and sets where to cut it, as routers are cut.
"""

from dataclasses import dataclass

from clients.asking.alone import Alone
from clients.asking.calibration import enough
from clients.asking.rule import Choice, Examined, Scores
from clients.asking.threshold import by_threshold


@dataclass(frozen=True)
class OwnCalibrated:
    """The score is the log-probability that an answer begins with the help request."""

    calibration: int = 32
    """Questions per task and device that the threshold is set on."""

    def __post_init__(self) -> None:
        """Refuse too few questions."""
        enough(self.calibration, least=1)

    def decide(self, pack: Examined) -> list[Choice]:
        """One choice per device."""
        return by_threshold(pack, self.score, self.calibration)

    def score(self, alone: Alone) -> Scores:
        """In nats, `(N,)`."""
        return alone.wish
