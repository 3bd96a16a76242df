"""The cloud LLM as the devices see it: questions in, answers with their token counts out.

Any class that `cloud.path` names is a cloud if it has what `Cloud` asks for; whoever derives from `Cloud` writes three
methods. Some can also teach (`flsim/cloud/teacher.py`): they give the log-probabilities behind their answers. At the
end stand the words that explain the built-in world to a model that has never seen it, and a buyer's sums.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from flsim.budget.ledger import Account
from flsim.cloud.exchange import Exchange
from flsim.config.model import AUTO
from flsim.config.schema import ALL, CLOUD_ACCESS, CloudConfig, ConfigError
from flsim.problems.families import FAMILIES, draw, is_builtin
from flsim.problems.problem import Problem
from flsim.tasks.stream import TaskStream

NOTHING, TIME, MONEY = "nothing", "time", "money"
"""What an answer may cost."""


class RefusedError(ConfigError):
    """A cloud refuses whatever it is asked, and not for today: the run stops with the sentence that this is."""


@dataclass(frozen=True)
class Answer:
    """One reply of the cloud."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    cached: bool = field(default=False, compare=False)
    """Whether it was there already, so that nothing was bought for it."""
    retries: int = field(default=0, compare=False)
    """How many requests had failed before it came."""
    void: str = field(default="", compare=False)
    """Why there is no answer though it was billed, such as a text that was cut before it began; else empty."""
    kept: bool = field(default=True, compare=False)
    """Whether it was bought and could be kept for later runs, where there is a cache to keep it in."""
    seconds: float | None = field(default=None, compare=False)
    """How long the request took that brought it; None where the cloud does not measure it."""
    most_bytes: int | None = field(default=None, compare=False)
    """Of a quote: most bytes of UTF-8 that the answer's text can have; None: not known, and so many for each token of
    the completion as `flsim.cloud.tariff.TOKEN_BYTES`."""
    exchange: Exchange | None = None
    """What it took beside its tokens; of a quote, the most that it can take. None: one request with the question's
    words, and the answer's text."""

    @property
    def tokens(self) -> int:
        """All tokens of the exchange."""
        return self.prompt_tokens + self.completion_tokens

    def money(self, config: CloudConfig) -> float:
        """Its price, in the unit of `config.price_*`."""
        return (
            self.prompt_tokens * config.price_per_prompt_token
            + self.completion_tokens * config.price_per_completion_token
        )


@dataclass(frozen=True)
class Reply:
    """What a teacher said, and what it was billed."""

    answer: Answer
    tokens: NDArray[np.int32]
    """Ids of the tokens that were said or given, the ending one included, `(T,)`; none at the level `text`."""
    ids: NDArray[np.int32]
    """The k likeliest tokens at each of them, `(T, k)`; where tokens were given, k = 1 and these are they."""
    logprobs: NDArray[np.float32]
    """The log-probabilities of `ids`, `(T, k)`."""
    states: NDArray[np.float16] = field(default_factory=lambda: np.zeros((0, 0, 0), dtype=np.float16))
    """The hidden states that each token was drawn from, after each layer that was asked for, `(S, T, D)`; none where
    none was. They travel in 16 bits."""

    def to_bytes(self) -> bytes:
        """All of it, bit for bit."""
        text = np.frombuffer(self.answer.text.encode(), dtype=np.uint8)
        sizes = np.array([self.answer.prompt_tokens, self.answer.completion_tokens], dtype=np.int64)
        parts = {"text": text, "sizes": sizes, "tokens": self.tokens, "ids": self.ids, "logprobs": self.logprobs}
        parts |= {"states": self.states} if self.states.size else {}
        return bytes(save({name: np.ascontiguousarray(part) for name, part in parts.items()}))

    @staticmethod
    def from_bytes(data: bytes) -> "Reply":
        """The inverse of `to_bytes`."""
        parts: dict[str, NDArray[Any]] = load(data)
        prompt, completion = parts["sizes"].tolist()
        answer = Answer(parts["text"].tobytes().decode(), prompt, completion)
        states = {"states": parts["states"]} if "states" in parts else {}
        return Reply(answer, parts["tokens"], parts["ids"], parts["logprobs"], **states)


def text_reply(answer: Answer) -> Reply:
    """A reply of the level `text`."""
    nothing = np.zeros(0, dtype=np.int32)
    return Reply(answer, nothing, nothing.reshape(0, 0), np.zeros((0, 0), dtype=np.float32))


@runtime_checkable
class Cloud(Protocol):
    """Anything that answers problems.

    It travels to the workers as a pickle, before it has answered anything. So the constructor checks its settings and
    keeps them, and what takes time or memory is loaded with the first answer.
    """

    costs: str = NOTHING
    """`time` or `money` if answers cost that: they are then cached, and what was really bought is counted. For `money`
    evaluations send granted prompts only, unless `evaluation.cloud` says otherwise."""
    access: str = CLOUD_ACCESS[0]
    """The most that it can give to a server that learns from it, or to devices that it works with, one of
    `CLOUD_ACCESS`; more than `text` takes a `Teacher`."""
    shared: bool = False
    """Whether one of it serves all Ray workers, as it is too large for each of them to have its own."""
    reach: tuple[str, ...] = ()
    """Those of its settings that enter no answer, such as a number of retries: they may change on a resume."""

    @property
    def reads_drafts(self) -> bool:
        """Whether a question may come in the words of `cloud.draft`; not where it is looked up as it stands."""
        return False

    @abstractmethod
    def quote(self, problem: Problem) -> Answer:
        """The largest exchange that answering the problem can come to (no text); caps are held against it.

        A cloud that knows how long the text can be says so in `most_bytes`, for caps on bytes, joules and seconds.
        """
        ...

    @abstractmethod
    def answer(self, problems: Sequence[Problem]) -> Sequence[Answer | None]:
        """One answer per problem, in order; None where the cloud failed, which costs nothing.

        A failure that is billed all the same is an answer that is `void`.

        Raises:
            RefusedError: if nobody there will answer this run.
        """
        ...

    @abstractmethod
    def identity(self) -> Sequence[object]:
        """All that its answers depend on, as JSON can write it: with the question it is the key of a cached answer."""
        ...

    def check(self, stream: TaskStream, workers: int) -> None:
        """Make sure, before anything is written, that it can serve a run.

        Args:
            stream: of the run, its data read.
            workers: processes that ask at the same time.

        Raises:
            ConfigError: saying what is missing, such as a key or a file, and the mend.
        """
        return None

    def for_worker(self, workers: int) -> "Cloud":
        """The one that each of so many workers asks."""
        return self

    def for_server(self) -> "Cloud":
        """The one that a server asks: what it says to one question may not depend on the others of a call."""
        return self


