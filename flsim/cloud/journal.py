"""What a buyer asked of the cloud in a round, written down before a question is sent and as soon as it is answered.

One file of lines for each buyer and round, under `purchases/` in the run's folder. A round may be begun more than once:
a pack that failed is tried device by device, a worker that died is sent its pack again, a run that was killed is
resumed. Whatever ended an attempt, the file says what it spent, and the next attempt takes the answers that are paid
from it and asks for the others only. What was sent and never answered counts as spent: whoever is paid for answers may
have given one. So the calls in the books are those that went out, and caps hold over all attempts together.

Where the run lies in an object store, the file is put there with each line, and got from there by whichever node begins
the next attempt.
"""

import hashlib
import json
import os
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from flsim.budget.ledger import NO_TRIP, Account, Trip
from flsim.cloud.exchange import Exchange
from flsim.cloud.protocol import MONEY, NOTHING, Answer, Basket
from flsim.cloud.tariff import Tariff, most_down
from flsim.config.schema import CloudConfig
from flsim.files import writing
from flsim.problems.problem import Problem
from flsim.storage.behind import bring, drop, names_in, put

PURCHASES = "purchases"
"""The folder of all journals, in the run's."""
TRAINING, TESTS = "train", "test"
"""What a buyer keeps a journal of: what its ledger pays, and what is measured, which no ledger pays."""

_Key = tuple[str, str]  # the model that is measured, or TRAINING, and the question
_NO_SIZES: Mapping[str, int] = MappingProxyType({})


@lru_cache(maxsize=4096)  # each is named several times over, and tests are the same ones again
def digest_of(problem: Problem) -> str:
    """The name of a question in a journal; a run asks one cloud, so that the question is enough."""
    return hashlib.sha256(json.dumps([problem.prompt, problem.question]).encode()).hexdigest()


@dataclass(frozen=True)
class _Entry:
    """A question that was answered, or, of one that is open, its quote."""

    answer: Answer
    sent: int
    """Bytes of the question; 0 in journals of earlier releases, under which no cap asked for them."""
    answered: bool = True


@dataclass(frozen=True)
class Spent:
    """What a journal says of its round."""

    basket: Basket
    """Of one model, or of training: what was answered."""
    lost: Account
    """What was sent and never answered, at the most that it can have come to."""
    costs: str
    """Of the cloud, one of those in `flsim.cloud.protocol`."""


