"""What a device's model and its cloud did, in integers: tokens read, drawn and learned, requests, tokens and bytes.

Seconds and joules are made of these where a run has a `system`, so that a client knows nothing of time; without one
they are rows all the same, and a run can be priced later. They say what a phone would have to do, not how a simulator
shares work between phones: a beginning that all prompts share counts in each of them, and filling counts nowhere. So
they are the same for any pack and any number of workers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flsim.cloud.exchange import Exchange
from flsim.cloud.protocol import Basket
from flsim.models.decoding import Completions, Prompts
from flsim.system.work import MILLI

Integers = NDArray[np.int64]


@dataclass
class Counts:
    """Of one device in one round."""

    read: int = 0
    """Tokens that its model read without drawing them: a prompt once for all responses of its group, again with each
    answer of the cloud that is imitated or kept, at each further step of the optimizer on the same responses, and under
    the adapters that the round began with, where a KL looks at these; there the responses, too. Of a hint, what is put
    into a response."""
    prompts: int = 0
    """How many prompts were read."""
    sampled: int = 0
    """Tokens that it drew, the ending one included: responses, what follows a hint, and answers that it tried alone
    because none came from the cloud."""
    responses: int = 0
    """How many it drew."""
    cut: int = 0
    """Those of them that reached the limit without an ending."""
    steps: int = 0
    """Decoding steps if a group is drawn at once: for each prompt as many as its longest response has tokens."""
    learned: int = 0
    """Tokens with a pull at each step of the optimizer: its own, taught ones, and explored requests; where a KL holds
    the policy, all of them."""

    def help(self, took: Exchange) -> None:
        """Its part of an exchange, a response of one draw after the other if it drew anything."""
        self.read += took.read
        self.sampled += took.drawn
        self.responses += took.drawn > 0
        self.steps += took.drawn

    def facts(self, basket: Basket) -> dict[str, tuple[float, float]]:
        """Totals and weights by the names of rows, with what went to the cloud."""
        prompts = float(max(self.prompts, self.read > 0))  # who samples nothing reads answers alone
        return {
            "read_tokens": (float(self.read), prompts),
            "sampled_tokens": (float(self.sampled), float(self.responses)),
            "cut_responses": (float(self.cut), float(self.responses)),
            "decode_steps": (float(self.steps), prompts),
            "learned_tokens": (float(self.learned), 1.0),
            **{name: (float(value), 1.0) for name, value in basket.sent_facts().items()},
            **help_facts(basket.exchange),
        }


def help_facts(took: Exchange) -> dict[str, tuple[float, float]]:
    """What tells of the device's part, of drafts and of layers, by the names of rows; nothing where a mode has none."""
    found = {
        "drafted_tokens": (took.drafted, took.trips),
        "accepted_tokens": (took.accepted, took.drafted),
        "computed_again": (took.again, took.trips),
    }
    own = {"helped_read": (took.read, 1), "helped_drawn": (took.drawn, 1)}
    lower = {"lower_read": (took.lower_read, MILLI), "lower_drawn": (took.lower_drawn, MILLI)}
    some = found if took.drafted else {}
    for part in (own, lower):
        some = {**some, **(part if any(total for total, _ in part.values()) else {})}
    return {name: (float(total), float(weight)) for name, (total, weight) in some.items()}


class Counted(Protocol):
    """Who has counts, such as a device."""

    counts: Counts


def count_reading(devices: Sequence[Counted], prompts: Prompts) -> None:
    """The K devices' models have read their prompts."""
    lengths = (prompts.mask.sum(-1) * prompts.real).sum(-1)  # (K,)
    for device, tokens, count in zip(devices, lengths.tolist(), prompts.counts, strict=True):
        device.counts.read += tokens
        device.counts.prompts += count


def count_scoring(devices: Sequence[Counted], responses: Completions) -> None:
    """They have read responses that they had drawn under other adapters."""
    for device, tokens in zip(devices, responses.mask.flatten(1).sum(-1).tolist(), strict=True):
        device.counts.read += tokens


def count_drawing(devices: Sequence[Counted], responses: Completions) -> None:
    """They have drawn these, with what was put in between."""
    each = responses.mask.sum(-1)  # (K, P, G), 0 of filling
    put_in = (responses.read & ~responses.mask).flatten(1).sum(-1)  # (K,)
    cut = torch.zeros_like(put_in) if responses.cut is None else responses.cut.flatten(1).sum(-1)  # (K,)
    sums = each.flatten(1).sum(-1), (each > 0).flatten(1).sum(-1), cut, each.amax(-1).sum(-1), put_in  # (K,) each
    for device, numbers in zip(devices, torch.stack(sums, 1).tolist(), strict=True):
        own = device.counts
        own.sampled += numbers[0]
        own.responses += numbers[1]
        own.cut += numbers[2]
        own.steps += numbers[3]
        own.read += numbers[4]


def count_learning(devices: Sequence[Counted], pulled: Tensor) -> None:
    """They have learned the tokens that are True in `(K, P, G, T)`."""
    for device, tokens in zip(devices, pulled.flatten(1).sum(-1).tolist(), strict=True):
        device.counts.learned += tokens


@dataclass(frozen=True)
class Drawn:
    """What a device read and drew for each of N questions that it is measured on, `(N,)` each."""

    read: Integers
    """Tokens read and not drawn: the prompt, and what of a hint is put in."""
    tokens: Integers
    """Tokens drawn, the ending ones included."""
    cut: Integers
    """Responses that reached the limit without an ending."""

    @classmethod
    def none(cls, count: int) -> Self:
        """Nothing, for so many questions."""
        return cls(*np.zeros((3, count), dtype=np.int64))

    @classmethod
    def of(cls, responses: Completions, counts: Sequence[int], prompts: Prompts | None = None) -> list[Self]:
        """Of one response to each real prompt, `(K, P, 1, T)`.

        Args:
            responses: what K devices said.
            counts: how many real prompts each of them has.
            prompts: what they read for it; None is nothing, since it was read before.
        """
        drawn = responses.mask[:, :, 0].sum(-1)  # (K, P)
        read = torch.zeros_like(drawn) if prompts is None else prompts.mask.sum(-1)  # (K, P)
        cut = torch.zeros_like(drawn) if responses.cut is None else responses.cut[:, :, 0].long()  # (K, P)
        whole = torch.stack([read, drawn, cut], 1).cpu().numpy()  # (K, 3, P)
        return [cls(*own[:, :count]) for own, count in zip(whole, counts, strict=True)]

    def at(self, places: Sequence[int], count: int) -> "Drawn":
        """The same laid out for `count` questions, of which it had these; nothing for the others."""
        found = np.zeros((3, count), dtype=np.int64)  # (3, N)
        found[:, list(places)] = self.read, self.tokens, self.cut
        return Drawn(*found)

    def where(self, flags: NDArray[np.bool_]) -> "Drawn":
        """At these questions `(N,)`, and nothing at the others."""
        return Drawn(self.read * flags, self.tokens * flags, self.cut * flags)

    def plus(self, other: "Drawn") -> "Drawn":
        """Both together."""
        return Drawn(self.read + other.read, self.tokens + other.tokens, self.cut + other.cut)
