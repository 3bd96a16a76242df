"""Requests on their way to a server: so many at a time, each with its deadline and retries, and when to stop trying.

The key is read from the environment for every call and lies in no attribute. What a server says in an error is read for
one purpose, to learn what it takes instead (`flsim/cloud/server/dialect.py`), and is never repeated.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import TYPE_CHECKING

from flsim.cloud.server.dialect import Came, Dialect, Question, Request
from flsim.cloud.server.trouble import REFUSALS, is_status, may_pass, name_of, named_wait_s

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_GIVE_UP = 3  # questions in a row that failed, after which the others of a call are not even tried
_LONGEST_WAIT_S = 8.0  # before a retry, unless the server names another time
NOT_TRIED = "not tried"
_NO_KEY = "none"  # what a server that needs no key is sent; the SDK wants one


@dataclass
class Call:
    """The questions of one call, on their way."""

    client: "AsyncOpenAI"
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


@dataclass(frozen=True)
class Sender:
    """The way to one server; its fields are as those of `flsim.cloud.endpoint.Endpoint`."""

    url: str
    key_env: str
    concurrency: int
    retries: int
    backoff_s: float
    deadline_s: float
    dialect: Dialect
    """Which learns."""

    def send(self, requests: Sequence[Request]) -> tuple[list[Came | None], Call]:
        """What came of each request, in order, None where all tries failed; and what happened on the way."""
        with ThreadPoolExecutor(1) as thread:  # its own, since a notebook has an event loop running in this one
            return thread.submit(asyncio.run, self._all(requests)).result()

    async def _all(self, requests: Sequence[Request]) -> tuple[list[Came | None], Call]:
        from openai import AsyncOpenAI  # not above: a config is checked without it

        key = os.environ.get(self.key_env) or _NO_KEY
        timeout = self.deadline_s
        async with AsyncOpenAI(api_key=key, base_url=self.url, max_retries=0, timeout=timeout) as client:
            call = Call(client, asyncio.Semaphore(self.concurrency))
            return list(await asyncio.gather(*(self._ask(call, request) for request in requests))), call

    async def _ask(self, call: Call, request: Request) -> Came | None:
        """One request, as often as it takes and may."""
        async with call.gate:
            trouble = NOT_TRIED
            attempt = 0
            while attempt <= self.retries and not call.is_down:
                begun = monotonic()
                try:
                    async with asyncio.timeout(self.deadline_s):  # of all of it; the client's is per read
                        came = await self._send(call.client, request)
                except Exception as error:  # whatever a server does, the run goes on
                    if self._learns(error):
                        continue
                    trouble, wait_s = name_of(error), self._wait_s(attempt, error)
                    if is_status(error) and error.status_code in REFUSALS:
                        call.refusals[error.status_code] += 1
                    if not may_pass(error):
                        break
                    if wait_s > self.deadline_s:
                        trouble = "asked for a longer wait than cloud.deadline_s"
                        break
                    if attempt < self.retries:
                        await asyncio.sleep(wait_s)
                    attempt += 1
                else:
                    call.in_a_row = 0
                    call.cut += came.cut and isinstance(request, Question)
                    call.troubles.update([came.answer.void] if came.answer.void else [])
                    answer = replace(came.answer, retries=attempt, seconds=monotonic() - begun)
                    return replace(came, answer=answer)
            call.in_a_row += 1
            call.troubles[trouble] += 1
            return None

    async def _send(self, client: "AsyncOpenAI", request: Request) -> Came:
        """Once; what the SDK makes of odd replies is odd, too, so it only carries them."""
        import httpx

        form = request.form(self.dialect)
        reply = await client.post(request.route, body=form, cast_to=httpx.Response)
        return request.read(reply.text)

    def _learns(self, error: Exception) -> bool:
        """Whether a refusal says what this server takes instead; it then gets that, and nothing has failed."""
        if not is_status(error) or error.status_code not in (400, 422):
            return False
        return self.dialect.learns(error.response.text.lower(), error.request.content)

    def _wait_s(self, attempt: int, error: Exception) -> float:
        """Seconds before the next try: what the server names, or twice those before."""
        named = named_wait_s(error.response.headers) if is_status(error) else None
        return min(self.backoff_s * 2.0**attempt, _LONGEST_WAIT_S) if named is None else named
