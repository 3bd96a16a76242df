"""Ask where the device is least sure: the mean log-probability of its own greedy answer, negated."""

from dataclasses import dataclass

from clients.asking.alone import Alone
from clients.asking.calibration import enough
from clients.asking.rule import Choice, Examined, Scores
from clients.asking.threshold import by_threshold


@dataclass(frozen=True)
class Confidence:
    """The score is minus the mean log-probability of the answer's tokens, so that long answers do not score more."""

    calibration: int = 32
    """Questions per task and device that the threshold is set on."""

    def __post_init__(self) -> None:
        """Refuse too few questions."""
        enough(self.calibration, least=1)

    def decide(self, pack: Examined) -> list[Choice]:
        """One choice per device."""
        return by_threshold(pack, self.score, self.calibration)

    def score(self, alone: Alone) -> Scores:
        """In nats per token, `(N,)`."""
        return -alone.logprobs
