"""The forward passes that decoding and scoring need: what any model is read by, and what it leaves.

`read` encodes prompts, `decoder` adds token after token, `follow` reads whole completions on top of read prompts.
`flsim/models/any_forward.py` does so for any Hugging Face decoder-only model, `flsim/models/llama.py` for the Llama
family with less work.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from flsim.models.prefix import Prefix

Segment = tuple[Tensor, Tensor]
"""Keys and values `(m, heads, L, d)`."""


@dataclass(frozen=True)
class Past:
    """Keys and values of the tokens that were read, per layer `(n, heads, L, d)`."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    shared: "Past | None" = None
    """Of what several of the rows begin with, one row a device; the columns before all others."""

    @property
    def rows(self) -> int:
        """How many sequences were read, n."""
        return self.keys[0].shape[0]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Keys, then values, of all layers; then the shared ones."""
        return (*self.keys, *self.values, *(() if self.shared is None else self.shared.tensors))

    def segments(self, layer: int) -> list[Segment]:
        """Keys and values of a layer, the shared ones first."""
        before = [] if self.shared is None else self.shared.segments(layer)
        return [*before, (self.keys[layer], self.values[layer])]

    def of(self, tensors: tuple[Tensor, ...]) -> "Past":
        """The same past with other tensors, in the order of `tensors`."""
        half = len(self.keys)
        shared = None if self.shared is None else self.shared.of(tensors[2 * half :])
        return Past(tensors[:half], tensors[half : 2 * half], shared)

    def at(self, rows: Tensor) -> "Past":
        """Of some of the sequences, by their numbers `(m,)`; what is shared stays whole."""
        own = (tensor.index_select(0, rows.to(tensor.device)) for tensor in (*self.keys, *self.values))
        return self.of((*own, *(() if self.shared is None else self.shared.tensors)))


@dataclass(frozen=True)
class Next:
    """What a model has made of n sequences, before their next tokens."""

    logits: Tensor
    """Of the next tokens, `(n, V)`."""
    states: Tensor
    """The hidden states that the output layer made them from, `(n, D)`."""
    below: Tensor | None = None
    """Of a model that is cut: the hidden states that came to its seam, `(n, D)`; None of a whole one."""


Readout = Callable[[Next, Tensor], Tensor]
"""One number `(n,)` for each of n tokens, from what the model made of all that came before it, and its place `(n,)`."""


class Decoder(Protocol):
    """Rows that grow token by token, without gradient; in the beginning every prompt has equally many."""

    def step(self, ids: Tensor) -> Next:
        """Read one more token `(n,)` per row."""
        ...

    def keep(self, places: Tensor) -> None:
        """Go on with these of the rows only."""
        ...


class Forward(Protocol):
    """How a model reads; K devices, P prompts of each, R rows of each.

    L are the columns of what was read: a prefix's tokens first, if there is one, then those of the prompts' own.
    """

    def read(self, ids: Tensor, mask: Tensor, prefix: Prefix | None = None) -> tuple[Next, Past]:
        """Encode left-padded prompts.

        Args:
            ids: of the tokens that are no part of the prefix, `(K, P, M)`.
            mask: True at tokens that count, `(K, P, M)`.
            prefix: what they begin with; None is nothing.

        Returns:
            What comes next, and what was read, K * P rows each.
        """
        ...

    def decoder(self, mask: Tensor, past: Past, share: int, tokens: int) -> Decoder:
        """Begin to decode.

        Args:
            mask: True at the prompts' tokens that count, `(K, P, L)`.
            past: the prompts.
            share: rows per prompt; row i goes on where prompt `i // share` ended.
            tokens: most tokens that will be read.
        """
        ...

    def follow(self, ids: Tensor, mask: Tensor, prompts: Tensor, past: Past, readout: Readout) -> Tensor:
        """Read T tokens per row at once, with gradient.

        Args:
            ids: `(K, R, T)`, right-padded.
            mask: True at tokens that count, `(K, R, T)`.
            prompts: True at the prompts' tokens that count, `(K, P, L)`.
            past: the prompts; the rows of a device go on where its prompts ended, `R / P` rows for each in turn.
            readout: called with what comes after some tokens and their places in the flattened ids `(n,)`; gives one
                number for each, `(n,)`.

        Returns:
            What `readout` gave, `(K, R, T)`; zero where the mask is not True.
        """
        ...


def positions_of(mask: Tensor, tokens: int) -> Tensor:
    """Position of each of the last `tokens` tokens, `(n, tokens)`: how many tokens that count come before it."""
    return (mask.long().cumsum(1) - 1).clamp(min=0)[:, -tokens:]
