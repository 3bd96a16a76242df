"""The cloud behind an OpenAI-compatible server: limits, deadlines, retries, and None where it failed after all.

The key is read from the environment for every call and lies in no attribute. What a server says in an error is never
repeated, since it could hold the key: only the kind of the error is logged. It is read for one purpose: some models
take `max_completion_tokens` in place of `max_tokens`, no temperature, or streams only, and say so in an error 400.
"""

import asyncio
import logging
import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from time import monotonic, time
from typing import Any
from urllib.parse import urlsplit

from openai import APIConnectionError, APIStatusError, APITimeoutError, AsyncOpenAI

from flsim.cloud.chat_reply import UnreadableReplyError, read_reply
from flsim.cloud.protocol import MONEY, Answer, Cloud, RefusedError, instruction, system_of
from flsim.config.schema import ConfigError
from flsim.problems.problem import Problem
from flsim.tasks.stream import TaskStream

_PATH = "flsim.cloud.endpoint:Endpoint"

_GIVE_UP = 3  # questions in a row that failed, after which the others of a call are not even tried
_LONGEST_WAIT_S = 8.0  # before a retry, unless the server names another time
_TEMPLATE_TOKENS = 64  # most that a server's chat template adds to system prompt and question
_PASSING = (408, 409, 429)  # what may be different the next time, like every 5xx
_NOT_TRIED = "not tried"
_NO_KEY = "none"  # what a server that needs no key is sent; the SDK wants one

_log = logging.getLogger("flsim.run.cloud")  # below the run's own log


_REFUSALS = {
    400: "it takes no such request; check cloud.model, cloud.max_tokens and cloud.dialect",
    401: "it does not accept the key; put a valid one into the environment variable {key_env}",
    402: "the account has no money left; top it up",
    403: "the key may not use this model; check cloud.model and what the key is allowed to do",
    404: "it knows no such address or model; check cloud.url, which ends with /v1 as a rule, and cloud.model",
}
"""Statuses that no later try will change, and the mend."""
AUTO, CLASSIC, REASONING = "auto", "classic", "reasoning"


@dataclass
class _Call:
    """The questions of one call, on their way."""

    client: AsyncOpenAI
    gate: asyncio.Semaphore
    in_a_row: int = 0
    troubles: Counter[str] = field(default_factory=Counter)
    """Why questions failed."""
    refusals: Counter[int] = field(default_factory=Counter)
    """The statuses among them that no later try will change."""
    cut: int = 0
    """Answers that were cut at their longest."""

    @property
    def is_down(self) -> bool:
        """Whether to stop trying."""
        return self.in_a_row >= _GIVE_UP


