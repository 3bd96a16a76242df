"""The cloud behind an OpenAI-compatible server: answers, what comes next, drafts verified, and None where it failed.

The key is in no setting, file, log or error: it is read from the environment as requests are sent
(`flsim/cloud/server/sender.py`), and of what a server says in an error only the kind is logged.
"""

import logging
import math
import os
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from typing import Any

from flsim.cloud.more_help import Beginning, Continuation, Draft, Verified
from flsim.cloud.protocol import MONEY, Answer, Cloud, RefusedError, Reply, instruction, system_of
from flsim.cloud.server.address import PATH, check_address, is_local
from flsim.cloud.server.dialect import (
    FINAL,
    RAW,
    WAYS,
    Came,
    Dialect,
    GoingOn,
    Question,
    RawGoingOn,
    Request,
    Telling,
    Verifying,
)
from flsim.cloud.server.sender import NOT_TRIED, Call, Sender
from flsim.cloud.server.tokens import ServedTokens
from flsim.cloud.server.trial import refuse_beginnings, refuse_drafts
from flsim.cloud.server.trouble import REFUSALS
from flsim.config.schema import CLOUD_ACCESS, ConfigError
from flsim.problems.problem import Problem
from flsim.tasks.stream import TaskStream

_TEMPLATE_TOKENS = 64  # most that a server's chat template adds to system prompt and question

_log = logging.getLogger("flsim.run.cloud")  # below the run's own log

