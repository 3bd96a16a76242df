"""Modes of help that are made up: exchanges of random size within their quote, and help at a part of asking's cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from clients.helping.helping import Asked, Caller, Helping, Pair
from flsim.cloud.exchange import Exchange
from flsim.cloud.protocol import Answer, Cloud, bytes_sent
from flsim.cloud.tariff import most_down
from flsim.problems.problem import Problem
from flsim.seeding import python_random


@dataclass(frozen=True)
class Within(Helping):
    """Takes anything from nothing to all of its quote, drawn by the seed of the question; the cloud may fail."""

    trips: int = 5
    """Most requests."""
    fails: float = 0.1
    """How often the cloud fails."""
    stateless: bool = False
    """Whether each request waits in the cloud's queue."""
    cuts: bool = False
    """Whether the device passes tokens through layers of the cloud's model."""
    timed: bool = False
    """Whether it is said to choose by virtual time."""

    takes_part: ClassVar[bool] = True

    def quote(self, cloud: Cloud, problem: Problem) -> Answer:
        """A third more than asking, and work on the device."""
        whole, layers = cloud.quote(problem), 4000 * self.cuts
        most = Exchange(
            self.trips,
            up_bytes=2 * bytes_sent(problem),
            down_bytes=most_down(whole),
            read=20,
            drawn=30,
            drafted=30,
            accepted=30,
            again=9,
            lower_read=layers,
            lower_drawn=layers,
            in_session=0 if self.stateless else self.trips - 1,
        )
        return Answer("", 2 * whole.prompt_tokens, whole.completion_tokens, exchange=most)

    @property
    def chosen_by_time(self) -> str | None:
        """As it is said."""
        return "client.helping.timed=false" if self.timed else None

    def held(self, cloud: Cloud) -> float:
        """A quarter, where it cuts."""
        return 0.25 * self.cuts

    def help(self, pair: Pair, callers: Sequence[Caller]) -> list[list[Answer | None]]:
        """The cloud's text, at whatever was drawn."""
        return [[self._one(pair.cloud, one) for one in caller.asked] for caller in callers]

    def _one(self, cloud: Cloud, asked: Asked) -> Answer | None:
        rng, quote = python_random(asked.seed, "made up"), self.quote(cloud, asked.problem)
        if rng.random() < self.fails:
            return None
        most = quote.exchange
        assert most is not None
        trips, drafted = rng.randint(0, most.trips), rng.randint(0, most.drafted)
        took = Exchange(
            trips,
            up_bytes=rng.randint(0, most.up_bytes),
            down_bytes=rng.randint(0, most.down_bytes),
            read=rng.randint(0, most.read),
            drawn=rng.randint(drafted, most.drawn),
            drafted=drafted,
            accepted=rng.randint(0, drafted),
            again=rng.randint(0, most.again),
            lower_read=rng.randint(0, most.lower_read),
            lower_drawn=rng.randint(0, most.lower_drawn),
            in_session=0 if self.stateless else max(trips - 1, 0),
        )
        (answer,) = cloud.answer([asked.problem])
        assert answer is not None
        sent, received = rng.randint(0, quote.prompt_tokens), rng.randint(0, quote.completion_tokens)
        return Answer(answer.text, sent, received, exchange=took)


@dataclass(frozen=True)
class AtPart(Helping):
    """The cloud's answer for a part of what asking for it takes, in tokens, money and bytes, but for rounding."""

    part: float = 0.5

    def help(self, pair: Pair, callers: Sequence[Caller]) -> list[list[Answer | None]]:
        """One request each."""
        return [[self._one(pair, one.problem) for one in caller.asked] for caller in callers]

    def _one(self, pair: Pair, problem: Problem) -> Answer:
        (answer,), most = pair.cloud.answer([problem]), pair.cloud.quote(problem)
        assert answer is not None
        up, down = round(self.part * bytes_sent(problem)), round(self.part * len(answer.text.encode()))
        said = len(pair.base.spell(answer.text))
        tokens = round(self.part * most.prompt_tokens), round(self.part * said)
        return Answer(answer.text, *tokens, exchange=Exchange(trips=1, up_bytes=up, down_bytes=down))
