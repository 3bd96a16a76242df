"""What a cloud may do for a device beside answering whole questions: go on with an answer, and verify a draft.

A cloud that can do so has these methods beside those of `Cloud`; whoever needs one looks for it by `isinstance`. None
in a reply's place says that the cloud failed, which costs nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from flsim.cloud.protocol import Answer
from flsim.problems.problem import Problem


@dataclass(frozen=True)
class Beginning:
    """A question, and what its answer begins with."""

    problem: Problem
    said: str
    """By whomever; "" for nothing."""


@dataclass(frozen=True)
class Continuation:
    """What the cloud says next."""

    answer: Answer
    """Its text goes on where the beginning ended, white space and all."""
    ended: bool
    """Whether the answer to the question is over with it."""


@runtime_checkable
class GoesOn(Protocol):
    """A cloud that goes on with what somebody else began to say."""

    def go_on(self, beginnings: Sequence[Beginning], tokens: int) -> Sequence[Continuation | None]:
        """At most so many tokens after each beginning, the ending one included, in order."""
        ...


@dataclass(frozen=True)
class Draft:
    """Tokens of an answer that wait to be verified."""

    problem: Problem
    said: tuple[int, ...]
    """Tokens of the answer that are settled."""
    drafted: tuple[int, ...]
    """k tokens after them, as the device would go on; none asks for the next token alone."""
    uniforms: tuple[float, ...] = ()
    """Numbers in (0, 1] of the k + 1 next places, by which the cloud draws; none where it is greedy."""
    chances: NDArray[np.float32] | None = None
    """What each drafted token was drawn from, `(k, V)`; None where the rule does not look at it."""


@dataclass(frozen=True)
class Verified:
    """What the cloud makes of a draft."""

    tokens: tuple[int, ...]
    """The accepted ones, then one of the cloud's own, unless an accepted one ends the answer."""
    accepted: int
    """How many of them were drafted."""
    ended: bool
    """Whether the last one ends the answer."""
    again: int = 0
    """Places that were computed again, alone."""


@runtime_checkable
class Verifies(Protocol):
    """A cloud that verifies drafts, in tokens of its own."""

    @property
    def vocabulary(self) -> Mapping[str, int]:
        """Its tokens and their ids."""
        ...

    def verify(self, drafts: Sequence[Draft], rule: str, temperature: float) -> Sequence[Verified | None]:
        """All drafts in one forward pass.

        Args:
            drafts: in order.
            rule: one of `flsim.collaboration.accept.RULES`.
            temperature: of the cloud; 0 is greedy.
        """
        ...

    def said(self, tokens: Sequence[int]) -> str:
        """The text of an answer's tokens, the ending one left out, as `answer` would give it."""
        ...
