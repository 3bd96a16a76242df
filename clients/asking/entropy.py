"""Ask where the device wavers most: the mean entropy of the next token along its own greedy answer."""

from dataclasses import dataclass

from clients.asking.alone import Alone
from clients.asking.calibration import enough
from clients.asking.rule import Choice, Examined, Scores
from clients.asking.threshold import by_threshold


@dataclass(frozen=True)
class Entropy:
    """Unlike the confidence it sees what else the device might have said; it costs one more pass over the answers."""

    calibration: int = 32
    """Questions per task and device that the threshold is set on."""

    def __post_init__(self) -> None:
        """Refuse too few questions."""
        enough(self.calibration, least=1)

    def decide(self, pack: Examined) -> list[Choice]:
        """One choice per device."""
        return by_threshold(pack, self.score, self.calibration, entropies=True)

    def score(self, alone: Alone) -> Scores:
        """In nats per token, `(N,)`."""
        return alone.entropies
