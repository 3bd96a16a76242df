"""What a question takes at a test: what its device reads and draws, and of the cloud where the question was granted."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from clients.asking.alone import drawn_alone
from clients.asking.rule import Choice, Examined, Flags, Scores
from clients.device.counts import Drawn
from clients.orders import Order
from flsim.cloud.exchange import Exchange
from flsim.cloud.protocol import Basket
from flsim.system.system import System
from flsim.system.work import Work


def drawn_by(pack: Examined, choices: Sequence[Choice]) -> list[Drawn]:
    """What each device read and drew until its rule had decided."""
    silent_rules = any(choice.drawn is None for choice in choices)
    alone = drawn_alone(pack) if silent_rules else [Drawn.none(0) for _ in choices]
    return [own if choice.drawn is None else choice.drawn for choice, own in zip(choices, alone, strict=True)]


@dataclass(frozen=True)
class Taken:
    """What the N questions of a device took.

    A device answers with asking disabled, or drafts until it asks; where a request is granted it goes on after a hint,
    if it is given one, and where none is granted it answers by itself, if it has not yet. What it says to set a
    threshold is no part of a question.
    """

    order: Order
    """What it asked of the cloud."""
    granted: Flags
    """What its budget granted, `(N,)`."""
    helped: Flags
    """Where an answer came of it, `(N,)`."""
    drawn: Drawn
    """What it read and drew in all."""

    @classmethod
    def of(cls, order: Order, granted: Flags, drawn: Drawn, again: Drawn | None, *, spared: bool) -> Self:
        """What came of an order.

        Args:
            order: what was asked.
            granted: what a budget granted, `(N,)`.
            drawn: what the device read and drew until its rule had decided.
            again: and besides, where nothing came of its request; None for nothing.
            spared: whether it need not say anything to what it sends, as its rule looks at the question alone.
        """
        came = np.zeros(len(granted), dtype=bool)  # (N,)
        came[list(order.answers)] = True
        helped = granted & came  # (N,)
        own = drawn.where(~helped) if spared else drawn
        own = replace(own, read=drawn.read) if order.world.helping.takes_part else own
        own = own if again is None else own.plus(again.where(~helped))
        own = own if order.after is None else own.plus(order.after.where(helped))
        own = own.plus(_read_and_drawn(order, helped))
        return cls(order, granted, helped, own)

    def counts(self) -> dict[str, Scores]:
        """By the names of rows, `(N,)` each."""
        cloud, trips, sent = np.zeros((3, len(self.granted)))  # (N,) each
        for place in np.flatnonzero(self.granted).tolist():
            work = self._work(place)
            cloud[place] = work.cloud_prompt_tokens + work.cloud_completion_tokens
            trips[place], sent[place] = work.cloud_trips, work.cloud_up_bytes + work.cloud_down_bytes
        own = {"read_tokens": self.drawn.read, "sampled_tokens": self.drawn.tokens, "cut_responses": self.drawn.cut}
        return {name: each.astype(np.float64) for name, each in own.items()} | {
            "cloud_test_tokens": cloud,
            "cloud_test_trips": trips,
            "cloud_test_bytes": sent,
            **self._drafts(),
        }

    def _drafts(self) -> dict[str, Scores]:
        """What a mode of help drafted, and what of it was accepted, `(N,)` each; nothing where it drafts nothing."""
        took = _exchanges(self.order, self.helped)
        if not any(one.drafted for one in took.values()):
            return {}
        found = np.zeros((3, len(self.granted)))  # (3, N)
        for place, one in took.items():
            found[:, place] = one.drafted, one.accepted, one.again
        return dict(zip(("drafted_tokens", "accepted_tokens", "computed_again"), found, strict=True))

    def costs(self, system: System, device: int, right: Scores) -> dict[str, Scores]:
        """Seconds and joules of the device, and which questions were answered within deadlines, by the names of rows.

        Args:
            system: of the run.
            device: its index.
            right: 1 where the final answer is right, `(N,)`.
        """
        works = [self._work(place) for place in range(len(self.granted))]
        each = {work: system.question(device, work) for work in dict.fromkeys(works)}  # many are alike
        seconds, joules = np.array([each[work] for work in works], dtype=np.float64).reshape(-1, 2).T  # (N,) each
        found = {"question_seconds": seconds, "question_joules": joules}
        for deadline in system.config.deadlines_s:
            within = (seconds <= deadline).astype(np.float64)  # (N,)
            found |= {f"within_{deadline:g}s": within, f"right_within_{deadline:g}s": within * right}
        return found

    def _work(self, place: int) -> Work:
        """Of one question; a request at which the cloud failed was sent all the same."""
        read, tokens = int(self.drawn.read[place]), int(self.drawn.tokens[place])
        own = Work(int(read > 0), read, int(tokens > 0), tokens, tokens)
        if not self.granted[place]:
            return own
        sent = Basket()
        answer = self.order.answers.get(place)
        sent.add(answer, self.order.world.prices, self.order.worded[place])
        took = sent.exchange
        if answer is None or answer.exchange is None:
            return replace(own, **sent.sent_facts())
        parts = {"lower_read": took.lower_read, "lower_drawn": took.lower_drawn}
        parts |= {"helped_read": took.read, "helped_drawn": took.drawn}
        return replace(own, **sent.sent_facts(), **parts)


def _exchanges(order: Order, granted: Flags) -> dict[int, Exchange]:
    """What the exchanges of a mode of help took, by the place of the question; none where the cloud answered alone."""
    found = {place: order.answers[place].exchange for place in np.flatnonzero(granted).tolist()}
    return {place: took for place, took in found.items() if took is not None}


def _read_and_drawn(order: Order, granted: Flags) -> Drawn:
    """What the device read and drew in them, `(N,)`."""
    read, tokens, cut = np.zeros((3, len(granted)), dtype=np.int64)  # (N,) each
    for place, took in _exchanges(order, granted).items():
        read[place], tokens[place] = took.read, took.drawn
    return Drawn(read, tokens, cut)
