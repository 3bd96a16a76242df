"""One question's answer, as far as drafts and verifications have brought it."""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from clients.helping.helping import Asked
from flsim.cloud.more_help import Draft, Verified, Verifies
from flsim.cloud.protocol import Answer, Cloud
from flsim.collaboration.accept import SHARED
from flsim.collaboration.worth import Turn, room_for
from flsim.models.base import BaseModel
from flsim.models.drafting import SharedWords
from flsim.seeding import generator


@dataclass
class Answering:
    """The answer to one question, as far as it has come."""

    asked: Asked
    whole: Answer
    """What asking the whole question takes at most."""
    most: int
    """Tokens of a draft."""
    cloud_numbers: NDArray[np.float64]
    """By which the cloud draws, one for each place of its longest answer, in (0, 1], `(T,)`."""
    own_numbers: NDArray[np.float64]
    """By which the device draws, where that must not be the same, `(T,)`."""
    said: list[int] = field(default_factory=list)
    """Tokens that are settled, in the cloud's ids."""
    turns: list[Turn] = field(default_factory=list)
    came: list[Verified] = field(default_factory=list)
    """What the cloud made of each."""
    ended: bool = False
    lost: Turn | None = None
    """The draft at which the cloud failed, so that nothing follows; it was sent all the same."""

    @classmethod
    def begun(cls, cloud: Cloud, asked: Asked, most: int) -> Self:
        """Nothing is said yet."""
        whole = cloud.quote(asked.problem)
        of_cloud, own = (_numbers(asked.seed, name, whole.completion_tokens) for name in ("cloud", "device"))
        return cls(asked, whole, most, of_cloud, own)

    @property
    def over(self) -> bool:
        """Whether nothing follows."""
        return self.ended or self.lost is not None

    @property
    def room(self) -> int:
        """How many tokens may be drafted now."""
        return room_for(self.whole.completion_tokens, len(self.said), self.most)

    @property
    def billed(self) -> tuple[int, int] | None:
        """Tokens sent and received, where a server bills them by itself; else None."""
        bills = [came.billed for came in self.came if came.billed is not None]
        if not bills or len(bills) < len(self.came):
            return None
        return sum(sent for sent, _ in bills), sum(received for _, received in bills)

    def numbers(self, temperature: float, places: int) -> tuple[float, ...]:
        """By which the cloud draws at the next places; none where it is greedy."""
        begin = len(self.said)
        return tuple(self.cloud_numbers[begin : begin + places].tolist()) if temperature > 0 else ()

    def drawn_by(self, rule: str, places: int) -> NDArray[np.float64]:
        """By which the device draws at the next places, 1 at those beyond the longest answer, `(places,)`.

        Sharing the cloud's numbers is the rule `shared`; under `rejection` they would no longer be independent of what
        they decide about.
        """
        of = self.cloud_numbers if rule == SHARED else self.own_numbers
        found = np.ones(places)  # (places,)
        left = of[len(self.said) : len(self.said) + places]
        found[: len(left)] = left
        return found

    def here(self, base: BaseModel, cloud: Verifies, words: SharedWords) -> list[int]:
        """What is settled in the device's ids; spelt anew where it lacks one of the cloud's tokens."""
        own = words.from_cloud(self.said)
        if own is not None:
            return own
        text = cloud.said(self.said)
        return list(base.tokenizer(text, add_special_tokens=False)["input_ids"])

    def take(self, sent: Draft, came: Verified | None) -> None:
        """Enter what the cloud made of a draft."""
        if came is None:
            self.lost = Turn(len(sent.drafted), 0, 0)
            return
        self.turns.append(Turn(len(sent.drafted), came.accepted, len(came.tokens) - came.accepted))
        self.came.append(came)
        self.said += came.tokens
        self.ended = came.ended or len(self.said) >= self.whole.completion_tokens


def _numbers(seed: int, name: str, count: int) -> NDArray[np.float64]:
    """In (0, 1], `(count,)`."""
    return 1.0 - generator(seed, name).random(count)  # (count,)
