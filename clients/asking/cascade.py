"""A cascade: the device answers first, and a learned scorer of question and answer says whether to ask the cloud.

Of the kind of FrugalGPT (Chen et al. 2023, arXiv 2305.05176), whose scorer is a DistilBERT on (question, answer) pairs;
this one is a logistic regression on their character n-grams and the answer's mean log-probability.
"""

from dataclasses import dataclass

from clients.asking.alone import Alone
from clients.asking.rule import Flags
from clients.asking.threshold import Learned, Score
from clients.asking.wrongness import learn_wrongness


@dataclass(frozen=True)
class Cascade(Learned):
    """Scores question and answer together."""

    def learn(self, alone: Alone, right: Flags) -> Score:
        """The chance of being wrong, by question, answer and confidence."""
        wrongness = learn_wrongness(_pairs(alone), alone.logprobs[:, None], ~right, c=self.c)
        return lambda alone: wrongness(_pairs(alone), alone.logprobs[:, None])


def _pairs(alone: Alone) -> list[str]:
    return [f"{question} {answer}" for question, answer in zip(alone.questions, alone.answers, strict=True)]
