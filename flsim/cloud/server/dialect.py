"""What a server is sent, in words that it takes: a question, a beginning to go on with, a draft to verify.

Servers that call themselves compatible take unlike settings, and say so when they refuse one. What is learned of a
server is kept in its `Dialect`; a request is written in it, and reads its own reply.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from flsim.cloud.more_help import Draft, Verified
from flsim.cloud.protocol import Answer, Reply
from flsim.cloud.server.chat_reply import read_continuation, read_reply
from flsim.cloud.server.given_reply import read_given, read_told
from flsim.cloud.server.tokens import ServedTokens
from flsim.problems.problem import Problem

CHAT, COMPLETIONS = "/chat/completions", "/completions"
FINAL, PREFILL, PREFIX, RAW = "final", "prefill", "prefix", "raw"
WAYS = (FINAL, PREFILL, PREFIX, RAW)
"""How a server is told to go on with a beginning: by `continue_final_message` (vLLM, SGLang, llama.cpp since 2026), by
the mere fact that the last message is the assistant's (older llama.cpp), by `prefix` in that message (DeepSeek,
Mistral), or on the route of completions, as a text in the frame of the chat's own template."""
_NAMED = "return_tokens_as_token_ids"  # vLLM: tokens by their numbers, since two of them may have one text


@dataclass
class Dialect:
    """What one server takes, as far as that is known."""

    model: str
    learns_more: bool = True
    limit: str = "max_tokens"
    """How the longest answer is called."""
    heats: bool = True
    """Whether a temperature is sent."""
    streams: bool = False
    """Whether only streams are answered."""
    names_ids: bool = True
    """Whether tokens are asked for by their numbers."""
    way: str = FINAL
    """How it is told to go on, one of `WAYS`."""

    def chat(self, messages: Sequence[Mapping[str, Any]], tokens: int, **more: Any) -> dict[str, Any]:
        """The form of a chat."""
        form: dict[str, Any] = {"model": self.model, "messages": list(messages), self.limit: tokens}
        form |= {"temperature": 0.0} if self.heats else {}
        form |= {"stream": True, "stream_options": {"include_usage": True}} if self.streams else {}
        return form | more

    def completion(self, prompt: str | Sequence[int], tokens: int, **more: Any) -> dict[str, Any]:
        """The form of a text that is gone on with, or of its tokens."""
        whole = prompt if isinstance(prompt, str) else list(prompt)
        return {"model": self.model, "prompt": whole, "max_tokens": tokens, "temperature": 0.0, **more}

    def learns(self, refusal: str, sent: bytes) -> bool:
        """Whether a refusal says what this server takes instead; it then gets that, and nothing has failed.

        Args:
            refusal: what it said, in small letters.
            sent: the request.
        """
        if not self.learns_more:
            return False
        if "max_completion_tokens" in refusal and b'"max_tokens"' in sent:
            self.limit = "max_completion_tokens"
        elif "temperature" in refusal and b'"temperature"' in sent and b'"messages"' in sent:
            self.heats = False
        elif _NAMED in refusal and _NAMED.encode() in sent:
            self.names_ids = False
        elif "stream" in refusal and b'"stream"' not in sent and b'"messages"' in sent:
            self.streams = True
        else:
            return False
        return True


@dataclass(frozen=True)
class Came:
    """What a server sent back, read."""

    answer: Answer
    cut: bool = False
    """Whether it was cut at its longest."""
    verified: Verified | None = None
    reply: Reply | None = None


class Request(Protocol):
    """One thing to send."""

    @property
    def route(self) -> str:
        """Where to, behind the server's address."""
        ...

    def form(self, dialect: Dialect) -> dict[str, Any]:
        """What is sent."""
        ...

    def read(self, body: str) -> Came:
        """What came back.

        Raises:
            UnreadableReplyError: which says in a few words why there is nothing in it.
        """
        ...


@dataclass(frozen=True)
class Question:
    """A whole question."""

    problem: Problem
    system: str | None
    tokens: int
    """Longest answer."""

    route = CHAT

    def form(self, dialect: Dialect) -> dict[str, Any]:
        """A chat."""
        return dialect.chat(_talk(self.problem, self.system), self.tokens)

    def read(self, body: str) -> Came:
        """Its answer."""
        return Came(*read_reply(body))


@dataclass(frozen=True)
class GoingOn:
    """A question, with what its answer begins with as a last message of the assistant's."""

    problem: Problem
    system: str | None
    said: str
    tokens: int
    """Most that are to be said."""
    way: str = FINAL
    """One of `WAYS` but for `RAW`."""

    route = CHAT

    def form(self, dialect: Dialect) -> dict[str, Any]:
        """A chat whose last message is open; without a beginning a plain one."""
        talk: list[dict[str, Any]] = _talk(self.problem, self.system)
        if not self.said:
            return dialect.chat(talk, self.tokens)
        last = {"role": "assistant", "content": self.said, **({"prefix": True} if self.way == PREFIX else {})}
        more = {"continue_final_message": True, "add_generation_prompt": False} if self.way == FINAL else {}
        return dialect.chat([*talk, last], self.tokens, **more)

    def read(self, body: str) -> Came:
        """What comes next."""
        return Came(*read_continuation(body, self.said))


@dataclass(frozen=True)
class RawGoingOn:
    """The same as one text on the route of completions, which cannot be begun anew."""

    prompt: str
    said: str
    tokens: int

    route = COMPLETIONS

    def form(self, dialect: Dialect) -> dict[str, Any]:
        """The text."""
        return dialect.completion(self.prompt + self.said, self.tokens)

    def read(self, body: str) -> Came:
        """What comes next."""
        return Came(*read_continuation(body, self.said))


@dataclass(frozen=True)
class Verifying:
    """A draft, as tokens that the server reads, with the likeliest one at the place of each."""

    draft: Draft
    tokens: ServedTokens

    route = COMPLETIONS

    @property
    def ids(self) -> list[int]:
        """Of prompt, settled tokens and draft."""
        return [*self.tokens.prompt_ids(self.draft.problem), *self.draft.said, *self.draft.drafted]

    def form(self, dialect: Dialect) -> dict[str, Any]:
        """One token more, and the log-probabilities of those that were given."""
        more = {_NAMED: True} if dialect.names_ids else {}
        return dialect.completion(self.ids, 1, echo=True, logprobs=1, **more)

    def read(self, body: str) -> Came:
        """What it makes of the draft."""
        answer, verified = read_given(body, self.ids, self.draft.drafted, self.tokens)
        return Came(answer, verified=verified)


@dataclass(frozen=True)
class Telling:
    """A question whose answer is to be told with the likeliest tokens at each of its own."""

    problem: Problem
    tokens: ServedTokens
    longest: int
    """Longest answer."""
    top: int
    """How many of the likeliest."""

    route = COMPLETIONS

    def form(self, dialect: Dialect) -> dict[str, Any]:
        """What the model reads of it, as ids."""
        more = {_NAMED: True} if dialect.names_ids else {}
        return dialect.completion(self.tokens.prompt_ids(self.problem), self.longest, logprobs=self.top, **more)

    def read(self, body: str) -> Came:
        """Its answer."""
        reply = read_told(body, self.top, self.tokens)
        return Came(reply.answer, reply=reply)


def _talk(problem: Problem, system: str | None) -> list[dict[str, Any]]:
    talk = [] if system is None else [{"role": "system", "content": system}]
    return [*talk, {"role": "user", "content": problem.prompt}]
