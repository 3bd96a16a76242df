"""Never ask: the device alone, the lower bound of every curve."""

from dataclasses import dataclass

import numpy as np

from clients.asking.alone import answers_alone
from clients.asking.rule import Choice, Examined, right_alone


@dataclass(frozen=True)
class Never:
    """No wishes; all prompts score alike, so that its curve is that of asking at random."""

    def decide(self, pack: Examined) -> list[Choice]:
        """One choice per device."""
        tried = answers_alone(pack.world, pack.tests)
        return [
            Choice(right_alone(tests, own.answers), np.zeros(len(tests), dtype=bool), np.zeros(len(tests)))
            for tests, own in zip(pack.tests, tried, strict=True)
        ]
