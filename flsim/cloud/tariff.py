"""What a question to the cloud costs one device, in every unit that a budget may count in.

Of a question that is not asked yet its quote is known: the tokens of the largest exchange, the bytes that go up, and
most bytes that can come down. What an answer then takes is never more, as all costs grow with all of these.
"""

from dataclasses import dataclass, field
from fractions import Fraction

from flsim.budget.ledger import MICRO, NO_TRIP, Account, Trip
from flsim.cloud.exchange import Exchange, work_of
from flsim.cloud.protocol import Answer, bytes_sent
from flsim.config.budget import BYTES, CALLS, JOULES, MONEY, SECONDS, TOKENS
from flsim.config.schema import CloudConfig
from flsim.problems.problem import Problem
from flsim.system.asking import Asking

TOKEN_BYTES = 16
"""Most bytes of UTF-8 for each token of an answer, in the mean over its tokens, of a cloud whose quotes do not say how
many (`Answer.most_bytes`). English has 4, and no language or code much more; long runs of white space may have. An
answer that is larger all the same has come, and is charged as it is: it may then pass a cap on bytes, joules or seconds
by what it has beyond, and nothing more is granted until there is room again."""


@dataclass(frozen=True)
class Tariff:
    """That of a device in a round."""

    prices: CloudConfig = field(default_factory=CloudConfig)
    """The section of the config that has them."""
    follows: bool = False
    """Whether bytes, joules and seconds are asked for; else trips are none."""
    asking: Asking | None = None
    """Of the run's system; None in a run without, where only bytes of texts are known."""
    device: int = 0
    round: int = 1

    def most(self, quote: Answer, sent: int) -> Trip:
        """The trip that a question can take at most, by its quote and the bytes of its text."""
        return self.trip(quote, sent, most_down(quote))

    def came(self, answer: Answer | None, sent: int) -> Trip:
        """The trip that it took; without an answer, since the cloud failed, only its request did."""
        if answer is None:
            return self.trip(Answer("", 0, 0), sent, 0)
        return self.trip(answer, sent, len(answer.text.encode()))

    def trip(self, of: Answer, sent: int, down: int) -> Trip:
        """A trip of so many tokens, bytes up and bytes down, unless its exchange says what it took."""
        if not self.follows:
            return NO_TRIP
        took = Exchange(trips=1, up_bytes=sent, down_bytes=down) if of.exchange is None else of.exchange
        if self.asking is None:
            return Trip(took.up_bytes + took.down_bytes)
        work = work_of(took, of.prompt_tokens, of.completion_tokens)
        microseconds, microjoules = self.asking.cost(self.device, self.round, work)
        return Trip(self.asking.bytes(work), microjoules, microseconds)

    def cost(self, quote: Answer, problem: Problem, unit: str) -> Fraction:
        """What a question takes at most by a quote, in a unit of `UNITS`, exactly."""
        return self._in(unit, quote, self.most(quote, bytes_sent(problem)))

    def took(self, answer: Answer, problem: Problem, unit: str) -> Fraction:
        """What it took, likewise."""
        return self._in(unit, answer, self.came(answer, bytes_sent(problem)))

    def _in(self, unit: str, quote: Answer, trip: Trip) -> Fraction:
        if unit in (BYTES, JOULES, SECONDS):
            return Fraction({BYTES: trip.bytes, JOULES: trip.microjoules, SECONDS: trip.microseconds}[unit])
        return Fraction({CALLS: 1, TOKENS: quote.tokens, MONEY: quote.money(self.prices)}[unit])


def most_down(quote: Answer) -> int:
    """Most bytes that an answer can have, by its quote."""
    return quote.completion_tokens * TOKEN_BYTES if quote.most_bytes is None else quote.most_bytes


def trip_facts(tariff: Tariff, spent: Account) -> dict[str, float]:
    """What was charged of trips in a round, by the names of rows, where a budget asks for it; joules where known."""
    if not tariff.follows:
        return {}
    joules = {} if tariff.asking is None else {"asking_joules": spent.microjoules / MICRO}
    return {"cloud_bytes": float(spent.bytes), **joules}
