"""What a cloud may do for a device beside answering whole questions.

It may go on with an answer, verify a draft, or let the device hold layers of its model.

A cloud that can do so has these methods beside those of `Cloud`; whoever needs one looks for it by `isinstance`. None
in a reply's place says that the cloud failed, which costs nothing.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from flsim.cloud.protocol import Answer
from flsim.config.schema import ConfigError
from flsim.problems.problem import Problem

if TYPE_CHECKING:  # it needs torch, for which a mistake in a config should not have to wait
    from flsim.models.cut import Cut


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

    def to_bytes(self) -> bytes:
        """All of it that a cache keeps."""
        answer = self.answer
        return json.dumps([answer.text, answer.prompt_tokens, answer.completion_tokens, self.ended]).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The inverse of `to_bytes`."""
        text, sent, received, ended = json.loads(data)
        return cls(Answer(text, sent, received), ended)

    def known(self) -> Self:
        """The same, as it comes from a cache."""
        return replace(self, answer=replace(self.answer, cached=True, retries=0, kept=True))


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
    billed: tuple[int, int] | None = None
    """Tokens sent and received that a server bills for it; None where the cloud bills nothing by itself, and the mode
    counts what a session takes."""
    cached: bool = field(default=False, compare=False)
    """Whether it was there already, so that nothing was bought for it."""
    retries: int = field(default=0, compare=False)
    """How many requests had failed before it came."""

    def to_bytes(self) -> bytes:
        """All of it that a cache keeps."""
        return json.dumps([self.tokens, self.accepted, self.ended, self.again, self.billed]).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The inverse of `to_bytes`."""
        tokens, accepted, ended, again, billed = json.loads(data)
        return cls(tuple(tokens), accepted, ended, again, None if billed is None else (billed[0], billed[1]))

    def known(self) -> Self:
        """The same, as it comes from a cache."""
        return replace(self, cached=True, retries=0)


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


@runtime_checkable
class TriesOut(Protocol):
    """A cloud that cannot know by itself what its server can do, and finds it out before a run."""

    def try_out(self, *, goes_on: bool = False, verifies: bool = False) -> None:
        """Ask for what a mode of help will ask for, in small; what that costs is in no book.

        Args:
            goes_on: whether it is to go on with what others began to say.
            verifies: whether it is to verify drafts.

        Raises:
            ConfigError: if it cannot, in a sentence with the mend.
        """
        ...


def _refuse_without(method: str, cloud: object, to_do: str) -> None:
    if not callable(getattr(cloud, method, None)):
        raise ConfigError(
            f"{type(cloud).__name__} cannot {to_do}, as it has no method {method}; take another cloud "
            f"(docs/clouds.md), or another mode of help"
        )


def going_on(cloud: object) -> GoesOn:
    """A cloud as one that goes on.

    Raises:
        ConfigError: if it is none.
    """
    _refuse_without("go_on", cloud, "go on with what a device began to say")
    return cloud  # type: ignore[return-value]  # it has the one method


def verifying(cloud: object) -> Verifies:
    """A cloud as one that verifies.

    Raises:
        ConfigError: if it is none.
    """
    _refuse_without("verify", cloud, "verify drafts")
    return cloud  # type: ignore[return-value]  # whoever has it has all of them


@dataclass(frozen=True)
class Depth:
    """How large the body of a decoder is."""

    layers: int
    width: int
    """Channels of a hidden state."""


@dataclass(frozen=True)
class Shared:
    """What comes of a question where devices hold the lower layers."""

    text: str
    """The answer."""
    prompt: int
    """Tokens of the prompt, in the cloud's words."""
    said: int
    """Tokens of the answer, the ending one included."""
    uploads: tuple[int, ...]
    """Of each request the hidden states that went up; for each the cloud said one token, and the device the others."""
    doubt: float = 0.0
    """The threshold from which on exits leave an answer as it is (`flsim.collaboration.exits.last_doubt`), of a cut
    whose threshold lets none happen; else 0."""
    cached: bool = field(default=False, compare=False)
    """Whether it was there already, so that nothing was bought for it."""

    def to_bytes(self) -> bytes:
        """All of it that a cache keeps."""
        return json.dumps([self.text, self.prompt, self.said, self.uploads, self.doubt]).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The inverse of `to_bytes`."""
        text, prompt, said, uploads, doubt = json.loads(data)
        return cls(text, prompt, said, tuple(uploads), doubt)

    def known(self) -> Self:
        """The same, as it comes from a cache."""
        return replace(self, cached=True)


@runtime_checkable
class SharesLayers(Protocol):
    """A cloud whose model may be cut in two; devices hold what is below."""

    @property
    def depth(self) -> Depth:
        """Of its model; known without its weights."""
        ...

    def share(self, problems: Sequence[Problem], cut: "Cut") -> Sequence[Shared | None]:
        """The greedy answers of both parts together, in order; none depends on the others."""
        ...


def sharing(cloud: object) -> SharesLayers:
    """A cloud as one whose model may be cut.

    Raises:
        ConfigError: if it is none.
    """
    _refuse_without("share", cloud, "share its layers")
    return cloud  # type: ignore[return-value]  # whoever has it has all of them
