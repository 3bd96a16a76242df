"""How many tokens a device drafts before it sends them: a constant, until it is unsure, or what a bandit has learned.

The best length weighs trips against rejected tokens, so it depends on the delay of the device's link, which nobody
tells it. The bandit plays lengths and sees seconds per token, a quotient of two sums; it takes the length whose
quotient, less what may be luck, is the least (after UCB-SpecStop, arXiv 2606.20591; Auer et al. 2002). Its state is a
value, and every step gives the next one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

CONSTANT, CONFIDENT, BANDIT = LENGTHS = ("constant", "confident", "bandit")
SURE = 0.4
"""The confidence below which transformers stops drafting (`assistant_confidence_threshold`)."""


def until_unsure(confidences: Sequence[float], least: float) -> int:
    """How many tokens are sent: all up to the first that its model gave less than `least`, and that one.

    By hand: 0.9, 0.5, 0.3, 0.8 and 0.4 give 3.
    """
    return next((place + 1 for place, sure in enumerate(confidences) if sure < least), len(confidences))


@dataclass(frozen=True)
class Bandit:
    """What is known of the lengths 1 to K, `(K,)` each."""

    played: tuple[float, ...]
    """How many questions were answered by each."""
    tokens: tuple[float, ...]
    """Of their answers."""
    seconds: tuple[float, ...]
    """That these took."""

    @classmethod
    def new(cls, longest: int) -> Self:
        """Nothing is known of the lengths 1 to `longest`."""
        return cls(*((0.0,) * longest for _ in range(3)))

    @classmethod
    def of(cls, numbers: Sequence[float]) -> Self:
        """The inverse of `numbers`."""
        longest = len(numbers) // 3
        return cls(*(tuple(numbers[start : start + longest]) for start in range(0, 3 * longest, longest)))

    @property
    def numbers(self) -> tuple[float, ...]:
        """All of it, `(3 K,)`."""
        return (*self.played, *self.tokens, *self.seconds)

    def choose(self) -> int:
        """The length to play: the longest that was never played; else the one with the least bound."""
        lengths = range(1, len(self.played) + 1)
        unknown = [length for length in lengths if not self.played[length - 1]]
        return unknown[-1] if unknown else min(lengths, key=self._bound)

    def _bound(self, length: int) -> float:
        """Seconds per token, less the widest difference seen times `sqrt(2 ln(n) / n_k)`, n being all plays."""
        means = [seconds / tokens for seconds, tokens in zip(self.seconds, self.tokens, strict=True)]
        luck = math.sqrt(2 * math.log(sum(self.played)) / self.played[length - 1])
        return means[length - 1] - (max(means) - min(means)) * luck

    def seen(self, length: int, tokens: int, seconds: float) -> Self:
        """After one more answer, of at least one token, by a length."""
        added = zip((self.played, self.tokens, self.seconds), (1.0, float(tokens), seconds), strict=True)
        grown = (tuple(old + more * (place == length) for place, old in enumerate(row, start=1)) for row, more in added)
        return type(self)(*grown)