class Endpoint(Cloud):
    """`POST {url}/chat/completions` with temperature 0. Not deterministic; with a filled cache before it, a run is."""

    costs = MONEY
    reach = ("key_env", "concurrency", "retries", "backoff_s", "deadline_s", "stop_when_refused")

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
        dialect: str = AUTO,
        stop_when_refused: bool = True,
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
            dialect: what is sent beside the question: `classic`, `max_tokens` and temperature 0; `reasoning`,
                `max_completion_tokens` and no temperature; `auto`, classic but for what the server refuses of it.
            stop_when_refused: whether the run stops if the server refuses all of the first questions (400 to 404);
                otherwise they fail, and the run goes on.

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
        if dialect not in (AUTO, CLASSIC, REASONING):
            raise ConfigError(f"cloud.dialect={dialect!r} must be one of: {AUTO}, {CLASSIC}, {REASONING}")
        self.dialect, self.stop_when_refused = dialect, stop_when_refused
        self._limit = "max_completion_tokens" if dialect == REASONING else "max_tokens"
        self._heats, self._streams = dialect != REASONING, False
        self._answers = False  # whether it ever did

    @property
    def reads_drafts(self) -> bool:
        """It reads whatever it is sent."""
        return True

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
        settings: dict[str, Any] = {
            "url": self.url,
            "model": self.model,
            "system": self.system,
            "max_tokens": self.max_tokens,
        }
        if self.dialect == REASONING:
            settings["dialect"] = REASONING  # it may be answered at another temperature
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
        self._tell(call, len(problems))
        return answers

    def _tell(self, call: _Call, asked: int) -> None:
        """Say what failed, and stop the run if nobody there will answer."""
        self._answers |= call.troubles.total() < asked
        if call.troubles:
            why = ", ".join(f"{count} {trouble}" for trouble, count in call.troubles.most_common())
            _log.warning("the cloud failed at %d of %d questions: %s", call.troubles.total(), asked, why)
        if call.cut:
            _log.warning("%d of %d answers were cut at cloud.max_tokens=%d", call.cut, asked, self.max_tokens)
        tried = call.troubles.total() - call.troubles[_NOT_TRIED]
        if self.stop_when_refused and not self._answers and tried and call.refusals.total() == tried:
            ((status, _),) = call.refusals.most_common(1)
            mend = _REFUSALS[status].format(key_env=self.key_env)
            raise RefusedError(
                f"the server of cloud.url refused all {tried} of the first questions with status {status}: {mend}; or "
                f"go on without answers by cloud.stop_when_refused=false"
            )

    async def _ask(self, call: _Call, problem: Problem) -> Answer | None:
        """One question, as often as it takes and may."""
        async with call.gate:
            trouble = _NOT_TRIED
            attempt = 0
            while attempt <= self.retries and not call.is_down:
                begun = monotonic()
                try:
                    async with asyncio.timeout(self.deadline_s):  # of all of it; the client's is per read
                        answer, cut = await self._send(call.client, problem)
                except Exception as error:  # whatever a server does, the run goes on
                    if self._learns(error):
                        continue
                    trouble, wait_s = _name(error), self._wait_s(attempt, error)
                    if isinstance(error, APIStatusError) and error.status_code in _REFUSALS:
                        call.refusals[error.status_code] += 1
                    if not _may_pass(error):
                        break
                    if wait_s > self.deadline_s:
                        trouble = "asked for a longer wait than cloud.deadline_s"
                        break
                    if attempt < self.retries:
                        await asyncio.sleep(wait_s)
                    attempt += 1
                else:
                    call.in_a_row = 0
                    call.cut += cut
                    call.troubles.update([answer.void] if answer.void else [])
                    return replace(answer, retries=attempt, seconds=monotonic() - begun)
            call.in_a_row += 1
            call.troubles[trouble] += 1
            return None

    async def _send(self, client: AsyncOpenAI, problem: Problem) -> tuple[Answer, bool]:
        """One request; the answer, and whether it was cut."""
        messages: list[dict[str, str]] = [{"role": "user", "content": problem.prompt}]
        system = system_of(self.system, problem)
        if system is not None:
            messages.insert(0, {"role": "system", "content": system})
        form: dict[str, Any] = {"model": self.model, "messages": messages, self._limit: self.max_tokens}
        form |= {"temperature": 0.0} if self._heats else {}
        form |= {"stream": True, "stream_options": {"include_usage": True}} if self._streams else {}
        create: Any = client.chat.completions.with_raw_response.create  # what the SDK makes of odd replies is odd, too
        reply = (await create(**form)).http_response
        await reply.aread()
        return read_reply(reply.text)

    def _learns(self, error: Exception) -> bool:
        """Whether a refusal says what this server takes instead; it then gets that, and nothing has failed."""
        if self.dialect != AUTO or not isinstance(error, APIStatusError) or error.status_code != 400:
            return False
        said = error.response.text.lower()
        sent = error.request.content
        if "max_completion_tokens" in said and b'"max_tokens"' in sent:
            self._limit = "max_completion_tokens"
        elif "temperature" in said and b'"temperature"' in sent:
            self._heats = False
        elif "stream" in said and b'"stream"' not in sent:
            self._streams = True
        else:
            return False
        return True

    def _wait_s(self, attempt: int, error: Exception) -> float:
        """Seconds before the next try: what the server names, or twice those before."""
        named = _named_wait_s(error.response.headers) if isinstance(error, APIStatusError) else None
        return min(self.backoff_s * 2.0**attempt, _LONGEST_WAIT_S) if named is None else named


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


def _named_wait_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait: in milliseconds, in seconds, or until a date; None if it names none."""
    for name, unit_s in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            wait_s = float(headers[name]) * unit_s
        except (KeyError, ValueError):
            continue
        if math.isfinite(wait_s):
            return max(0.0, wait_s)
    try:
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time())
    except (KeyError, ValueError, OverflowError):
        return None


def _may_pass(error: Exception) -> bool:
    """Whether trying again can help."""
    return not isinstance(error, APIStatusError) or error.status_code in _PASSING or error.status_code >= 500


def _name(error: Exception) -> str:
    """What happened, in words of our own."""
    if isinstance(error, TimeoutError | APITimeoutError):
        return "timed out"
    if isinstance(error, APIStatusError):
        return f"answered with status {error.status_code}"
    if isinstance(error, UnreadableReplyError):
        return str(error)
    return "cut off or never connected" if isinstance(error, APIConnectionError) else "with an unreadable reply"
