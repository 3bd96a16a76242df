"""Drafts that the cloud verifies: the answer is the cloud's own to the last bit, and most of it the device has said.

    client.helping.path=clients.helping.verify:Verify client.helping.k=4

The device drafts k tokens and sends their ids; the cloud reads them in one pass, accepts those that it would have said
as well, and adds one of its own; and so on until its answer ends (speculative decoding over a link, arXiv 2211.17192).
Whether the device gains time by it says `flsim.collaboration.worth`; it saves tokens that the cloud says one by one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import ClassVar, cast

import torch

from clients.helping.drafts import Answering
from clients.helping.helping import Caller, Helping, Pair
from flsim.cloud.exchange import Exchange, work_of
from flsim.cloud.more_help import Draft, TriesOut, Verifies, verifying
from flsim.cloud.protocol import MONEY, Answer, Cloud, bytes_sent
from flsim.cloud.teacher import LOGITS, TOP_LOGPROBS
from flsim.collaboration.accept import POINT, REJECTION, RULES, SHARED
from flsim.collaboration.lengths import BANDIT, CONFIDENT, CONSTANT, LENGTHS, SURE, Bandit, until_unsure
from flsim.collaboration.worth import CHANCE_BYTES, DOWN_BYTES, ID_BYTES, Turn, billed, fewest_accepted
from flsim.config.model import ModelConfig
from flsim.config.ranges import ConfigError
from flsim.models.base import BaseModel
from flsim.models.decoding import prompts_of, read
from flsim.models.drafting import Drafted, SharedWords, draft
from flsim.models.folder import tokenizer_of
from flsim.problems.problem import Problem

EQUAL, INTERSECTION = VOCABULARIES = ("equal", "shared")

_LENGTHS = 32  # of a draft that a bandit may have to try


@dataclass(frozen=True)
class Verify(Helping):
    """How much is drafted, and how it is verified."""

    k: int = 4
    """Most tokens of a draft; 0 drafts nothing, so that the cloud says one token a trip."""
    rule: str = SHARED
    """Of acceptance: `shared`, `rejection` or `point` (`flsim/collaboration/accept.py`); all one at temperature 0."""
    temperature: float = 0.0
    """Of the cloud; 0 gives the answer that asking would give."""
    length: str = CONSTANT
    """Of a draft: `constant`; `confident`, up to the first token that the device gives less than `least`; or `bandit`,
    which every device learns from the seconds that its answers take."""
    least: float = SURE
    """Confidence below which a device stops drafting, where length is `confident`."""
    stateless: bool = False
    """Whether the cloud forgets between requests, so that each sends, and bills, prompt and answer so far again."""
    vocabulary: str = EQUAL
    """`equal` refuses two tokenizers that differ; `shared` drafts the tokens that both have."""

    needs: ClassVar[str] = TOP_LOGPROBS
    takes_part: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        if self.k < 0:
            raise ValueError(f"k={self.k} must be at least 0: it is a number of tokens")
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature={self.temperature} must be at least 0 and finite; 0 is greedy")
        if not 0 <= self.least <= 1:
            raise ValueError(f"least={self.least} must be in [0, 1]: it is a probability")
        for name, allowed in (("rule", RULES), ("length", LENGTHS), ("vocabulary", VOCABULARIES)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r} must be one of: {', '.join(allowed)}")
        if self.length == BANDIT and not 1 <= self.k <= _LENGTHS:
            raise ValueError(
                f"length='bandit' tries each length from 1 to k tokens, and k={self.k} is not from 1 to {_LENGTHS}; "
                f"set k=8"
            )

    def check(self, cloud: Cloud, allowed: str | None) -> None:
        """It takes a cloud that verifies tokens, and of a sampled answer the cloud's whole distribution."""
        if not isinstance(cloud, Verifies):
            raise ConfigError(
                f"client.helping=Verify needs a cloud that verifies drafts (`verify`), and {type(cloud).__name__} does "
                f"not; take Builtin, Checkpoint or a server of vLLM, or client.helping.path=clients.helping.helping:Ask"
            )
        super().check(cloud, allowed)
        if cloud.costs == MONEY and not self.stateless:
            raise ConfigError(
                f"{type(cloud).__name__} bills what stands before a draft with every verification, and "
                f"client.helping.stateless=false reserves it once; set client.helping.stateless=true"
            )
        if self.temperature > 0:
            self.refuse_less(cloud, allowed, LOGITS, f"client.helping.temperature={self.temperature:g}")

    def try_out(self, cloud: Cloud) -> None:
        """A server might tell nothing of given tokens."""
        if isinstance(cloud, TriesOut):
            cloud.try_out(verifies=True)

    def check_model(self, cloud: Cloud, model: ModelConfig) -> None:
        """It takes two models that write in the same tokens, or `vocabulary: shared`."""
        own, theirs = tokenizer_of(model.path).get_vocab(), verifying(cloud).vocabulary
        common = [piece for piece in own if piece in theirs]
        if self.vocabulary == EQUAL and dict(own) != dict(theirs):
            differing = next(piece for piece in [*theirs, *own] if own.get(piece) != theirs.get(piece))
            raise ConfigError(
                f"the cloud's tokenizer ({len(theirs)} tokens) is not the devices' ({len(own)} tokens): they differ in "
                f"{differing!r}, and verifying takes ids of one vocabulary; set client.helping.vocabulary=shared, "
                f"which drafts the {len(common)} tokens that both have, or take two models of one family"
            )
        if not common:
            raise ConfigError(
                f"client.helping.vocabulary=shared drafts tokens that both models have, and {model.path!r} and the "
                f"cloud have none in common; take two models of one family"
            )

    @property
    def chosen_by_time(self) -> str | None:
        """The length of a draft, by a bandit."""
        return f"client.helping.length={CONSTANT}" if self.length == BANDIT else None

    @property
    def first_knob(self) -> tuple[float, ...]:
        """Of a bandit that knows nothing."""
        return Bandit.new(self.k).numbers if self.length == BANDIT else ()

    def _most(self, knob: tuple[float, ...]) -> int:
        """Most tokens of a draft now."""
        return Bandit.of(knob).choose() if self.length == BANDIT else self.k

    @property
    def sends_chances(self) -> bool:
        """Whether what tokens were drawn from travels with them."""
        return self.rule == REJECTION and self.temperature > 0

    def quote(self, cloud: Cloud, problem: Problem) -> Answer:
        """An answer of the cloud's longest, of which no drafted token is accepted."""
        whole = cloud.quote(problem)
        return self._charged(cloud, problem, whole, fewest_accepted(whole.completion_tokens, self.k))

    def _charged(self, cloud: Cloud, problem: Problem, whole: Answer, turns: Sequence[Turn]) -> Answer:
        """What turns take, without the text; `whole` is what asking takes at most."""
        read_, said = billed(whole.prompt_tokens, turns, stateless=self.stateless)
        drafted = sum(turn.drafted for turn in turns)
        each = ID_BYTES + (CHANCE_BYTES * len(verifying(cloud).vocabulary) if self.sends_chances else 0)
        settled = list(accumulate(turn.gained for turn in turns))[:-1]  # before each but the first
        again = sum(bytes_sent(problem) + ID_BYTES * tokens for tokens in settled) if self.stateless else 0
        took = Exchange(
            trips=len(turns),
            up_bytes=bytes_sent(problem) + each * drafted + again,
            down_bytes=DOWN_BYTES * len(turns),
            # what the cloud said itself is read before the next draft, if there is one
            read=sum(turn.own for turn, later in pairwise(turns) if later.drafted),
            drawn=drafted,
            drafted=drafted,
            accepted=sum(turn.accepted for turn in turns),
            in_session=0 if self.stateless else max(0, len(turns) - 1),
        )
        return Answer("", read_, said, exchange=took)

    def help(self, pair: Pair, callers: Sequence[Caller]) -> list[list[Answer | None]]:
        """Draft and verify in turn; all questions go on together."""
        cloud = verifying(pair.cloud)
        words = SharedWords.of(pair.base, cloud.vocabulary)
        rows = [
            [Answering.begun(pair.cloud, one, self._most(caller.knob)) for one in caller.asked] for caller in callers
        ]
        while any(not one.over for row in rows for one in row):
            going = [[one for one in row if not one.over] for row in rows]
            drafts = self._drafts(pair, words, going)
            verified = cloud.verify(drafts, self.rule, self.temperature)
            for one, sent, came in zip((one for row in going for one in row), drafts, verified, strict=True):
                one.take(sent, came)
        return [[self._answer(pair, one) for one in row] for row in rows]

    def _drafts(self, pair: Pair, words: SharedWords, going: Sequence[Sequence[Answering]]) -> list[Draft]:
        """What devices send of the answers that go on, device by device."""
        most = max(one.room for row in going for one in row)
        found = self._drafted(pair, words, going, most) if most else None
        drafts = []
        for k, row in enumerate(going):
            for p, one in enumerate(row):
                count = 0 if found is None else self._sent(pair.base, found, k, p, one.room)
                tokens = [] if found is None else words.to_cloud(found.tokens[k, p, :count].tolist())
                chances = None
                if self.sends_chances:
                    drawn = None if found is None else found.chances
                    chances = words.chances(torch.zeros(0, len(words.there)) if drawn is None else drawn[k, p, :count])
                numbers = one.numbers(self.temperature, count + 1)
                drafts.append(Draft(one.asked.problem, tuple(one.said), tuple(tokens), numbers, chances))
        return drafts

    def _drafted(self, pair: Pair, words: SharedWords, going: Sequence[Sequence[Answering]], most: int) -> Drafted:
        """The next tokens of all answers, by the devices' own models."""
        base = pair.base
        prompts = base.prompts([[one.asked.problem for one in row] for row in going])
        asked = iter(base.tokenizer([text for row in prompts for text in row])["input_ids"])
        settled = [[[*next(asked), *one.here(base, verifying(pair.cloud), words)] for one in row] for row in going]
        reading = read(base, prompts_of(base, settled))
        heat = 0.0 if self.rule == POINT else self.temperature  # a draft that is taken as certain is the likeliest
        uniforms = torch.ones(*reading.prompts.ids.shape[:2], most, dtype=torch.float64)  # (K, P, k)
        for k, row in enumerate(going):
            for p, one in enumerate(row):
                uniforms[k, p, :] = torch.from_numpy(one.drawn_by(self.rule, most))
        return draft(
            base,
            reading,
            most,
            words.allowed.to(reading.logits.device),
            temperature=heat,
            uniforms=uniforms,
            whole=self.sends_chances,
        )

    def _sent(self, base: BaseModel, found: Drafted, k: int, p: int, room: int) -> int:
        """How many of the drafted tokens are sent: no more than there is room for, none after an end."""
        ends = base.ends(found.tokens[k, p, :room]).tolist()  # (room,)
        count = ends.index(True) + 1 if True in ends else len(ends)
        if self.length == CONFIDENT:
            count = until_unsure(found.confidences[k, p, :count].tolist(), self.least)
        return count

    def _answer(self, pair: Pair, one: Answering) -> Answer | None:
        """What came of a question; None where the cloud failed at once, which costs nothing."""
        lost = [] if one.lost is None else [one.lost]
        if lost and not one.turns:
            return None
        charged = self._charged(pair.cloud, one.asked.problem, one.whole, one.turns)
        sent, received = one.billed or (charged.prompt_tokens, charged.completion_tokens)
        took = self._charged(pair.cloud, one.asked.problem, one.whole, [*one.turns, *lost]).exchange
        return Answer(
            "" if lost else verifying(pair.cloud).said(one.said),
            sent,
            received,
            cached=all(came.cached for came in one.came),
            retries=sum(came.retries for came in one.came),
            void=f"the cloud failed after {len(one.turns)} of its verifications" if lost else "",
            exchange=cast(Exchange, took).plus(Exchange(again=sum(came.again for came in one.came))),
        )

    def learned(self, pair: Pair, caller: Caller, answers: Sequence[Answer | None]) -> tuple[float, ...]:
        """A bandit has seen how long each answer took, in virtual time."""
        if self.length != BANDIT or pair.system is None:
            return caller.knob
        known, length = Bandit.of(caller.knob), self._most(caller.knob)
        for answer in answers:
            if answer is None or answer.exchange is None or answer.void:
                continue
            work = work_of(answer.exchange, answer.prompt_tokens, answer.completion_tokens)
            tokens = answer.exchange.accepted + answer.completion_tokens
            known = known.seen(length, tokens, pair.system.question(caller.index, work)[0])
        return known.numbers
