"""Ask where the device is least sure: the mean log-probability of its own greedy answer, negated."""

from dataclasses import dataclass
from typing import ClassVar

from clients.asking.alone import Alone
from clients.asking.rule import Scores
from clients.asking.threshold import Scored


@dataclass(frozen=True)
class Confidence(Scored):
    """The score is minus the mean log-probability of the answer's tokens, so that long answers do not score more."""

    def score(self, alone: Alone) -> Scores:
        """In nats per token, `(N,)`."""
        return -alone.logprobs


# FOLDED clients/asking/scores.py
# Ask where the device wavers most: the mean entropy of the next token along its own greedy answer.


@dataclass(frozen=True)
class Entropy(Scored):
    """Unlike the confidence it sees what else the device might have said; it costs one more pass over the answers."""

    looks_at_entropies: ClassVar[bool] = True

    def score(self, alone: Alone) -> Scores:
        """In nats per token, `(N,)`."""
        return alone.entropies
