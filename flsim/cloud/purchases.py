"""What a server buys from a cloud: under hard caps, nothing twice, and with the same result whatever the cache holds.

The ledger is charged what a run with an empty cache would have to buy: the first time that this run asks something, in
full, known on disk or not; after that, nothing. So no grant, and no result, depends on whether the cache was warm; only
how much of the charge was really bought does, and it is counted apart. (Whoever deletes the cache in the middle of a
run pays again for what the run asks again, and is charged for it again.)
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from flsim.budget.ledger import Ledger
from flsim.cloud.cache import Cache, Shelf, key_of
from flsim.cloud.journal import TRAINING, Journal
from flsim.cloud.protocol import Answer, Basket, Cloud, Reply, text_reply
from flsim.cloud.teacher import FEATURES, LOGITS, SCORES, TEXT, TOP_LOGPROBS, Teacher
from flsim.config.schema import CloudConfig
from flsim.problems.problem import Problem
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
    layers: tuple[int, ...] = ()
    """Whose hidden states to tell."""

    def quote(self, cloud: Cloud) -> Answer:
        """The largest exchange that it can come to; tokens to score are tokens sent."""
        largest = cloud.quote(self.problem)
        return Answer("", largest.prompt_tokens + len(self.tokens), 0) if self.level == SCORES else largest


class Purchases:
    """The server's account with one cloud, in one round."""

    def __init__(
        self,
        cloud: Cloud,
        prices: CloudConfig,
        cache: Cache,
        ledger: Ledger,
        known: dict[bytes, None],
        journal: Journal | None = None,
    ) -> None:
        """Open the account.

        Args:
            cloud: at least a `Teacher` if more than text is asked of it.
            prices: the section of the config that has them.
            cache: what was bought before, by whichever run.
            ledger: the server's, with its caps.
            known: the keys of what this run has asked so far; new ones are added.
            journal: of this round, whose `held` the ledger has; None outside of a run.
        """
        self.cloud = cloud
        self.prices = prices
        self.cache = cache
        self.ledger = ledger
        self.known = known
        self.journal = Journal(None, prices) if journal is None else journal
        self.basket = Basket()
        self._identity = cloud.identity()

    def buy(self, requests: Sequence[Request]) -> list[Reply | None]:
        """What the cloud says to each request; None where a cap refuses it or the cloud fails.

        Raises:
            DamagedFileError: if the cache cannot be read.
        """
        keys = [self._key(request) for request in requests]
        found = {key: Reply.from_bytes(value) for key, value in self.cache.get(list(dict.fromkeys(keys))).items()}
        found |= self._recalled(dict(zip(keys, requests, strict=True)), found)
        granted: dict[bytes, Request] = {}
        reserved: dict[bytes, Answer] = {}
        for key, request in zip(keys, requests, strict=True):
            if key in granted or (key in self.known and key in found):
                granted[key] = request
            elif self._reserve(request, again=key in found and self._paid(key) is not None):
                granted[key], reserved[key] = request, request.quote(self.cloud)
        for key in found.keys() & reserved.keys():
            self._book_found(key, found[key].answer)
        found |= self._send({key: request for key, request in granted.items() if key not in found})
        for key, quote in reserved.items():
            if key in found:
                self._settle(quote, found[key].answer)
                self.basket.feature_bytes += found[key].states.nbytes
                self.known |= {} if found[key].answer.void else {key: None}
            else:
                self.ledger.cancel(quote.tokens, quote.money(self.prices))
        told = {key: reply for key, reply in found.items() if key in granted and not reply.answer.void}
        return [told.get(key) for key in keys]

    def _recalled(self, requests: Mapping[bytes, Request], found: Container[bytes]) -> dict[bytes, Reply]:
        """Answers that only the journal has: a text is all of a reply at the level `text`, and of no other."""
        lacking = [key for key, request in requests.items() if request.level == TEXT and key not in found]
        answers = {key: self._paid(key) for key in lacking}
        return {key: text_reply(answer) for key, answer in answers.items() if answer is not None}

    def _paid(self, key: bytes) -> Answer | None:
        """What an earlier attempt at this round was given."""
        return self.journal.recall(TRAINING, key.hex())

    def _book_found(self, key: bytes, answer: Answer) -> None:
        """Count what was there already: as bought, where an earlier attempt at this round bought it."""
        paid = self._paid(key)
        if paid is not None:
            self.journal.met(TRAINING, key.hex())
            bought = not paid.cached
        else:
            bought = self.journal.found(TRAINING, key.hex())
            self.journal.close(TRAINING, [(key.hex(), replace(answer, cached=not bought))])
        self.basket.failures += bool(answer.void)
        account = self.basket.bought if bought else self.basket.cached
        account.book(answer.tokens, answer.money(self.prices))

    def _key(self, request: Request) -> bytes:
        parts = request.level, request.problem, request.top, request.tokens, request.layers
        return key_of(self._identity, *parts)

    def _reserve(self, request: Request, *, again: bool) -> bool:
        quote = request.quote(self.cloud)
        granted = self.ledger.reserve(quote.tokens, quote.money(self.prices), again=again)
        self.basket.charged.refused += not granted
        return granted

    def _settle(self, quote: Answer, answer: Answer) -> None:
        """Charge what a new request came to, and give back the rest of its reservation."""
        self.ledger.give_back(quote.tokens - answer.tokens, quote.money(self.prices) - answer.money(self.prices))
        self.basket.charged.book(answer.tokens, answer.money(self.prices))

    def _send(self, requests: dict[bytes, Request]) -> dict[bytes, Reply]:
        """Buy what no one has bought before, and keep it; what the cloud fails at is not among it."""
        if not requests:
            return {}
        names = {key: key.hex() for key in requests}
        self.journal.send(TRAINING, [(names[key], request.quote(self.cloud)) for key, request in requests.items()])
        with spend("cloud"):
            asked = dict(zip(requests, self._ask(list(requests.values())), strict=True))
        replies = {key: reply for key, reply in asked.items() if reply is not None}
        void = {key: reply for key, reply in replies.items() if reply.answer.void}
        self.basket.failures += len(asked) - len(replies) + len(void)
        for reply in replies.values():
            self.basket.bought.book(reply.answer.tokens, reply.answer.money(self.prices))
            self.basket.retries += reply.answer.retries
        kept = self.cache.put({key: reply.to_bytes() for key, reply in replies.items() if key not in void})
        self.basket.unkept += len(replies) if isinstance(self.cache, Shelf) and self.cache.left_out else 0
        said = [(names[key], None if reply is None else reply.answer) for key, reply in asked.items()]
        self.journal.close(TRAINING, said)  # only now: of all but texts it has no more than the bill
        return void | {key: Reply.from_bytes(value) for key, value in kept.items()}

    def _ask(self, requests: Sequence[Request]) -> Iterable[Reply | None]:
        """Replies in order, None where the cloud failed; the requests of one call are of one level."""
        (level,) = {request.level for request in requests}
        problems = [request.problem for request in requests]
        if level == TEXT:
            return [None if answer is None else text_reply(answer) for answer in self.cloud.answer(problems)]
        teacher: Teacher = self.cloud  # type: ignore[assignment]  # whoever asks for more has made sure that it is one
        if level == SCORES:
            return teacher.score(problems, [request.tokens for request in requests])
        if level == FEATURES:
            return teacher.tell(problems, requests[0].top, requests[0].layers)
        assert level in (TOP_LOGPROBS, LOGITS)
        return teacher.tell(problems, requests[0].top)
