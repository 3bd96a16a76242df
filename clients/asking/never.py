"""Never ask: the device alone, the lower bound of every curve."""

from dataclasses import dataclass

from clients.asking.alone import all_alike
from clients.asking.rule import Choice, Examined


@dataclass(frozen=True)
class Never:
    """No wishes; all prompts score alike, so that its curve is that of asking at random."""

    def decide(self, pack: Examined) -> list[Choice]:
        """One choice per device."""
        return all_alike(pack, wish=False)