class Journal:
    """The journal of one buyer in one round; without a path it keeps nothing, and every attempt is the first."""

    def __init__(self, path: Path | None, prices: CloudConfig, tariff: Tariff | None = None) -> None:
        """Open it, with what earlier attempts at the round have written.

        Args:
            path: of the file, which is made with the first line; None for a buyer outside of a run.
            prices: the section of the config that has them.
            tariff: what trips take of the buyer; None follows none.
        """
        self.path, self.prices = path, prices
        self._tariff = Tariff(prices) if tariff is None else tariff
        self.costs = NOTHING
        """Of the cloud; of one that costs money every question is written down before it is sent."""
        self.before = Account()
        """What the buyer's ledger had spent before the round."""
        self.held = Account()
        """What earlier attempts spent and this one has not met so far; caps count it as spent."""
        self._answered: defaultdict[_Key, deque[_Entry]] = defaultdict(deque)
        self._open: defaultdict[_Key, list[_Entry]] = defaultdict(list)
        self._begun = self._knows_before = False
        if path is not None:
            bring(path)
            self._read(path)

    def begin(self, before: Account, costs: str) -> None:
        """Say what the buyer's ledger had spent before the round, unless an earlier attempt has, and of which cloud."""
        self.costs = costs
        if not self._knows_before:
            self.before = before

    def recall(self, purpose: str, name: str) -> Answer | None:
        """The next answer that an earlier attempt was given to this question; `met` takes it out."""
        answered = self._answered.get((purpose, name))
        return answered[0].answer if answered else None

    def met(self, purpose: str, name: str) -> None:
        """The question was asked again, and what was paid for it is in this attempt's books."""
        self._release(self._answered[purpose, name].popleft())

    def left(self, purpose: str) -> Account:
        """The part of `held` that belongs to a purpose; at the end of a round nobody has a use for it any more."""
        left = Account()
        for of in (self._answered, self._open):
            for (own, _), entries in of.items():
                for entry in entries if own == purpose else ():
                    self._book(left, entry)
        return left

    def found(self, purpose: str, name: str) -> bool:
        """Whether an answer that turned up in a cache was bought here: sent by an attempt that ended before it said so.

        It is then no longer held as lost.
        """
        waiting = self._open.get((purpose, name))
        if not waiting:
            return False
        self._release(waiting.pop())
        return True

    def send(self, purpose: str, quotes: Sequence[tuple[str, Answer]], sizes: Mapping[str, int] = _NO_SIZES) -> None:
        """Write down what is about to be sent, with the most that it can come to; `sizes` are bytes of the questions.

        Raises:
            UnwritableError: if that cannot be written; nothing may be sent then.
        """
        if self.path is not None and self.costs == MONEY and quotes:
            self._write(
                {
                    "sent": name,
                    "for": purpose,
                    "sizes": _sizes(quote),
                    "bytes": [sizes.get(name, 0), most_down(quote)],
                    **_took(quote),
                }
                for name, quote in quotes
            )

    def close(
        self, purpose: str, answers: Sequence[tuple[str, Answer | None]], sizes: Mapping[str, int] = _NO_SIZES
    ) -> None:
        """Write down what came; None is a failure, which costs nothing; `sizes` as of `send`.

        Raises:
            UnwritableError: if that cannot be written; the questions then stay as sent.
        """
        if self.path is not None and answers:
            self._write(_line(purpose, name, answer, sizes.get(name, 0)) for name, answer in answers)

    def spent(self, purpose: str) -> Spent:
        """What all attempts together have spent so far, as read when the journal was opened."""
        basket, lost = Basket(), Account()
        for (own, _), answered in self._answered.items():
            for entry in answered if own == purpose else ():
                basket.add(entry.answer, self.prices)
        for (own, _), waiting in self._open.items():
            for entry in waiting if own == purpose else ():
                self._book(lost, entry)
        return Spent(basket, lost, self.costs)

    @property
    def purposes(self) -> list[str]:
        """What it was asked for, by name."""
        return sorted({purpose for purpose, _ in (*self._answered, *self._open)})

    def _read(self, path: Path) -> None:
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        except FileNotFoundError:
            return
        self._begun = True
        for line in lines:
            try:
                self._enter(json.loads(line))
            except (ValueError, KeyError, TypeError):
                continue  # the part of a line that a kill left: what it was to say had not happened yet
        for entries in (*self._answered.values(), *self._open.values()):
            for entry in entries:
                self._book(self.held, entry)

    def _enter(self, line: dict[str, Any]) -> None:
        if "before" in line:
            calls, tokens, money, refused = line["before"]
            self.before, self.costs = Account(calls, tokens, money, refused), line["costs"]
            self._knows_before = True
            return
        name = next(line[word] for word in ("sent", "came", "failed") if word in line)
        key = (line["for"], name)
        if "sent" in line:
            (sent, received), (up, down) = line["sizes"], line.get("bytes", (0, 0))
            quote = Answer("", sent, received, most_bytes=down, exchange=_exchange(line))
            self._open[key].append(_Entry(quote, up, answered=False))
            return
        if self._open[key]:
            self._open[key].pop()
        if "came" in line:
            sent, received = line["sizes"]
            more = {name: line[name] for name in ("cached", "retries", "void")}
            answer = Answer(line["text"], sent, received, exchange=_exchange(line), **more)
            self._answered[key].append(_Entry(answer, line.get("bytes", 0)))

    def _write(self, lines: Iterable[dict[str, Any]]) -> None:
        assert self.path is not None
        text = "".join(f"\n{json.dumps(line)}" for line in lines)  # a line end first, as a kill may have left a part
        if not self._begun:
            before = self.before
            first = {"before": [before.calls, before.tokens, before.money, before.refused], "costs": self.costs}
            text = json.dumps(first) + text
        with writing("what is asked of the cloud", self.path, len(text.encode())):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                if self.costs == MONEY:
                    os.fsync(file.fileno())
        put(self.path)
        self._begun = True

    def _book(self, account: Account, entry: _Entry) -> None:
        account.book(entry.answer.tokens, entry.answer.money(self.prices), self._trip(entry))

    def _trip(self, entry: _Entry) -> Trip:
        return (self._tariff.came if entry.answered else self._tariff.most)(entry.answer, entry.sent)

    def _release(self, entry: _Entry) -> None:
        """Of what is held; nothing at all, not what rounding left of sums, once nothing is."""
        answer, trip = entry.answer, self._trip(entry)
        self.held.calls -= 1
        self.held.add(-answer.tokens, -answer.money(self.prices), NO_TRIP.beyond(trip))
        self.held.money = self.held.money if self.held.calls else 0.0