AUTO, CLASSIC, REASONING = "auto", "classic", "reasoning"


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
        tokenizer: str | None = None,
        continues: str = AUTO,
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
            tokenizer: of the served model, as `model.path` names a checkpoint, for drafts that it is to verify; None:
                it verifies none.
            continues: how it is told to go on with an answer that somebody else began, one of
                `flsim.cloud.server.dialect.WAYS`, which is then not tried out; `auto` is `raw` with a tokenizer, and
                else what a trial before the run finds.

        Raises:
            ConfigError: for settings that cannot work; what may hold a key is never repeated.
        """
        check_address(url, key_env)
        if not model:
            raise ConfigError(f"{PATH} needs cloud.model: the name that the server knows it by")
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
        if continues not in (AUTO, *WAYS):
            raise ConfigError(f"cloud.continues={continues!r} must be one of: {', '.join((AUTO, *WAYS))}")
        if continues == RAW and tokenizer is None:
            raise ConfigError(
                f"cloud.continues={RAW} writes the chat's template itself, and needs cloud.tokenizer: a checkpoint "
                f"of the served model, or its tokenizer alone"
            )
        self.dialect, self.stop_when_refused = dialect, stop_when_refused
        self.tokenizer, self.continues = tokenizer, continues
        self.access = CLOUD_ACCESS[0] if tokenizer is None else CLOUD_ACCESS[1]
        limit = "max_completion_tokens" if dialect == REASONING else "max_tokens"
        way = continues if continues != AUTO else FINAL if tokenizer is None else RAW
        self._dialect = Dialect(self.model, dialect == AUTO, limit, heats=dialect != REASONING, way=way)
        self._answers = False  # whether it ever did

    def __getstate__(self) -> dict[str, Any]:
        """Without the tokenizer, which every process reads from its folder."""
        return {name: value for name, value in vars(self).items() if name != "tokens"}

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
                f"{PATH} needs a key for {self.url}, and the environment variable {self.key_env} is not set; set it "
                f"before the run, or name another one by cloud.key_env (the key itself is never a setting)"
            )

    @cached_property
    def tokens(self) -> ServedTokens:
        """Those that the server writes in.

        Raises:
            ConfigError: if nobody says which they are.
        """
        if self.tokenizer is None:
            raise ConfigError(
                f"{PATH} verifies drafts in tokens of the served model, and cloud.tokenizer does not say which they "
                f"are; name a folder with its tokenizer, or take another mode of help"
            )
        return ServedTokens(self.tokenizer, self.system)

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
        more = {"tokenizer": self.tokenizer, "continues": None if self.continues == AUTO else self.continues}
        settings |= {name: value for name, value in more.items() if value is not None}
        return ["endpoint", settings, instruction() if self.system is None else self.system]

    def quote(self, problem: Problem) -> Answer:
        """One token per byte sent and a template's, and the longest completion; a token is a byte at least."""
        sent = len(((system_of(self.system, problem) or "") + problem.prompt).encode()) + _TEMPLATE_TOKENS
        return Answer("", sent, self.max_tokens)

    def answer(self, problems: Sequence[Problem]) -> list[Answer | None]:
        """One answer per problem, in order; None where all tries failed, or three questions in a row had failed."""
        came = self._sent([Question(one, system_of(self.system, one), self.max_tokens) for one in problems])
        return [None if one is None else one.answer for one in came]

    def go_on(self, beginnings: Sequence[Beginning], tokens: int) -> list[Continuation | None]:
        """What comes after each beginning, in order; failures as of `answer`."""
        came = self._sent([self._beginning(one, tokens) for one in beginnings])
        return [None if one is None else Continuation(one.answer, not one.cut) for one in came]

    def verify(self, drafts: Sequence[Draft], rule: str, temperature: float) -> list[Verified | None]:
        """What it makes of each draft, in order; failures as of `answer`.

        A request for each: the server reads prompt, answer and draft, and says what is likeliest at the draft's places.
        So the text is the one that it would say alone, but where two tokens are as likely to within its own rounding.

        Args:
            drafts: in order.
            rule: all are the same at temperature 0.
            temperature: 0, as a server shares neither its uniforms nor its logits.

        Raises:
            ConfigError: for another temperature, or without `cloud.tokenizer`.
        """
        if temperature != 0:
            raise ConfigError(
                f"{PATH} verifies greedily only, as a server shares neither its uniforms nor its logits, and not at "
                f"temperature={temperature}; set client.helping.temperature=0, or take Checkpoint"
            )
        came = self._sent([Verifying(one, self.tokens) for one in drafts])
        found = [None if one is None or one.verified is None else (one.answer, one.verified) for one in came]
        return [None if one is None else replace(one[1], retries=one[0].retries) for one in found]

    @property
    def vocabulary(self) -> Mapping[str, int]:
        """Its tokens and their ids.

        Raises:
            ConfigError: without `cloud.tokenizer`.
        """
        return self.tokens.vocabulary

    def said(self, tokens: Sequence[int]) -> str:
        """The text of an answer's tokens, as `answer` gives it."""
        return self.tokens.said(tokens)

    def tell(self, problems: Sequence[Problem], top: int) -> list[Reply | None]:
        """Its answers with the `top` likeliest tokens at each token; failures as of `answer`.

        Raises:
            ConfigError: without `cloud.tokenizer`.
        """
        came = self._sent([Telling(one, self.tokens, self.max_tokens, top) for one in problems])
        return [None if one is None or one.reply is None else replace(one.reply, answer=one.answer) for one in came]

    def try_out(self, *, goes_on: bool = False, verifies: bool = False) -> None:
        """See `flsim.cloud.more_help.TriesOut`; a server that does not answer at all is not judged."""
        if goes_on and self.continues == AUTO and self.tokenizer is None:
            self._dialect.way = refuse_beginnings(self, self.system)
        if verifies:
            refuse_drafts(self, self.tokens, self.system)

    def _beginning(self, one: Beginning, tokens: int) -> Request:
        way = self._dialect.way
        if way == RAW:
            return RawGoingOn(self.tokens.prompt(one.problem), one.said, tokens)
        return GoingOn(one.problem, system_of(self.system, one.problem), one.said, tokens, way)

    def tried(self, request: Request) -> tuple[Came | None, str]:
        """What came of one request, once, and in our own words why nothing did; no run is stopped by it."""
        (came,), call = self._sender(0).send([request])
        return came, next(iter(call.troubles), "")

    def _sender(self, retries: int) -> Sender:
        return Sender(self.url, self.key_env, self.concurrency, retries, self.backoff_s, self.deadline_s, self._dialect)

    def _sent(self, requests: Sequence[Request]) -> list[Came | None]:
        """What came of each, in order."""
        if not requests:
            return []
        came, call = self._sender(self.retries).send(requests)
        self._tell(call, len(requests))
        return came

    def _tell(self, call: Call, asked: int) -> None:
        """Say what failed, and stop the run if nobody there will answer."""
        self._answers |= call.troubles.total() < asked
        if call.troubles:
            why = ", ".join(f"{count} {trouble}" for trouble, count in call.troubles.most_common())
            _log.warning("the cloud failed at %d of %d questions: %s", call.troubles.total(), asked, why)
        if call.cut:
            _log.warning("%d of %d answers were cut at cloud.max_tokens=%d", call.cut, asked, self.max_tokens)
        tried = call.troubles.total() - call.troubles[NOT_TRIED]
        if self.stop_when_refused and not self._answers and tried and call.refusals.total() == tried:
            ((status, _),) = call.refusals.most_common(1)
            mend = REFUSALS[status].format(key_env=self.key_env)
            raise RefusedError(
                f"the server of cloud.url refused all {tried} of the first questions with status {status}: {mend}; or "
                f"go on without answers by cloud.stop_when_refused=false"
            )
