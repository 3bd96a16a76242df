"""Always ask: the budget goes to the first prompts; with tau = 1 it is the cloud, the upper end of every curve."""

from dataclasses import dataclass

from clients.asking.alone import all_alike
from clients.asking.rule import Choice, Examined


@dataclass(frozen=True)
class Always:
    """A wish for every prompt; all score alike, so that its curve is that of asking at random."""

    def decide(self, pack: Examined) -> list[Choice]:
        """One choice per device."""
        return all_alike(pack, wish=True)