def journal_of(
    folder: str | Path | None,
    round_: int,
    kind: str,
    prices: CloudConfig,
    costs: str = NOTHING,
    *,
    total: Account,
    tariff: Tariff | None = None,
) -> Journal:
    """The journal of a buyer's round, and in `before` what its ledger has spent until then.

    A round that was lost with its device is in no state of the device, but in its journal: of both, the one that has
    more calls is the later. Journals of rounds that nobody can run again are removed.

    Args:
        folder: the buyer's, or None for a buyer outside of a run.
        round_: the round that begins.
        kind: `TRAINING` or `TESTS`.
        prices: the section of the config that has them.
        costs: of the cloud.
        total: what the buyer remembers of the rounds before.
        tariff: what trips take of the buyer; None follows none.
    """
    if folder is None:
        journal = Journal(None, prices, tariff)
        journal.begin(total, costs)
        return journal
    path = path_of(folder, round_, kind)
    earlier = sorted(name for name in names_in(Path(folder)) if name.endswith(f".{kind}") and name < path.name)
    if earlier and kind == TRAINING:
        last = Journal(Path(folder) / earlier[-1], prices)
        lost = last.before.plus(last.held)
        total = lost if lost.calls > total.calls else total
    recent = path_of(folder, round_ - 1, kind).name  # a run that lost its newest checkpoint begins there
    for name in [name for name in earlier if name < recent][: -1 if kind == TRAINING else None]:
        drop(Path(folder) / name)
    journal = Journal(path, prices, tariff)
    journal.begin(total, costs)
    return journal


def lost_facts(lost: Account) -> dict[str, float]:
    """What was paid, or may have been, for answers that nobody has, by the names that rows have for it; often nothing.

    A process that was ended lost them, or another course of the round had no use for them.
    """
    if not lost.calls:
        return {}
    return {"lost_calls": lost.calls, "lost_tokens": lost.tokens, "lost_money": lost.money}


def path_of(folder: str | Path, round_: int, kind: str) -> Path:
    """Of the journal of a round, in the buyer's folder."""
    return Path(folder) / f"round-{round_:05d}.{kind}"


def _sizes(answer: Answer) -> list[int]:
    return [answer.prompt_tokens, answer.completion_tokens]


def _line(purpose: str, name: str, answer: Answer | None, size: int) -> dict[str, Any]:
    if answer is None:
        return {"failed": name, "for": purpose}
    more = {"text": answer.text, "cached": answer.cached, "retries": answer.retries, "void": answer.void}
    return {"came": name, "for": purpose, "sizes": _sizes(answer), "bytes": size, **_took(answer), **more}


def _took(answer: Answer) -> dict[str, Any]:
    return {} if answer.exchange is None else {"exchange": asdict(answer.exchange)}


def _exchange(line: Mapping[str, Any]) -> Exchange | None:
    return Exchange(**line["exchange"]) if "exchange" in line else None
