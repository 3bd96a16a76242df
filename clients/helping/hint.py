"""A hint in the answer's place: it is put in after the request, and the device goes on to an answer of its own.

    client.helping.path=clients.helping.hint:Hint client.helping.share=0.5

The device's answer is judged, and only its own tokens are learned from ("Learning to Seek Help", arXiv 2604.17827). For
learners that ask by words.
"""

import math
from dataclasses import dataclass

import torch

from clients.helping.helping import Ask
from flsim.models.base import BaseModel


@dataclass(frozen=True)
class Hint(Ask):
    """How much of what the cloud says is put in."""

    share: float = 0.5
    """Of the tokens of the cloud's answer, how much is a hint, rounded up; 0 is none of them and 1 all. Where
    `cloud.hint` asks for a hint, all of what comes."""
    longest: int = 32
    """Most tokens of a hint."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        if not (0 <= self.share <= 1 and self.longest >= 0):
            raise ValueError(f"share={self.share} must be in [0, 1] and longest={self.longest} at least 0")

    def of(self, base: BaseModel, text: str) -> list[int]:
        """The first tokens of a text before a stop text, without those that end a response or are the help request."""
        ids = base.spell(text)[:-1]
        ended = base.ends(torch.tensor(ids, dtype=torch.long)).tolist()
        kept = [token for token, ends in zip(ids, ended, strict=True) if not ends and token != base.help.token]
        return kept[: min(self.longest, math.ceil(self.share * len(kept) - 1e-9))]
