"""The cloud behind an OpenAI-compatible server: limits, deadlines, retries, and None where it failed after all.

The key is read from the environment for every call and lies in no attribute. What a server says in an error is never
repeated, since it could hold the key: only the kind of the error is logged.
"""

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from openai import APIConnectionError, APIStatusError, APITimeoutError, AsyncOpenAI
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam

from flsim.cloud.checks import check_key
from flsim.cloud.protocol import Answer, instruction, system_of
from flsim.config.schema import CloudConfig
from flsim.problems.problem import Problem

_GIVE_UP = 3  # questions in a row that failed, after which the others of a call are not even tried
_LONGEST_WAIT_S = 8.0  # before a retry, unless the server names another time
_TEMPLATE_TOKENS = 64  # most that a server's chat template adds to system prompt and question
_PASSING = (408, 409, 429)  # what may be different the next time, like every 5xx
_NO_KEY = "none"  # what a server that needs no key is sent; the SDK wants one

_log = logging.getLogger("flsim.run.cloud")  # below the run's own log


class UnreadableReplyError(Exception):
    """A reply without an answer or without its token counts."""


@dataclass
class _Call:
    """The questions of one call, on their way."""

    client: AsyncOpenAI
    gate: asyncio.Semaphore
    in_a_row: int = 0
    troubles: Counter[str] = field(default_factory=Counter)
    """Why questions failed."""

    @property
    def is_down(self) -> bool:
        """Whether to stop trying."""
        return self.in_a_row >= _GIVE_UP


class EndpointCloud:
    """`POST {url}/chat/completions` with temperature 0. Not deterministic; with a filled cache before it, a run is."""

    def __init__(self, config: CloudConfig, *, concurrency: int | None = None) -> None:
        """Prepare; nothing is sent yet.

        Args:
            config: the run's.
            concurrency: requests at a time; None takes `config.concurrency`.

        Raises:
            ConfigError: if there is no key.
        """
        check_key(config)
        self.config = config
        self.concurrency = config.concurrency if concurrency is None else concurrency
        self._system = instruction() if config.system is None else config.system

    @property
    def identity(self) -> str:
        """The system prompt of the built-in world, beside the settings."""
        return self._system

    def quote(self, problem: Problem) -> Answer:
        """One token per byte sent and a template's, and the longest completion; a token is a byte at least."""
        sent = len(((system_of(self.config, problem) or "") + problem.prompt).encode()) + _TEMPLATE_TOKENS
        return Answer("", sent, self.config.max_tokens)

    def answer(self, problems: Sequence[Problem]) -> list[Answer | None]:
        """One answer per problem, in order; None where all tries failed, or three questions in a row had failed."""
        if not problems:
            return []
        with ThreadPoolExecutor(1) as thread:  # its own, since a notebook has an event loop running in this one
            return thread.submit(asyncio.run, self._answer(problems)).result()

    async def _answer(self, problems: Sequence[Problem]) -> list[Answer | None]:
        key = os.environ.get(self.config.key_env) or _NO_KEY
        timeout = self.config.deadline_s
        async with AsyncOpenAI(api_key=key, base_url=self.config.url, max_retries=0, timeout=timeout) as client:
            call = _Call(client, asyncio.Semaphore(self.concurrency))
            answers = await asyncio.gather(*(self._ask(call, problem) for problem in problems))
        if call.troubles:
            why = ", ".join(f"{count} {trouble}" for trouble, count in call.troubles.most_common())
            _log.warning("the cloud failed at %d of %d questions: %s", call.troubles.total(), len(problems), why)
        return answers

    async def _ask(self, call: _Call, problem: Problem) -> Answer | None:
        """One question, as often as it takes and may."""
        async with call.gate:
            trouble = "not tried"
            for attempt in range(self.config.retries + 1):
                if call.is_down:
                    break
                try:
                    async with asyncio.timeout(self.config.deadline_s):  # of all of it; the client's is per read
                        answer = replace(await self._send(call.client, problem), retries=attempt)
                except Exception as error:  # whatever a server does, the run goes on
                    trouble = _name(error)
                    if not _may_pass(error):
                        break
                    if attempt < self.config.retries:
                        await asyncio.sleep(self._wait_s(attempt, error))
                else:
                    call.in_a_row = 0
                    return answer
            call.in_a_row += 1
            call.troubles[trouble] += 1
            return None

    async def _send(self, client: AsyncOpenAI, problem: Problem) -> Answer:
        messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": problem.prompt}]
        system = system_of(self.config, problem)
        if system is not None:
            messages.insert(0, {"role": "system", "content": system})
        reply = await client.chat.completions.create(
            model=self.config.model or "",
            messages=messages,
            max_tokens=self.config.max_tokens,
            temperature=0.0,
        )
        return _read(reply)

    def _wait_s(self, attempt: int, error: Exception) -> float:
        """Seconds before the next try: what the server names, up to the deadline, or twice those before."""
        if isinstance(error, APIStatusError):
            try:
                return min(max(0.0, float(error.response.headers["retry-after"])), self.config.deadline_s)
            except (KeyError, ValueError):
                pass
        return min(self.config.backoff_s * 2.0**attempt, _LONGEST_WAIT_S)


def _read(reply: object) -> Answer:
    """The answer in a reply; the SDK does not check what it parses.

    Raises:
        UnreadableReplyError: unless there are a text and the numbers of tokens that are billed.
    """
    choice = reply.choices[0] if isinstance(reply, ChatCompletion) and reply.choices else None
    text = getattr(getattr(choice, "message", None), "content", None)
    usage = getattr(reply, "usage", None)
    numbers = [getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens")]
    sent, received = (number if isinstance(number, int) and number >= 0 else None for number in numbers)
    if sent is None or received is None or not isinstance(text, str):
        raise UnreadableReplyError
    return Answer(text.strip(), sent, received)


def _may_pass(error: Exception) -> bool:
    """Whether trying again can help."""
    return not isinstance(error, APIStatusError) or error.status_code in _PASSING or error.status_code >= 500


def _name(error: Exception) -> str:
    """What happened, in words of our own."""
    if isinstance(error, TimeoutError | APITimeoutError):
        return "timed out"
    if isinstance(error, APIStatusError):
        return f"answered with status {error.status_code}"
    return "cut off or never connected" if isinstance(error, APIConnectionError) else "with an unreadable reply"