def asks_all_tests(cloud: Cloud, asked: str) -> bool:
    """Whether the cloud answers every test prompt, granted or not; `asked` is `evaluation.cloud`."""
    return cloud.costs != MONEY if asked == AUTO else asked == ALL


_HEAD = """You answer short questions in a fixed notation. Write the answer alone: no words, no explanation, no spaces.
Answers to sums, differences and products have the least significant digit first; all other numbers are as usual.
Expressions are Python. Examples, each a question and its answer after the last equals sign:"""


def system_of(system: str | None, problem: Problem) -> str | None:
    """The system prompt for a problem; None sends none.

    A notation that a model has never seen is explained by two examples of every family, but for the built-in world
    alone: a question of a data set stands under its own instruction (`Problem.prompt`).

    Args:
        system: what the settings say; None leaves it to the problem.
        problem: what is asked.
    """
    if system is not None:
        return system
    return instruction() if is_builtin(problem) else None


@cache
def instruction() -> str:
    """The system prompt of the built-in world; the examples are of the train split, always the same ones."""
    rng = Random(0)
    shown = [
        draw(family, level, "train", rng) for family in FAMILIES for level in (family.levels[0], family.levels[-1])
    ]
    return "\n".join([_HEAD, *(problem.question + problem.answer for problem in shown)])


def bytes_sent(problem: Problem) -> int:
    """Of a question in the words in which it is sent, under its instruction, in UTF-8."""
    return len(problem.prompt.encode())


@dataclass
class Basket:
    """The sums of one buyer over a stretch of time: what was paid, and what really went to the cloud past a cache."""

    charged: Account = field(default_factory=Account)
    """As the ledger has it: calls, tokens and money of an empty cache, and what the caps refused."""
    cached: Account = field(default_factory=Account)
    """The part of it that lay in the cache already."""
    bought: Account = field(default_factory=Account)
    """What really went to the cloud."""
    failures: int = 0
    """Questions at which the cloud failed, however often it was asked; only those that it billed are charged."""
    retries: int = 0
    """Requests that had failed before an answer came."""
    unkept: int = 0
    """Answers that were bought and that the cache could not keep."""
    exchange: Exchange = field(default_factory=Exchange)
    """What the questions took beside their tokens: requests, those at which the cloud failed among them and each one
    however often it was tried; bytes of the questions as they were sent, under their instructions and with a draft
    where one goes along, and of the answers, in UTF-8."""
    further: int = 0
    """Of the requests, those after the first of their question."""
    feature_bytes: int = 0
    """Of hidden states, of what was charged."""
    prompt_tokens: int = 0
    """Of what was charged."""
    completion_tokens: int = 0
    """Likewise; together with the prompts' these are the tokens of `charged`."""

    def add(self, answer: Answer | None, prices: CloudConfig, sent: Problem | None = None) -> None:
        """Enter what became of one question.

        Args:
            answer: None is a failure.
            prices: the section of the config that has them.
            sent: the question in the words in which it went out; None where that is not known any more.
        """
        up, down = 0 if sent is None else bytes_sent(sent), 0 if answer is None else len(answer.text.encode())
        plain = Exchange(trips=1, up_bytes=up, down_bytes=down)
        took = plain if answer is None or answer.exchange is None else answer.exchange
        self.exchange = self.exchange.plus(took)
        self.further += took.further
        if answer is None:
            self.failures += 1
            return
        self.prompt_tokens += answer.prompt_tokens
        self.completion_tokens += answer.completion_tokens
        for account in (self.charged, self.cached if answer.cached else self.bought):
            account.book(answer.tokens, answer.money(prices))
        self.failures += bool(answer.void)
        self.retries += answer.retries
        self.unkept += not answer.kept

    def sent_facts(self) -> dict[str, int]:
        """What went to the cloud and came back, by the names that rows have for it; whatever a cache had.

        What only modes of help have is left out of others.
        """
        more = {"cloud_further_trips": self.further, "cloud_session_trips": self.exchange.in_session}
        return {
            "cloud_prompt_tokens": self.prompt_tokens,
            "cloud_completion_tokens": self.completion_tokens,
            "cloud_up_bytes": self.exchange.up_bytes,
            "cloud_down_bytes": self.exchange.down_bytes,
            "cloud_trips": self.exchange.trips,
            **{name: count for name, count in more.items() if count},
        }

    def bought_facts(self) -> dict[str, float]:
        """What depends on the cache and on the weather, by the names that rows have for it."""
        return {
            "bought_calls": self.bought.calls,
            "bought_tokens": self.bought.tokens,
            "bought_money": self.bought.money,
            "cached_tokens": self.cached.tokens,
            **({"unkept_answers": self.unkept} if self.unkept else {}),
        }
