"""Hand-over of tokens: where the device is unsure of its next token, the cloud says the next few, and it goes on.

    client.helping.path=clients.helping.handover:Handover client.helping.tokens=4

The cloud is sent the question and what the answer begins with. A threshold on the probability of the likeliest token
decides, as in Big Little Decoder (Kim et al. 2023, arXiv 2302.07863), which calls it the fallback, and in hybrids of a
small and a large model (Hao et al. 2024, EdgeFM, 10.1145/3662006.3662067).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self, cast

from clients.helping.helping import Asked, Caller, Helping, Pair, exchange_of
from flsim.cloud.exchange import Exchange
from flsim.cloud.more_help import Beginning, Continuation, GoesOn, TriesOut
from flsim.cloud.protocol import Answer, Cloud, bytes_sent
from flsim.cloud.tariff import TOKEN_BYTES
from flsim.config.ranges import ConfigError
from flsim.models.base import BaseModel
from flsim.models.decoding import Completions, generate, prompts_of, read
from flsim.problems.problem import Problem


@dataclass(frozen=True)
class Handover(Helping):
    """How much is handed over, and when."""

    tokens: int = 4
    """m, most tokens that the cloud says at a time."""
    below: float = 0.7
    """The device hands over where its likeliest next token has a probability below this; 0 hands over only once, where
    it asked, and 1 wherever it is not certain."""
    times: int = 4
    """Most hand-overs of one answer; the first is where the device asked."""

    goes_on: ClassVar[bool] = True
    takes_part: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        if self.tokens < 1 or self.times < 1:
            raise ValueError(f"tokens={self.tokens} and times={self.times} must be at least 1")
        if not 0 <= self.below <= 1:
            raise ValueError(f"below={self.below} must be in [0, 1]: it is a probability")

    def check(self, cloud: Cloud, allowed: str | None) -> None:
        """It takes a cloud that goes on with what somebody else began to say."""
        super().check(cloud, allowed)
        if not isinstance(cloud, GoesOn):
            raise ConfigError(
                f"client.helping=Handover needs a cloud that goes on with an answer (`go_on`), and "
                f"{type(cloud).__name__} answers whole questions only; take Builtin, Checkpoint or Endpoint, or "
                f"client.helping.path=clients.helping.helping:Ask"
            )

    def try_out(self, cloud: Cloud) -> None:
        """A server might start anew."""
        if isinstance(cloud, TriesOut):
            cloud.try_out(goes_on=True)

    def quote(self, cloud: Cloud, problem: Problem) -> Answer:
        """All hand-overs, each with a beginning as long as the cloud's longest answer."""
        whole = cloud.quote(problem)
        each = TOKEN_BYTES if whole.most_bytes is None else math.ceil(whole.most_bytes / whole.completion_tokens)
        said = self.times * self._tokens(whole)
        down = said * each
        up = self.times * (bytes_sent(problem) + whole.completion_tokens * each)
        return Answer(
            "",
            self.times * (whole.prompt_tokens + whole.completion_tokens),
            said,
            most_bytes=down,
            exchange=Exchange(trips=self.times, up_bytes=up, down_bytes=down),
        )

    def _tokens(self, whole: Answer) -> int:
        """What is handed over at a time: no more than the cloud's longest answer has."""
        return min(self.tokens, whole.completion_tokens)

    def most(self, pair: Pair, problem: Problem) -> Answer:
        """The device reads what the cloud says, of whose tokens none has less than a byte, and draws all else.

        The token that it is unsure of is drawn, too, at each hand-over.
        """
        quote = self.quote(pair.cloud, problem)
        own = Exchange(read=exchange_of(quote).down_bytes, drawn=pair.longest + self.times)
        return replace(quote, exchange=exchange_of(quote).plus(own))

    def help(self, pair: Pair, callers: Sequence[Caller]) -> list[list[Answer | None]]:
        """Cloud and device in turn; all questions go on together."""
        rows = [[_Answering.begun(pair, self, one) for one in caller.asked] for caller in callers]
        every = [one for row in rows for one in row]
        for _ in range(self.times):
            self._hand_over(pair, [one for one in every if one.hands_over])
            self._go_on(pair, [[one for one in row if not one.ended] for row in rows])
        return [[one.answer(pair.base) for one in row] for row in rows]

    def _hand_over(self, pair: Pair, some: "Sequence[_Answering]") -> None:
        """The cloud says the next tokens, where that still fits into what was reserved."""
        some = [one for one in some if one.may_hand_over(self._tokens(one.whole), pair.base, pair.cloud)]
        if not some:
            return
        beginnings = [Beginning(one.asked.problem, one.text(pair.base)) for one in some]
        said = cast(GoesOn, pair.cloud).go_on(beginnings, max(self._tokens(one.whole) for one in some))
        for one, beginning, came in zip(some, beginnings, said, strict=True):
            one.take(pair.base, beginning, came)

    def _go_on(self, pair: Pair, going: "Sequence[Sequence[_Answering]]") -> None:
        """The devices go on by themselves, greedily, to the first token that they are unsure of."""
        if not any(going):
            return
        base = pair.base
        asked = [text for row in going for text in base.prompts([[one.asked.problem for one in row]])[0]]
        begins = iter(base.tokenizer(asked)["input_ids"])
        reading = read(base, prompts_of(base, [[[*next(begins), *one.tokens] for one in row] for row in going]))
        most = max(1, *(pair.longest - len(one.tokens) for row in going for one in row))
        found = generate(base, reading, group_size=1, max_new_tokens=most, temperature=0.0, may_ask=False)
        for k, row in enumerate(going):
            for p, one in enumerate(row):
                one.go_on(base, *_said(found, k, p, pair.longest - len(one.tokens)), below=self.below)


