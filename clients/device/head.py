"""A pack's benefit head: after every draft, by how much each device expects that the cloud would be likelier right.

The maths is in `flsim/learning/benefit.py`. The head's weights are part of the adapter (`head.weight`), so that they
are averaged, sent and kept like LoRA's factors.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from flsim.learning.benefit import (
    FIRST_CHANCES,
    NUMBERS,
    PIECES,
    ask_chance,
    chances,
    features,
    first_head,
    question_features,
)
from flsim.learning.sums import gathered, solved
from flsim.models.adapter import Adapter
from flsim.models.base import BaseModel
from flsim.models.decoding import Completions, Prompts
from flsim.models.stacked_lora import StackedLora

WEIGHT = "head.weight"
"""Of an adapter: `(2, F)`, a row for the draft and one for the cloud."""
SUMS = "head.sums"
"""In its place, of heads that are solved: `(2, F, F + 1)`."""


@dataclass(frozen=True)
class Head:
    """How devices look at their drafts."""

    kind: str = "both"
    """The features that it sees: `both`, `numbers`, `hidden` or `question`."""
    rate: float = 5.0
    """How many times faster it learns than the adapter."""
    temperature: float = 0.1
    """Of the request that is sampled after a draft, in units of the benefit."""
    decides: str = "first"
    """Whose draft decides whether a prompt is sent: the `first` of a group, which is what the user would get, or `each`
    for itself, so that a prompt is sent if any of G drafts asks."""
    gradient: float = 0.0
    """Weight of its loss in the gradient of the adapter; 0 stops it at the hidden state."""
    ridge: float = 0.0
    """Above 0 it is solved from sums with this penalty, in place of being learned step by step."""
    fade: float = 1.0
    """What a step leaves of the sums so far."""

    @property
    def scale(self) -> float:
        """Of all features."""
        return 1.0 if self.ridge else self.rate

    @property
    def beside(self) -> int:
        """How many features stand behind the hidden state."""
        return PIECES if self.kind == "question" else 0

    def first(self, base: BaseModel) -> Adapter:
        """What a fleet starts from; the states are what the output layer reads, which a few models narrow before."""
        output = base.model.get_output_embeddings()
        assert output is not None, "a causal language model has an output layer"
        weight = first_head(output.get_parameter("weight").shape[1] + self.beside, scale=self.scale)  # (2, F)
        if self.ridge:
            return {SUMS: torch.zeros(*weight.shape, weight.shape[1] + 1).numpy()}
        return {WEIGHT: weight.numpy()}

    def weights(self, extras: Mapping[str, Tensor]) -> Tensor:
        """The heads, `(K, 2, F)`, as an adapter's extras of K devices hold them."""
        if not self.ridge:
            return extras[WEIGHT]
        sums = extras[SUMS]  # (K, 2, F, F + 1)
        return solved(sums, torch.tensor(FIRST_CHANCES, device=sums.device), self.ridges(sums.shape[2]).to(sums.device))

    def ridges(self, features: int) -> Tensor:
        """Penalties, `(F,)`, of F features; beside numbers a hidden state is held back as if it were as few."""
        ridges = torch.full((features,), self.ridge, dtype=torch.float64)  # (F,)
        if self.kind == "both":
            ridges[NUMBERS:] *= (features - NUMBERS) / (NUMBERS - 1)  # the first of the numbers is constant
        return ridges

    def gathered(self, extras: Mapping[str, Tensor], phi: Tensor, labels: Tensor, known: Tensor) -> Tensor:
        """The sums of K devices with what they saw, `(K, 2, F, F + 1)`, after those so far have faded.

        Args:
            extras: the adapter's, which hold the sums so far.
            phi: features, `(K, P, G, F)`.
            labels: whether draft and cloud were right, `(K, P, G, 2)`.
            known: 1 where there is a label, else 0, `(K, P, G, 2)`; the drafts of a group count as one.
        """
        return self.fade * extras[SUMS] + gathered(phi, labels, known / phi.shape[2])  # (K, 2, F, F + 1)

    def features(self, drafts: Completions, prompts: Prompts) -> Tensor:
        """Of drafts that were traced, and the prompts they answer, `(K, P, G, F)`."""
        trace = drafts.trace
        assert trace is not None, "drafts are traced where devices have a head"
        seen = trace.states, trace.logprobs, trace.entropies
        read = question_features(prompts.ids, prompts.mask) if self.beside else None  # (K, P, 2 + PIECES)
        return features(*seen, drafts.mask, kind=self.kind, scale=self.scale, read=read)  # (K, P, G, F)

    def chances(self, weight: Tensor, drafts: Completions, prompts: Prompts) -> Tensor:
        """That each draft and the cloud are right, `(K, P, G, 2)`, by weights `(K, 2, F)`, or `(1, 2, F)` for all."""
        return chances(weight.expand(len(drafts.mask), -1, -1), self.features(drafts, prompts))  # (K, P, G, 2)

    def ask(self, gain: Tensor, offset: Tensor, uniform: Tensor) -> Tensor:
        """True where a request is sampled after a draft, `(K, P, G)`.

        Args:
            gain: the benefit b of each draft, `(K, P, G)`.
            offset: minus the price of every prompt, `(K, P)`; -inf where asking is ruled out.
            uniform: a number in [0, 1) for every draft, `(K, P, G)`.
        """
        asks = uniform < ask_chance(gain, -offset, self.temperature)  # (K, P, G)
        return asks[..., :1].expand_as(asks) if self.decides == "first" else asks

    def state_pull(self, weight: Tensor, pull: Tensor) -> Tensor:
        """The gradient with respect to the scaled hidden states, `(K, P, G, D)`.

        Args:
            weight: `(K, 2, F)`.
            pull: with respect to the logits of both chances, `(K, P, G, 2)`.
        """
        hidden = (
            weight[..., NUMBERS : weight.shape[-1] - self.beside] * self.rate * (self.kind != "numbers")
        )  # (K, 2, D)
        return torch.einsum("kpgc,kcd->kpgd", pull, hidden)


def weights_of(head: Head, lora: StackedLora, theta: Tensor) -> Tensor:
    """The heads in a pack's parameters `(K, n)`: `(K, 2, F)`."""
    return head.weights(lora.extras(theta))
