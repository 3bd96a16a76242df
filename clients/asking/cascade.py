"""A cascade: the device answers first, and a learned scorer of question and answer says whether to ask the cloud.

Of the kind of FrugalGPT (Chen et al. 2023, arXiv 2305.05176), whose scorer is a DistilBERT on (question, answer) pairs;
this one is a logistic regression on their character n-grams and the answer's mean log-probability.
"""

from dataclasses import dataclass

from clients.asking.alone import Alone
from clients.asking.calibration import enough
from clients.asking.rule import Choice, Examined, Flags
from clients.asking.threshold import Score, by_learned_threshold
from clients.asking.wrongness import learn_wrongness, positive


@dataclass(frozen=True)
class Cascade:
    """Learned anew at every evaluation, since what a device gets wrong changes as it learns."""

    calibration: int = 32
    """Questions per task and device; half of them to learn from, the others to set the threshold on."""
    c: float = 1.0
    """Inverse weight of the ridge penalty."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        enough(self.calibration, least=2)
        positive(self.c)

    def decide(self, pack: Examined) -> list[Choice]:
        """One choice per device."""
        return by_learned_threshold(pack, self.learn, self.calibration)

    def learn(self, alone: Alone, right: Flags) -> Score:
        """The chance of being wrong, by question, answer and confidence."""
        wrongness = learn_wrongness(_pairs(alone), alone.logprobs[:, None], ~right, c=self.c)
        return lambda alone: wrongness(_pairs(alone), alone.logprobs[:, None])


def _pairs(alone: Alone) -> list[str]:
    return [f"{question} {answer}" for question, answer in zip(alone.questions, alone.answers, strict=True)]
