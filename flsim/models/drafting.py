"""Drafting: a pack of devices says a few tokens each, which a cloud then verifies, and what two vocabularies share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flsim.collaboration.drawing import draw
from flsim.models.base import BaseModel
from flsim.models.decoding import Reading
from flsim.models.sampling import cooled


@dataclass(frozen=True)
class Drafted:
    """What was drafted, `(K, P, k)` each; whoever needs fewer tokens takes the first ones."""

    tokens: Tensor
    """In the device's own ids."""
    confidences: Tensor
    """What the model gave to each of them."""
    chances: Tensor | None
    """What each was drawn from, `(K, P, k, V)`; None unless it was wanted."""


@torch.no_grad()
def draft(
    base: BaseModel,
    reading: Reading,
    tokens: int,
    allowed: Tensor,
    *,
    temperature: float = 0.0,
    uniforms: Tensor | None = None,
    whole: bool = False,
) -> Drafted:
    """The next tokens of every prompt, whether or not one of them ends the answer.

    Args:
        base: the model, with the pack's adapters in use.
        reading: the prompts, each with what is settled of its answer, read with the same adapters.
        tokens: k, at least 1.
        allowed: True at tokens that may be drafted, `(V,)`.
        temperature: 0 is greedy.
        uniforms: in (0, 1], by which each token is drawn, `(K, P, k)`; None where it is greedy.
        whole: whether the distributions are kept. They travel in half precision, so tokens are drawn from what that
            leaves of them: a cloud that holds a token against another distribution would err.
    """
    k, p = reading.prompts.ids.shape[:2]
    decoder = base.forward.decoder(reading.prompts.seen, reading.past, 1, tokens)
    logits = reading.logits  # (K P, V)
    numbers = None if uniforms is None or temperature <= 0 else uniforms.flatten(0, 1).to(logits.device)  # (K P, k)
    said, sure, drawn = [], [], []
    for place in range(tokens):
        barred = logits.float().masked_fill(~allowed, -torch.inf)  # (K P, V)
        scores = torch.log_softmax(cooled(barred, temperature), -1)  # (K P, V)
        if whole:
            drawn.append(halved(scores.exp()))  # (K P, V)
            scores = drawn[-1].log()  # (K P, V)
        chosen = scores.argmax(-1) if numbers is None else draw(scores, numbers[:, place])  # (K P,)
        said.append(chosen)
        sure.append(scores.gather(-1, chosen[:, None])[:, 0].exp())  # (K P,)
        if place + 1 < tokens:
            logits = decoder.step(chosen).logits  # (K P, V)
    of, confidences = (torch.stack(each, -1).view(k, p, tokens) for each in (said, sure))  # (K, P, k) each
    return Drafted(of, confidences, torch.stack(drawn, 1).view(k, p, tokens, -1) if whole else None)


def halved(chances: Tensor) -> Tensor:
    """Distributions `(n, V)` as half precision has them, in float32, each with the sum 1."""
    kept = chances.half().float()  # (n, V)
    return kept / kept.sum(-1, keepdim=True)


@dataclass(frozen=True)
class SharedWords:
    """Tokens that devices and the cloud both have, by what they spell.

    A device drafts from these alone, as transformers does for two vocabularies (Timor et al. 2025, arXiv 2502.05202,
    "token-level intersection"): the cloud verifies exactly, whatever was drafted.
    """

    there: NDArray[np.int64]
    """The cloud's id of each of the device's tokens, -1 where it has none, `(V,)`, V of the device's logits."""
    here: Mapping[int, int]
    """The device's id of the cloud's tokens that it has."""
    width: int
    """How many ids the cloud's tokenizer has, V'."""

    @classmethod
    def of(cls, base: BaseModel, vocabulary: Mapping[str, int]) -> Self:
        """Those of a device's model and of a cloud's vocabulary; a token that asks for help is no part of a draft."""
        own: Mapping[str, int] = base.tokenizer.get_vocab()
        there = np.full(base.model.config.get_text_config().vocab_size, -1, dtype=np.int64)  # (V,)
        here = {vocabulary[piece]: number for piece, number in own.items() if piece in vocabulary}
        for number, mine in here.items():
            if mine != base.help.token and mine < len(there):
                there[mine] = number
        return cls(there, here, max(vocabulary.values()) + 1)

    @property
    def allowed(self) -> Tensor:
        """True at tokens that a device may draft, `(V,)`."""
        return torch.from_numpy(self.there >= 0)

    def to_cloud(self, tokens: Sequence[int]) -> list[int]:
        """The cloud's ids of tokens that a device drafted."""
        found: list[int] = self.there[list(tokens)].tolist()
        return found

    def from_cloud(self, tokens: Sequence[int]) -> list[int] | None:
        """The device's ids; None where it lacks one of them."""
        found = [self.here.get(token) for token in tokens]
        return None if None in found else [token for token in found if token is not None]

    def chances(self, drawn: Tensor) -> NDArray[np.float32]:
        """Distributions `(k, V)` over the device's ids as those over the cloud's, `(k, V')`."""
        found = np.zeros((len(drawn), self.width), dtype=np.float32)  # (k, V')
        mine = np.flatnonzero(self.there >= 0)  # (v,)
        found[:, self.there[mine]] = drawn.float().cpu().numpy()[:, mine]
        return found
