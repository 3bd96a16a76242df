"""What a server buys from a cloud: under hard caps, nothing twice, and with the same result whatever the cache holds.

The ledger is charged what a run with an empty cache would have to buy: the first time that this run asks something, in
full, known on disk or not; after that, nothing. So no grant, and no result, depends on whether the cache was warm; only
how much of the charge was really bought does, and it is counted apart. (Whoever deletes the cache in the middle of a
run pays again for what the run asks again, without a charge.)
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field

from flsim.cloud.cache import Cache
from flsim.cloud.cloud import Answer, Cloud, Reply, text_reply
from flsim.cloud.ledger import Account, Ledger
from flsim.cloud.teacher import LOGITS, SCORES, TEXT, TOP_LOGPROBS, Teacher
from flsim.config import CloudConfig
from flsim.tasks.problem import Problem
from flsim.timing import spend


@dataclass(frozen=True)
class Request:
    """One thing to ask of the cloud."""

    level: str
    """The access that it takes."""
    problem: Problem
    top: int = 0
    """How many of the likeliest tokens to tell."""
    tokens: tuple[int, ...] = ()
    """What to score."""

    def quote(self, cloud: Cloud) -> Answer:
        """The largest exchange that it can come to; tokens to score are tokens sent."""
        largest = cloud.quote(self.problem)
        return Answer("", largest.prompt_tokens + len(self.tokens), 0) if self.level == SCORES else largest


@dataclass
class Basket:
    """What was paid, and what would have been without a cache."""

    charged: Account = field(default_factory=Account)
    """As the ledger has it: calls, tokens and money of an empty cache, and what the caps refused."""
    cached: Account = field(default_factory=Account)
    """The part of it that lay in the cache already."""
    bought: Account = field(default_factory=Account)
    """What really went to the cloud."""


class Purchases:
    """The server's account with one cloud, in one round."""

    def __init__(
        self, cloud: Cloud, config: CloudConfig, cache: Cache, ledger: Ledger, known: dict[bytes, None]
    ) -> None:
        """Open the account.

        Args:
            cloud: at least a `Teacher` if more than text is asked of it.
            config: what the cloud was made from: its prices, and part of its identity.
            cache: what was bought before, by whichever run.
            ledger: the server's, with its caps.
            known: the keys of what this run has asked so far; new ones are added.
        """
        self.cloud = cloud
        self.prices = config
        self.cache = cache
        self.ledger = ledger
        self.known = known
        self.basket = Basket()
        settings = {name: value for name, value in asdict(config).items() if not name.startswith(("price_", "access"))}
        self._identity = [settings, str(getattr(cloud, "identity", ""))]

    def buy(self, requests: Sequence[Request]) -> list[Reply | None]:
        """What the cloud says to each request; None where a cap refuses it.

        Raises:
            DamagedFileError: if the cache cannot be read.
        """
        keys = [self._key(request) for request in requests]
        granted = {key: request for key, request in zip(keys, requests, strict=True) if key in self.known}
        reserved: dict[bytes, Answer] = {}
        for key, request in zip(keys, requests, strict=True):
            if key not in granted and self._reserve(request):
                granted[key], reserved[key] = request, request.quote(self.cloud)
        found = {key: Reply.from_bytes(value) for key, value in self.cache.get(list(granted)).items()}
        for key in found.keys() & reserved.keys():
            _book(self.basket.cached, found[key].answer, self.prices)
        found |= self._send({key: request for key, request in granted.items() if key not in found})
        for key, quote in reserved.items():
            self._settle(quote, found[key].answer)
            self.known[key] = None
        return [found.get(key) for key in keys]

    def _key(self, request: Request) -> bytes:
        """The SHA-256 of all that the reply depends on."""
        asked = [request.level, request.problem.question, request.top, request.tokens]
        return hashlib.sha256(json.dumps([*self._identity, *asked], sort_keys=True).encode()).digest()

    def _reserve(self, request: Request) -> bool:
        quote = request.quote(self.cloud)
        granted = self.ledger.reserve(quote.tokens, quote.money(self.prices))
        self.basket.charged.refused += not granted
        return granted

    def _settle(self, quote: Answer, answer: Answer) -> None:
        """Charge what a new request came to, and give back the rest of its reservation."""
        self.ledger.give_back(quote.tokens - answer.tokens, quote.money(self.prices) - answer.money(self.prices))
        _book(self.basket.charged, answer, self.prices)

    def _send(self, requests: dict[bytes, Request]) -> dict[bytes, Reply]:
        """Buy what no one has bought before, and keep it."""
        if not requests:
            return {}
        with spend("cloud"):
            replies = dict(zip(requests, self._ask(list(requests.values())), strict=True))
        for reply in replies.values():
            _book(self.basket.bought, reply.answer, self.prices)
        kept = self.cache.put({key: reply.to_bytes() for key, reply in replies.items()})
        return {key: Reply.from_bytes(value) for key, value in kept.items()}

    def _ask(self, requests: Sequence[Request]) -> Iterable[Reply]:
        """Replies in order; the requests of one call are of one level."""
        (level,) = {request.level for request in requests}
        problems = [request.problem for request in requests]
        if level == TEXT:
            return map(text_reply, self.cloud.answer(problems))
        teacher: Teacher = self.cloud  # type: ignore[assignment]  # whoever asks for more has made sure that it is one
        if level == SCORES:
            return teacher.score(problems, [request.tokens for request in requests])
        assert level in (TOP_LOGPROBS, LOGITS)
        return teacher.tell(problems, requests[0].top)


def _book(account: Account, answer: Answer, prices: CloudConfig) -> None:
    account.calls += 1
    account.tokens += answer.tokens
    account.money += answer.money(prices)
