"""Rules that ask where the device is least sure of its own greedy answer, by its tokens' probabilities or entropies."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from clients.asking.alone import Alone
from clients.asking.rule import Scores
from clients.asking.threshold import Scored


@dataclass(frozen=True)
class Confidence(Scored):
    """Minus the mean log-probability of the answer's tokens; the mean, so that long answers do not score more."""

    def score(self, alone: Alone) -> Scores:
        """In nats per token, `(N,)`."""
        return -alone.logprobs

    def claim(self, scores: Scores, alone: Alone) -> Scores:
        """1 minus the geometric mean of the tokens' probabilities: what an answer's one token would claim."""
        return np.clip(-np.expm1(-scores), 0.0, 1.0)


@dataclass(frozen=True)
class Entropy(Scored):
    """The mean entropy of the next token along the answer: it sees what else the device might have said.

    It costs one more pass over the answers. It claims nothing: nats of what else might be said are no chance of being
    wrong.
    """

    looks_at_entropies: ClassVar[bool] = True

    def score(self, alone: Alone) -> Scores:
        """In nats per token, `(N,)`."""
        return alone.entropies
