"""Rules that ask where the device is least sure of its own greedy answer, by its tokens' probabilities or entropies."""

from dataclasses import dataclass
from typing import ClassVar

from clients.asking.alone import Alone
from clients.asking.rule import Scores
from clients.asking.threshold import Scored


@dataclass(frozen=True)
class Confidence(Scored):
    """Minus the mean log-probability of the answer's tokens; the mean, so that long answers do not score more."""

    def score(self, alone: Alone) -> Scores:
        """In nats per token, `(N,)`."""
        return -alone.logprobs


@dataclass(frozen=True)
class Entropy(Scored):
    """The mean entropy of the next token along the answer: it sees what else the device might have said.

    It costs one more pass over the answers.
    """

    looks_at_entropies: ClassVar[bool] = True

    def score(self, alone: Alone) -> Scores:
        """In nats per token, `(N,)`."""
        return alone.entropies
