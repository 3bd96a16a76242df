"""How the next token of every row is drawn: temperature, the rules for the help request, and what is noted of it.

Shapes: n rows that are decoded on, of N in all; V words; T new tokens at most.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flsim.collaboration.drawing import draw
from flsim.config.model import ANYWHERE
from flsim.models.base import BaseModel

CALM = 0.3
"""Mean surprise of a draft, in nats a token, up to which it is no reason to ask."""


@dataclass(frozen=True)
class Trace:
    """What the model was like while it said its completions: from this a head may tell how good they are."""

    states: Tensor
    """The hidden state that each one's last token was drawn from, `(K, P, G, D)`."""
    entropies: Tensor
    """Of the distribution of each token at temperature 1, in nats, zero after the end, `(K, P, G, T)`."""
    logprobs: Tensor
    """Of the tokens at temperature 1, zero after the end, `(K, P, G, T)`."""


class Sampler:
    """Draws the next token of the rows that are decoded on."""

    def __init__(
        self,
        base: BaseModel,
        noise: Tensor | None,
        temperature: float,
        *,
        may_ask: bool,
        bias: Tensor | None,
        doubt: "Doubt | None",
        seen: "Seen | None",
    ) -> None:
        """Take the rules.

        Args:
            base: whose tokens they are.
            noise: `uniform` numbers `(N, T)`; None is greedy.
            temperature: of the sampling; 0 where it is greedy.
            may_ask: False rules the help request out.
            bias: on the request, of each row `(N,)`; None is none.
            doubt: raises the request by the surprise of the drafts; None does not.
            seen: what a trace is made of; None where none is wanted.
        """
        self._base, self._noise, self._temperature = base, noise, temperature
        self._may_ask, self._bias, self._doubt, self._seen = may_ask, bias, doubt, seen

    def draw(
        self, t: int, now: Tensor | slice, done: Tensor, before: Tensor, logits: Tensor, states: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Token t of each row and its log-probability, both `(n,)`.

        Args:
            t: 0 for the first.
            now: the rows `(n,)`, or all.
            done: True at those that have ended, whose tokens nobody keeps, `(n,)`.
            before: the tokens before it that a request may have begun with `(n, m)`.
            logits: of the token `(n, V)`.
            states: that they were made from `(n, D)`.
        """
        bias = None if self._bias is None else self._bias[now]  # (n,)
        offset = None if self._doubt is None else self._doubt.offset(t, now, done)  # (n,)
        heat, may_ask = self._temperature, self._may_ask
        scores = _scores(self._base, logits, before, bias, offset, t, heat, may_ask=may_ask)  # (n, V)
        chosen = scores.argmax(-1) if self._noise is None else draw(scores, self._noise[now, t])  # (n,)
        if self._seen is not None:
            self._seen.note(t, now, ~done, states, scores, chosen)
        if self._doubt is not None:
            self._doubt.note(now, logits, before, chosen)
        return chosen, scores.gather(-1, chosen[:, None])[:, 0]


class Doubt:
    """Of n rows what `Completions.offsets` says, as they are decoded."""

    def __init__(self, base: BaseModel, kappa: float, open_: Tensor, group_size: int, longest: int) -> None:
        self._base, self._kappa = base, kappa
        self._closed = ~open_.repeat_interleave(group_size, 1).flatten()  # (n,): rows that may not ask
        self._sums = torch.zeros(len(self._closed), device=open_.device)  # (n,): of the surprises so far
        self._offsets = torch.zeros(len(self._closed), longest, device=open_.device)  # (n, T)

    def offset(self, t: int, now: Tensor | slice, done: Tensor) -> Tensor | None:
        """For token t of the rows `now` `(n,)`, 0 for those that are `done`; None where there is no draft yet."""
        if not t:
            return None
        each = self._kappa * (self._sums[now] / t - CALM)  # (n,)
        each = each.masked_fill(done | self._closed[now], 0.0)  # (n,)
        self._offsets[now, t] = each
        return each

    def note(self, now: Tensor | slice, logits: Tensor, before: Tensor, chosen: Tensor) -> None:
        """The next token `chosen` `(n,)` of the rows `now`, by the model's own logits `(n, V)`.

        Args:
            now: the rows.
            logits: of the token.
            before: the tokens before it that a request may have begun with `(n, m)`.
            chosen: the token; one that completes the request ends the draft and does not count.
        """
        help_ = self._base.help
        alone = help_.ruled_out(logits.float(), help_.closing(before)[:, -1])  # (n, V)
        surprise = -torch.log_softmax(alone, -1).gather(-1, chosen[:, None])[:, 0]  # (n,)
        self._sums[now] += surprise.masked_fill(surprise.isposinf(), 0.0)

    def offsets(self, shape: tuple[int, int, int, int]) -> Tensor:
        """Of completions `(K, P, G, T)`."""
        return self._offsets[:, : shape[-1]].view(shape)


class Seen:
    """Of n rows what `Trace` says, as they are decoded."""

    def __init__(self, states: Tensor, longest: int, temperature: float) -> None:
        self._states = torch.zeros_like(states)  # (n, D)
        self._entropies, self._logprobs = torch.zeros(2, len(states), longest, device=states.device)  # (n, T) each
        self._heat = temperature if temperature > 0 else 1.0

    def note(self, t: int, now: Tensor | slice, going: Tensor, states: Tensor, scores: Tensor, chosen: Tensor) -> None:
        """Token t `chosen` `(n,)` of the rows `now` by log-probabilities `scores` `(n, V)`; some are `going` on."""
        scores = scores[going]  # (m, V)
        rows = now[going] if isinstance(now, Tensor) else going.nonzero()[:, 0]  # (m,)
        plain = scores if self._heat == 1.0 else torch.log_softmax(scores * self._heat, -1)  # (n, V)
        self._states[rows] = states[going]
        self._entropies[rows, t] = torch.special.entr(plain.exp()).sum(-1)
        self._logprobs[rows, t] = plain.gather(-1, chosen[going][:, None])[:, 0]

    def trace(self, shape: tuple[int, int, int, int]) -> Trace:
        """Of completions `(K, P, G, T)`."""
        entropies, logprobs = (of[:, : shape[-1]].view(shape) for of in (self._entropies, self._logprobs))
        return Trace(self._states.float().view(*shape[:3], -1), entropies, logprobs)


def _scores(
    base: BaseModel,
    logits: Tensor,
    said: Tensor,
    bias: Tensor | None,
    offset: Tensor | None,
    t: int,
    temperature: float,
    *,
    may_ask: bool,
) -> Tensor:
    """Log-probabilities of token t `(n, V)`, in float32, by its logits `(n, V)`.

    Args:
        base: whose request it is.
        logits: by the model.
        said: the tokens before that a request may have begun with `(n, m)`.
        bias: on the request `(n,)`; None is none.
        offset: on it as well, by the surprise of the draft `(n,)`; None is none.
        t: 0 for the first.
        temperature: 0 means greedy.
        may_ask: False rules the request out.
    """
    if bias is None and may_ask and base.help.stands == ANYWHERE:  # nothing is ruled out
        return torch.log_softmax(cooled(base.help.raised(logits, offset).float(), temperature), -1)
    places = torch.full(logits.shape[:1], t, device=logits.device)  # (n,)
    logits = base.help.raised(base.help.biased(logits, bias, places), offset)  # (n, V)
    barred = base.help.barred(base.help.closing(said)[:, -1], bias, places, may_ask=may_ask)  # (n,)
    logits = logits if barred is None else base.help.ruled_out(logits, barred)  # (n, V)
    return torch.log_softmax(cooled(logits.float(), temperature), -1)


def cooled(logits: Tensor, temperature: float) -> Tensor:
    """Logits by the temperature of the sampling, 0 for greedy; at 1 they are not copied."""
    return logits / temperature if temperature > 0 and temperature != 1 else logits


def uniform(
    counts: Sequence[int], width: int, group_size: int, steps: int, generators: Sequence[torch.Generator] | None
) -> Tensor:
    """Numbers in (0, 1], `(N, T)`: each device draws for its own real prompts only.

    Args:
        counts: real prompts of each device, of `width`.
        width: P.
        group_size: G.
        steps: T.
        generators: one per device.

    Raises:
        ValueError: if there are others than one per device.
    """
    if generators is None or len(generators) != len(counts):
        raise ValueError(f"sampling needs one generator per device, {len(counts)} of them")
    noise = torch.ones(len(counts), width * group_size, steps)
    for row, (count, source) in enumerate(zip(counts, generators, strict=True)):
        noise[row, : count * group_size] = 1.0 - torch.rand(count * group_size, steps, generator=source)
    return noise.view(-1, steps)
