"""The cloud behind an OpenAI-compatible server: limits, deadlines, retries, and None where it failed after all.

The key is read from the environment for every call and lies in no attribute. What a server says in an error is never
repeated, since it could hold the key: only the kind of the error is logged.
"""

import asyncio
import logging
import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from urllib.parse import urlsplit

from openai import APIConnectionError, APIStatusError, APITimeoutError, AsyncOpenAI
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam

from flsim.cloud.protocol import MONEY, Answer, Cloud, instruction, system_of
from flsim.config.schema import ConfigError
from flsim.problems.problem import Problem
from flsim.tasks.stream import TaskStream

_PATH = "flsim.cloud.endpoint:Endpoint"

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


class Endpoint(Cloud):
    """`POST {url}/chat/completions` with temperature 0. Not deterministic; with a filled cache before it, a run is."""

    costs = MONEY
    reach = ("key_env", "concurrency", "retries", "backoff_s", "deadline_s")

    def __init__(
        self,
        url: str = "",
        model: str = "",
        system: str | None = None,
        max_tokens: int = 64,
        key_env: str = "OPENAI_API_KEY",
        concurrency: int = 8,
        retries: int = 3,
        backoff_s: float = 0.5,
        deadline_s: float = 30.0,
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            url: of the server, up to and with `/v1`, such as `https://api.openai.com/v1`.
            model: its name at the server.
            system: system prompt; None explains the built-in world's notation by examples, and sends none with a
                question of a data set, which brings its own instruction.
            max_tokens: longest answer.
            key_env: name of the environment variable with the key; a server on this machine may go without.
            concurrency: requests that may be with the server at a time; the Ray workers share them evenly.
            retries: how often a request that failed is sent again; each time after twice the wait.
            backoff_s: seconds before the first retry, unless the server names others (`Retry-After`).
            deadline_s: seconds after which a request counts as failed, whatever has arrived of its reply.

        Raises:
            ConfigError: for settings that cannot work; what may hold a key is never repeated.
        """
        _check_address(url, key_env)
        if not model:
            raise ConfigError(f"{_PATH} needs cloud.model: the name that the server knows it by")
        numbers = {"concurrency": concurrency, "retries": retries, "max_tokens": max_tokens, "backoff_s": backoff_s}
        for name, least in {"concurrency": 1, "retries": 0, "max_tokens": 1, "backoff_s": 0}.items():
            if not numbers[name] >= least:
                raise ConfigError(f"cloud.{name}={numbers[name]} must be at least {least}")
        if not 0 < deadline_s < math.inf:
            raise ConfigError(f"cloud.deadline_s={deadline_s} must be above 0 and finite: it is a number of seconds")
        self.url, self.model, self.system, self.max_tokens = str(url), str(model), system, max_tokens
        self.key_env, self.concurrency, self.retries = key_env, concurrency, retries
        self.backoff_s, self.deadline_s = backoff_s, deadline_s

    def check(self, stream: TaskStream, workers: int) -> None:
        """Make sure that there is a key, and a request for every worker."""
        if self.concurrency < workers:
            raise ConfigError(
                f"cloud.concurrency={self.concurrency} is less than engine.workers={workers}, and each worker needs "
                f"one request at least; raise the one or lower the other"
            )
        if not os.environ.get(self.key_env) and not is_local(self.url):
            raise ConfigError(
                f"{_PATH} needs a key for {self.url}, and the environment variable {self.key_env} is not set; set it "
                f"before the run, or name another one by cloud.key_env (the key itself is never a setting)"
            )

    def for_worker(self, workers: int) -> Cloud:
        """One with a worker's part of the requests."""
        own = copy(self)
        own.concurrency = self.concurrency // workers
        return own

    def identity(self) -> Sequence[object]:
        """Server, model, and what is sent beside the question."""
        settings = {"url": self.url, "model": self.model, "system": self.system, "max_tokens": self.max_tokens}
        return ["endpoint", settings, instruction() if self.system is None else self.system]

    def quote(self, problem: Problem) -> Answer:
        """One token per byte sent and a template's, and the longest completion; a token is a byte at least."""
        sent = len(((system_of(self.system, problem) or "") + problem.prompt).encode()) + _TEMPLATE_TOKENS
        return Answer("", sent, self.max_tokens)

    def answer(self, problems: Sequence[Problem]) -> list[Answer | None]:
        """One answer per problem, in order; None where all tries failed, or three questions in a row had failed."""
        if not problems:
            return []
        with ThreadPoolExecutor(1) as thread:  # its own, since a notebook has an event loop running in this one
            return thread.submit(asyncio.run, self._answer(problems)).result()

    async def _answer(self, problems: Sequence[Problem]) -> list[Answer | None]:
        key = os.environ.get(self.key_env) or _NO_KEY
        timeout = self.deadline_s
        async with AsyncOpenAI(api_key=key, base_url=self.url, max_retries=0, timeout=timeout) as client:
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
            for attempt in range(self.retries + 1):
                if call.is_down:
                    break
                try:
                    async with asyncio.timeout(self.deadline_s):  # of all of it; the client's is per read
                        answer = replace(await self._send(call.client, problem), retries=attempt)
                except Exception as error:  # whatever a server does, the run goes on
                    trouble = _name(error)
                    if not _may_pass(error):
                        break
                    if attempt < self.retries:
                        await asyncio.sleep(self._wait_s(attempt, error))
                else:
                    call.in_a_row = 0
                    return answer
            call.in_a_row += 1
            call.troubles[trouble] += 1
            return None

    async def _send(self, client: AsyncOpenAI, problem: Problem) -> Answer:
        messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": problem.prompt}]
        system = system_of(self.system, problem)
        if system is not None:
            messages.insert(0, {"role": "system", "content": system})
        reply = await client.chat.completions.create(
            model=self.model,
            messages=messages,
            max_tokens=self.max_tokens,
            temperature=0.0,
        )
        return _read(reply)

    def _wait_s(self, attempt: int, error: Exception) -> float:
        """Seconds before the next try: what the server names, up to the deadline, or twice those before."""
        if isinstance(error, APIStatusError):
            try:
                return min(max(0.0, float(error.response.headers["retry-after"])), self.deadline_s)
            except (KeyError, ValueError):
                pass
        return min(self.backoff_s * 2.0**attempt, _LONGEST_WAIT_S)


def _check_address(url: str, key_env: str) -> None:
    """Refuse an address that is none, and places where a key may have slipped in.

    Raises:
        ConfigError: which repeats neither.
    """
    if not url:
        raise ConfigError(f"{_PATH} needs cloud.url: http://localhost:8000/v1")
    parts = urlsplit(str(url))
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError("cloud.url must begin with http:// or https:// and name a host, as https://api.openai.com/v1")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ConfigError(
            "cloud.url holds a user, a password or a query, which would be written into the run; put the key into the "
            "environment variable that cloud.key_env names, and give the bare address"
        )
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", str(key_env)):
        raise ConfigError(
            "cloud.key_env must be the name of an environment variable, in capitals, such as OPENAI_API_KEY; if the "
            "key itself stands there, take it out (and out of the shell's history)"
        )


def is_local(url: str) -> bool:
    """Whether a server is on this machine, where servers ask for no key."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


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
