"""Verifying drafts by a model on this machine: all of a call in one forward pass, with the bits of one at a time.

Prompts are read once and kept from call to call; what of an answer is settled is read again with the draft. A batch's
logits differ from those of a question alone by rounding, so a place whose decision rounding might have turned is
computed again in the way in which the cloud answers alone, prompt and tokens one by one. So the text is the cloud's own
to the last bit, whoever else is in the call, and such places are counted.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flsim.cloud.more_help import Draft, Verified
from flsim.collaboration.accept import NONE, REJECTION, Decided, decide
from flsim.models.base import BaseModel, one_thread
from flsim.models.decoding import Reading, encode, given, read
from flsim.models.memory import LOGITS
from flsim.models.sampling import cooled
from flsim.models.scoring import per_token

_KEPT = 2**30  # bytes of keys and values that are kept from call to call, beside those of the newest prompts


def rounding_of(sure: float) -> float:
    """By how much a logit may be off, where no rounding of a batch can give a probability of `sure` by mistake.

    Of two tokens, the one with that probability lies log(sure / (1 - sure)) above the other, and both may be off. By
    hand: 0.51 is 0.02.
    """
    return math.log(sure / (1 - sure)) / 2


@dataclass(frozen=True)
class _Batch:
    """Prompts that were read together."""

    rows: Mapping[str, int]
    """The place of each."""
    reading: Reading

    @property
    def bytes(self) -> int:
        """Of keys and values."""
        return sum(tensor.nbytes for tensor in self.reading.past.tensors)


@dataclass(frozen=True)
class _Row:
    """What the batch says at the places of one draft, as far as they reach: see `Decided`."""

    tokens: list[int]
    accepted: list[int]
    close: list[int]


@dataclass(frozen=True)
class _Offered:
    """What devices offer at the places of n answers, T of each."""

    open: Tensor
    """True at places that are to be decided, `(n T,)`."""
    drafted: Tensor
    """`(n T,)`."""
    uniforms: Tensor
    """0 where there are none, `(n T,)`."""
    rows: Tensor
    """Where in `chances` those of a place stand, -1 where nothing was drafted, `(n T,)`."""
    chances: Sequence[NDArray[np.float32]]
    """Of all drafted tokens `(V,)` each; empty where none were sent."""

    @classmethod
    def of(cls, drafts: Sequence[Draft], longest: int, begin: int | None = None) -> Self:
        """Of these drafts.

        Args:
            drafts: n of them.
            longest: T.
            begin: the place of the first drafted token; None: after what is settled.
        """
        shape = len(drafts), longest
        open_, drafted = torch.zeros(shape, dtype=torch.bool), torch.full(shape, NONE)  # (n, T) each
        uniforms, rows = torch.zeros(shape, dtype=torch.float64), torch.full(shape, -1)  # (n, T) each
        chances: list[NDArray[np.float32]] = []
        for number, draft in enumerate(drafts):
            first, count = len(draft.said) if begin is None else begin, len(draft.drafted)
            open_[number, first : first + count + 1] = True
            drafted[number, first : first + count] = torch.tensor(draft.drafted, dtype=torch.long)
            if draft.uniforms:
                uniforms[number, first : first + count + 1] = torch.tensor(draft.uniforms, dtype=torch.float64)
            if draft.chances is not None:
                rows[number, first : first + count] = torch.arange(len(chances), len(chances) + count)
                chances += list(draft.chances)
        return cls(open_.flatten(), drafted.flatten(), uniforms.flatten(), rows.flatten(), chances)

    def chances_at(self, places: Tensor, width: int) -> Tensor:
        """What the tokens at some places `(m,)` were drawn from, zero where nothing was drafted, `(m, V)`.

        Tokens beyond the V that the cloud has are left out, and those that only the cloud has get nothing.
        """
        found = torch.zeros(len(places), width)  # (m, V)
        for number, row in enumerate(self.rows[places].tolist()):
            if row >= 0:
                own = torch.from_numpy(self.chances[row][:width])  # (v,)
                found[number, : len(own)] = own
        return found


class Verifier:
    """A model with the prompts that it has read."""

    def __init__(self, base: BaseModel, longest: int, batch_size: int, rounding: float) -> None:
        """Take the model.

        Args:
            base: the model; it may not ask for help.
            longest: tokens of its longest answer.
            batch_size: prompts that it reads at once.
            rounding: by how much a logit of a batch may differ from that of a question alone.
        """
        self._base, self._longest, self._batch_size, self._rounding = base, longest, batch_size, rounding
        self._kept: list[_Batch] = []

    @torch.no_grad()
    def verify(self, prompts: Sequence[str], drafts: Sequence[Draft], rule: str, temperature: float) -> list[Verified]:
        """See `flsim.cloud.more_help.Verifies`.

        Args:
            prompts: of the drafts' questions, as the model reads them.
            drafts: in order.
            rule: of `flsim.collaboration.accept`.
            temperature: 0 is greedy.

        Raises:
            ValueError: for a rule that there is not, or a draft that lacks what the rule looks at.
        """
        for draft in drafts:
            _refuse_lacking(draft, rule, temperature)
        found: dict[int, Verified] = {}
        for batch, places in self._batches(prompts):
            for part in self._parts(places, drafts):
                some = [drafts[place] for place in part]
                reading = batch.reading.of([[batch.rows[prompts[place]] for place in part]])
                decided = self._decided(reading, some, rule, temperature)
                for place, draft, row in zip(part, some, decided, strict=True):
                    found[place] = self._settled(prompts[place], draft, row, rule, temperature)
        return [found[place] for place in range(len(drafts))]

    def _batches(self, prompts: Sequence[str]) -> list[tuple[_Batch, list[int]]]:
        """The prompts' places, by the batch in which each was read; those are read now that were not."""
        known = {prompt for batch in self._kept for prompt in batch.rows}
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in known]
        for start in range(0, len(new), self._batch_size):
            some = new[start : start + self._batch_size]
            rows = {prompt: row for row, prompt in enumerate(some)}
            self._kept.append(_Batch(rows, read(self._base, encode(self._base, [some]))))
        found = [
            (batch, [place for place, prompt in enumerate(prompts) if prompt in batch.rows]) for batch in self._kept
        ]
        while len(self._kept) > 1 and sum(batch.bytes for batch in self._kept) > _KEPT:
            del self._kept[0]
        return [(batch, places) for batch, places in found if places]

    def _parts(self, places: Sequence[int], drafts: Sequence[Draft]) -> Iterator[Sequence[int]]:
        """All at once, or as many as the logits leave room for."""
        longest = max(len(drafts[place].said) + len(drafts[place].drafted) for place in places)
        vocabulary: int = self._base.model.config.get_text_config().vocab_size
        most = max(1, LOGITS // (vocabulary * (longest + 1)))
        return (places[start : start + most] for start in range(0, len(places), most))

    def _decided(self, reading: Reading, drafts: Sequence[Draft], rule: str, temperature: float) -> list[_Row]:
        """What the batch says at the k + 1 places of each draft."""
        # one more token after the drafted ones, which is never read, so that its place is looked at
        spelt = [[*draft.said, *draft.drafted, self._base.pad_id] for draft in drafts]
        completions = given(self._base, [spelt])
        longest = completions.tokens.shape[-1]
        offered = _Offered.of(drafts, longest)
        tokens, accepted, close = torch.zeros(3, len(drafts) * longest, dtype=torch.long)  # (n T,) each

        def readout(logits: Tensor, places: Tensor) -> Tensor:
            mine = offered.open[places]  # (m,)
            at = places[mine]  # (m',)
            found = self._decide(logits[mine], offered, at, rule, temperature)
            tokens[at], accepted[at], close[at] = found.tokens, found.accepted.long(), found.close.long()
            return torch.zeros(len(places))  # (m,)

        per_token(self._base, reading, completions, readout)
        return [
            _Row(*(of.view(-1, longest)[number, len(draft.said) :].tolist() for of in (tokens, accepted, close)))
            for number, draft in enumerate(drafts)
        ]

    def _decide(self, logits: Tensor, offered: _Offered, places: Tensor, rule: str, temperature: float) -> Decided:
        """What logits `(m, V)` come to at these places; the help request is ruled out, as where the cloud answers."""
        everywhere = torch.ones(len(logits), dtype=torch.bool)  # (m,)
        allowed = self._base.help.ruled_out(logits.float(), everywhere)  # (m, V)
        scores = torch.log_softmax(cooled(allowed, temperature), -1)  # (m, V)
        drafted = offered.drafted[places]  # (m,)
        if temperature <= 0:
            return decide(rule, scores, drafted, None, rounding=self._rounding)
        chances = offered.chances_at(places, scores.shape[-1]) if rule == REJECTION else None  # (m, V)
        uniforms = offered.uniforms[places]  # (m,)
        return decide(rule, scores, drafted, uniforms, chances, rounding=self._rounding / temperature)

    def _settled(self, prompt: str, draft: Draft, row: _Row, rule: str, temperature: float) -> Verified:
        """The tokens up to the first that was not accepted, or that ends the answer."""
        alone = _Alone(self._base, prompt, max(self._longest, len(draft.said) + len(draft.drafted)))
        offered = _Offered.of([draft], len(draft.drafted) + 1, 0)
        said: list[int] = []
        accepted = again = 0
        for place in range(len(draft.drafted) + 1):
            token, agrees = row.tokens[place], bool(row.accepted[place])
            if row.close[place]:
                with one_thread():  # whose sums are the same everywhere
                    logits = alone.after([*draft.said, *draft.drafted[:place]])  # (1, V)
                    own = self._decide(logits, offered, torch.tensor([place]), rule, temperature)
                token, agrees, again = int(own.tokens), bool(own.accepted), again + 1
            said.append(token)
            accepted += agrees
            ended = bool(self._base.ends(torch.tensor(token)))
            if ended or not agrees:
                break
        return Verified(tuple(said), accepted, ended, again)


class _Alone:
    """One question, read alone and decoded token by token, as where the cloud answers it alone."""

    def __init__(self, base: BaseModel, prompt: str, longest: int) -> None:
        self._base, self._prompt, self._longest = base, prompt, longest
        self._tokens: list[int] = []  # that have been read
        self._logits: Tensor | None = None  # after these

    def after(self, tokens: Sequence[int]) -> Tensor:
        """The logits after the prompt and these tokens, `(1, V)`; a later call has more tokens."""
        if self._logits is None:
            reading = read(self._base, encode(self._base, [[self._prompt]]))
            self._decoder = self._base.forward.decoder(reading.prompts.seen, reading.past, 1, self._longest)
            self._logits = reading.logits
        for token in tokens[len(self._tokens) :]:
            self._logits = self._decoder.step(torch.tensor([token])).logits  # (1, V)
            self._tokens.append(token)
        return self._logits


def _refuse_lacking(draft: Draft, rule: str, temperature: float) -> None:
    """Refuse a draft without numbers or chances where they are looked at."""
    places = len(draft.drafted) + 1
    if temperature > 0 and len(draft.uniforms) != places:
        raise ValueError(
            f"a draft of {places - 1} tokens that is verified at temperature {temperature:g} needs {places} uniforms, "
            f"one more than tokens, and has {len(draft.uniforms)}; give them, or set temperature=0"
        )
    if temperature > 0 and rule == REJECTION and draft.chances is None:
        raise ValueError(f"rule={rule!r} needs what the drafted tokens were drawn from (Draft.chances)")
