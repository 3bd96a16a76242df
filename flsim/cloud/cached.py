"""A cloud behind the cache: whatever is asked of it is bought once, for all runs and workers that share the folder.

Whole questions are kept as texts, and what helps with a part of one (`flsim/cloud/more_help.py`) under all that was
sent: the question, what the answer begins with, the draft.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from flsim.cloud.cache import Cache, Shelf, key_of
from flsim.cloud.more_help import (
    Beginning,
    Continuation,
    Depth,
    Draft,
    Shared,
    Verified,
    going_on,
    sharing,
    verifying,
)
from flsim.cloud.protocol import NOTHING, Answer, Cloud, Reply, text_reply
from flsim.cloud.teacher import TEXT
from flsim.problems.problem import Problem

if TYPE_CHECKING:  # it needs torch, for which a mistake in a config should not have to wait
    from flsim.models.cut import Cut


class _Keepable(Protocol):
    """A result that a cache can keep."""

    def to_bytes(self) -> bytes:
        """All of it that is kept."""
        ...

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The inverse."""
        ...

    def known(self) -> Self:
        """The same, as it comes from a cache."""
        ...


_Kept = TypeVar("_Kept", bound=_Keepable)


class CachedCloud(Cloud):
    """Answers of another cloud; any number of processes may share the folder."""

    def __init__(self, cloud: Cloud, cache: Cache | None) -> None:
        """Stand before a cloud.

        Args:
            cloud: what is asked where nothing is known.
            cache: what was answered before, by whichever run; None keeps answers in this process only.
        """
        self.cloud = cloud
        self.costs, self.access = cloud.costs, cloud.access
        self._cache = cache
        self._identity = cloud.identity()
        self._known: dict[bytes, Answer] = {}
        self._more: dict[bytes, Any] = {}  # what helped with a part of a question

    @property
    def vocabulary(self) -> Mapping[str, int]:
        """As the cloud has it."""
        return verifying(self.cloud).vocabulary

    def said(self, tokens: Sequence[int]) -> str:
        """As the cloud has it."""
        return verifying(self.cloud).said(tokens)

    def go_on(self, beginnings: Sequence[Beginning], tokens: int) -> list[Continuation | None]:
        """What comes after each beginning, in order; what is the same is asked for once.

        Raises:
            ConfigError: if the cloud cannot go on.
            DamagedFileError: if the cache cannot be read.
        """
        asked = going_on(self.cloud)
        keys = [self._key("go on", one.problem, one.said, tokens) for one in beginnings]
        wanted = dict(zip(keys, beginnings, strict=True))
        return self._once(Continuation, wanted, keys, lambda new: asked.go_on(new, tokens))

    def verify(self, drafts: Sequence[Draft], rule: str, temperature: float) -> list[Verified | None]:
        """What the cloud makes of each draft, in order; what is the same is asked for once.

        Raises:
            ConfigError: if the cloud cannot verify.
            DamagedFileError: if the cache cannot be read.
        """
        asked = verifying(self.cloud)
        told = [(one.problem, one.said, one.drafted, one.uniforms, _digest(one)) for one in drafts]
        keys = [self._key("verify", *one, rule, temperature) for one in told]
        wanted = dict(zip(keys, drafts, strict=True))
        return self._once(Verified, wanted, keys, lambda new: asked.verify(new, rule, temperature))

    @property
    def depth(self) -> Depth:
        """As the cloud has it."""
        return sharing(self.cloud).depth

    def share(self, problems: Sequence[Problem], cut: "Cut") -> list[Shared | None]:
        """What comes of each question of a model that is cut, in order; what is the same is computed once.

        Raises:
            ConfigError: if the cloud's model cannot be cut.
            DamagedFileError: if the cache cannot be read.
        """
        asked = sharing(self.cloud)
        keys = [self._key("share", one, asdict(cut)) for one in problems]
        wanted = dict(zip(keys, problems, strict=True))
        return self._once(Shared, wanted, keys, lambda new: asked.share(new, cut))

    def identity(self) -> Sequence[object]:
        """As the cloud has it."""
        return self._identity

    def quote(self, problem: Problem) -> Answer:
        """As the cloud has it."""
        return self.cloud.quote(problem)

    def answer(self, problems: Sequence[Problem]) -> list[Answer | None]:
        """One answer per problem, in order; of a question that is new, only the first one counts as bought.

        Raises:
            DamagedFileError: if the cache cannot be read.
        """
        keys = self._keys(problems)
        asked: dict[bytes, Problem] = {}
        for key, problem in zip(keys, problems, strict=True):
            asked.setdefault(key, problem)
        self._look_up(keys)
        new = self._ask({key: problem for key, problem in asked.items() if key not in self._known})
        kept = {key: answer for key, answer in new.items() if not answer.void}
        self._known |= {key: replace(answer, cached=True, retries=0, kept=True) for key, answer in kept.items()}
        return [new.pop(key) if key in new else self._known.get(key) for key in keys]

    def known(self, problems: Sequence[Problem]) -> list[Answer | None]:
        """The answers that are there already; nothing is asked.

        Raises:
            DamagedFileError: if the cache cannot be read.
        """
        keys = self._keys(problems)
        self._look_up(keys)
        return [self._known.get(key) for key in keys]

    def _key(self, what: str, problem: Problem, *sent: object) -> bytes:
        """Of a part of a question, by all that is sent of it."""
        whole = [key_of(self._identity, what, problem).hex(), *sent]
        return hashlib.sha256(json.dumps(whole).encode()).digest()

    def _once(
        self,
        kind: type[_Kept],
        wanted: Mapping[bytes, Any],
        keys: Sequence[bytes],
        ask: Callable[[list[Any]], Sequence[_Kept | None]],
    ) -> list[_Kept | None]:
        """Results by their keys: of what is new, only the first one counts as bought; failures are not kept."""
        lacking = [key for key in wanted if key not in self._more]
        found = {} if self._cache is None else self._cache.get(lacking)
        self._more |= {key: kind.from_bytes(value).known() for key, value in found.items()}
        lacking = [key for key in lacking if key not in found]
        said = zip(lacking, ask([wanted[key] for key in lacking]) if lacking else [], strict=True)
        new = {key: result for key, result in said if result is not None}
        if self._cache is not None and new:
            kept = self._cache.put({key: result.to_bytes() for key, result in new.items()})
            # where another process was first, its words are everybody's from now on
            theirs = {key for key, result in new.items() if kept[key] != result.to_bytes()}
            new |= {key: kind.from_bytes(kept[key]) for key in theirs}
        self._more |= {key: result.known() for key, result in new.items()}
        return [new.pop(key) if key in new else self._more.get(key) for key in keys]

    def _keys(self, problems: Sequence[Problem]) -> list[bytes]:
        return [key_of(self._identity, TEXT, problem) for problem in problems]

    def _look_up(self, keys: Sequence[bytes]) -> None:
        new = list(dict.fromkeys(key for key in keys if key not in self._known))
        if self._cache is not None and new:
            found = self._cache.get(new)
            self._known |= {key: replace(Reply.from_bytes(value).answer, cached=True) for key, value in found.items()}

    def _ask(self, problems: dict[bytes, Problem]) -> dict[bytes, Answer]:
        """Buy and keep; what the cloud fails at is not kept, and asked again the next time."""
        if not problems:
            return {}
        said = zip(problems, self.cloud.answer(list(problems.values())), strict=True)
        answers = {key: answer for key, answer in said if answer is not None}
        void = {key: answer for key, answer in answers.items() if answer.void}
        answers = {key: answer for key, answer in answers.items() if not answer.void}
        if self._cache is None or not answers:
            return answers | void
        kept = self._cache.put({key: text_reply(answer).to_bytes() for key, answer in answers.items()})
        safe = not isinstance(self._cache, Shelf) or not self._cache.left_out
        # where another process was first, its words are everybody's from now on
        return void | {
            key: replace(Reply.from_bytes(kept[key]).answer, retries=own.retries, kept=safe)
            for key, own in answers.items()
        }


def known(cloud: Cloud, problems: Sequence[Problem]) -> list[Answer | None]:
    """Of each problem the answer that a cache before the cloud holds, or None; nothing is asked."""
    return cloud.known(problems) if isinstance(cloud, CachedCloud) else [None] * len(problems)


def at_hand(cloud: Cloud, problems: Sequence[Problem]) -> Sequence[Answer | None]:
    """The answers that cost nothing: of a cloud that is free all, of any other those that are known."""
    return cloud.answer(problems) if cloud.costs == NOTHING else known(cloud, problems)


def _digest(draft: Draft) -> str | None:
    """Of what the drafted tokens were drawn from; None where that is not sent."""
    return None if draft.chances is None else hashlib.sha256(draft.chances.tobytes()).hexdigest()
