"""Ask where the device is least sure: the mean log-probability of its own greedy answer, negated."""

from dataclasses import dataclass

from clients.asking.alone import Alone
from clients.asking.rule import Scores
from clients.asking.threshold import Scored


@dataclass(frozen=True)
class Confidence(Scored):
    """The score is minus the mean log-probability of the answer's tokens, so that long answers do not score more."""

    def score(self, alone: Alone) -> Scores:
        """In nats per token, `(N,)`."""
        return -alone.logprobs