def _said(found: Completions, k: int, p: int, room: int) -> tuple[list[int], list[float]]:
    """The tokens of a response, as far as there is room for them, and their log-probabilities."""
    count = min(int(found.mask[k, p, 0].sum()), max(0, room))
    return found.tokens[k, p, 0, :count].tolist(), found.logprobs[k, p, 0, :count].tolist()


@dataclass
class _Answering:
    """The answer to one question, as far as it has come."""

    asked: Asked
    whole: Answer
    """What asking the whole question takes at most."""
    most: Answer
    """What this can take at most."""
    longest: int
    """Tokens that a device says at most."""
    tokens: list[int]
    """What has been said, by device and cloud."""
    took: Exchange = field(default_factory=Exchange)
    sent: int = 0
    """Tokens that the cloud read."""
    received: int = 0
    """Tokens that it said."""
    hands_over: bool = True
    """Whether the cloud is to say what comes next."""
    ended: bool = False
    failed: bool = False
    """Whether the cloud did."""
    spent: bool = False
    """Whether one more hand-over does not fit into what was reserved."""
    cached: bool = True
    """Whether all that the cloud has said was there already."""
    retries: int = 0
    """Requests that had failed before it came."""

    @classmethod
    def begun(cls, pair: Pair, mode: Handover, asked: Asked) -> Self:
        """With what the device said before it asked."""
        tokens = pair.base.spell(asked.said)[:-1] if asked.said.strip() else []
        cloud, problem = pair.cloud, asked.problem
        return cls(asked, cloud.quote(problem), mode.quote(cloud, problem), pair.longest, tokens)

    def text(self, base: BaseModel) -> str:
        """What has been said."""
        return base.stops.cut(str(base.tokenizer.decode(self.tokens, skip_special_tokens=True)))

    def may_hand_over(self, tokens: int, base: BaseModel, cloud: Cloud) -> bool:
        """Whether one more hand-over of so many tokens stays within what was reserved; else nobody helps any more."""
        said, most = self.text(base), exchange_of(self.most)
        # the beginning as a question of its own has at least its tokens
        begun = cloud.quote(replace(self.asked.problem, question=said)).prompt_tokens if said else 0
        up, down = len(said.encode()), tokens * (most.down_bytes // self.most.completion_tokens)
        self.spent = (
            self.sent + self.whole.prompt_tokens + begun > self.most.prompt_tokens
            or self.took.up_bytes + bytes_sent(self.asked.problem) + up > most.up_bytes
            or self.took.down_bytes + down > most.down_bytes
        )
        return not self.spent

    def take(self, base: BaseModel, beginning: Beginning, came: Continuation | None) -> None:
        """Enter what the cloud said; the device reads it. Where it failed, the device goes on alone."""
        self.hands_over = False
        up = bytes_sent(beginning.problem) + len(beginning.said.encode())
        if came is None or came.answer.void:
            self.took = self.took.plus(Exchange(trips=1, up_bytes=up))
            self.failed, self.ended = True, not self.received
            return
        own: list[int] = base.tokenizer(came.answer.text, add_special_tokens=False)["input_ids"]
        down = len(came.answer.text.encode())
        self.took = self.took.plus(Exchange(trips=1, up_bytes=up, down_bytes=down, read=len(own)))
        self.sent, self.received = self.sent + came.answer.prompt_tokens, self.received + came.answer.completion_tokens
        self.tokens += own
        self.cached, self.retries = self.cached and came.answer.cached, self.retries + came.answer.retries
        self.ended = came.ended or len(self.tokens) >= self.longest

    def go_on(self, base: BaseModel, said: Sequence[int], chances: Sequence[float], *, below: float) -> None:
        """Enter what the device said: all of it, or what stands before the first token that it is unsure of.

        Args:
            base: its model.
            said: its tokens up to the end, or as many as there was room for.
            chances: their log-probabilities.
            below: the probability below which it is unsure.
        """
        again = below and not (self.failed or self.spent) and self.took.trips < exchange_of(self.most).trips
        least = math.log(below) if again else -math.inf
        kept = next((place for place, chance in enumerate(chances) if chance < least), len(said))
        unsure = kept < len(said)
        self.tokens += [token for token in said[:kept] if token != base.pad_id]
        self.took = self.took.plus(Exchange(drawn=kept + unsure))  # the token that it dropped was drawn, too
        self.hands_over, self.ended = unsure, not unsure

    def answer(self, base: BaseModel) -> Answer | None:
        """What came of it; None where the cloud failed at once, which costs nothing."""
        if (self.failed or self.spent) and not self.received:
            return None
        return Answer(
            self.text(base),
            self.sent,
            self.received,
            cached=self.cached and not self.failed,
            retries=self.retries,
            exchange=self.took,
        )
