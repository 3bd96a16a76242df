"""Ask where the policy most wants to, as often as the budget allows: its own wish, with a calibrated threshold.

DA-GRPO's lambda makes usage meet the budget on what a device meets while it learns; greedy decoding of a policy that is
shared asks more or less often than that on the device's own mixture of old and new tasks. The rule keeps the policy's
order of prompts and sets where to cut it, as routers are cut.
"""

from dataclasses import dataclass

from clients.asking.alone import Alone
from clients.asking.rule import Scores
from clients.asking.threshold import Scored


@dataclass(frozen=True)
class OwnCalibrated(Scored):
    """The score is the log-probability that an answer begins with the help request."""

    def score(self, alone: Alone) -> Scores:
        """In nats, `(N,)`."""
        return alone.wish
