"""Sample completions for a pack of devices: prompts are read once and shared by their group.

Shapes: K devices, P prompts per device (padded to the longest list), G completions per prompt, T new tokens. All rows
of one device lie side by side, as `StackedLora` needs them. The log-probability of every sampled token comes along; on
policy it is all that a loss needs to know (`flsim/models/scoring.py`).
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flsim.models.base import BaseModel
from flsim.models.forward import Past
from flsim.models.stacked_lora import WASTE, unequal

CALM = 0.3
"""Mean surprise of a draft, in nats a token, up to which it is no reason to ask."""
_SHRINK_AT = 0.9  # decoding drops finished rows once at most this share is unfinished


@dataclass(frozen=True)
class Prompts:
    """The prompts of a pack, left-padded."""

    ids: Tensor
    """Token ids `(K, P, L)`."""
    mask: Tensor
    """True at prompt tokens `(K, P, L)`."""
    counts: tuple[int, ...]
    """Real prompts of each device; the rest of the P rows is filling."""

    @property
    def real(self) -> Tensor:
        """True at real prompts, `(K, P)`."""
        counts = torch.tensor(self.counts, device=self.ids.device)[:, None]  # (K, 1)
        return torch.arange(self.ids.shape[1], device=self.ids.device) < counts  # (K, P)


@dataclass(frozen=True)
class Reading:
    """Prompts and what the model has read of them, with the graph of the gradient if there is one."""

    prompts: Prompts
    past: Past
    """Of K * P rows."""
    logits: Tensor
    """Of the first new token, `(K * P, V)`."""
    states: Tensor
    """The hidden states that these were made from, `(K * P, D)`."""


@dataclass(frozen=True)
class Trace:
    """What the model was like while it said its completions: from this a head may tell how good they are."""

    states: Tensor
    """The hidden state that each one's last token was drawn from, `(K, P, G, D)`."""
    entropies: Tensor
    """Of the distribution of each token at temperature 1, in nats, zero after the end, `(K, P, G, T)`."""
    logprobs: Tensor
    """Of the tokens at temperature 1, zero after the end, `(K, P, G, T)`."""


@dataclass(frozen=True)
class Completions:
    """What was generated; `tokens`, `mask` and `logprobs` are `(K, P, G, T)`."""

    tokens: Tensor
    """Token ids; padding after the end."""
    mask: Tensor
    """True at generated tokens, the ending one included."""
    logprobs: Tensor
    """Log-probability of each token under the distribution it was drawn from, zero after the end."""
    asked: Tensor
    """True where the completion of a real prompt is a help request, `(K, P, G)`."""
    texts: list[list[list[str]]]
    """Decoded text without the ending token, `[device][prompt][completion]`, real prompts only; of one that asks its
    draft, what it said before the request, "" if nothing."""
    trace: Trace | None = None
    """None unless it was wanted."""
    offsets: Tensor | None = None
    """What was added to the logit of the help request for each token, by the surprise of what stood before it
    `(K, P, G, T)`; no gradient goes through it. None if nothing was."""
    resumed: Tensor | None = None
    """The place from which each one goes on by itself after its request, 0 if it does not, `(K, P, G)`; between the
    two lies what was put in, which is read and no part of `mask`. None if none goes on."""

    @property
    def read(self) -> Tensor:
        """True at tokens that are read, said by the model or put in, `(K, P, G, T)`."""
        if self.resumed is None:
            return self.mask
        put_in = torch.arange(self.mask.shape[-1], device=self.mask.device) < self.resumed[..., None]  # (K, P, G, T)
        return self.mask | put_in


def encode(base: BaseModel, questions: Sequence[Sequence[str]]) -> Prompts:
    """Tokenise each device's prompts; devices may have unequal numbers, a device with none gets filling only."""
    texts = [question for row in questions for question in row]
    tokens = iter(
        base.tokenizer(texts)["input_ids"] if texts else []
    )  # one call: the tokenizer's own overhead is large
    return prompts_of(base, [[next(tokens) for _ in row] for row in questions])


def prompts_of(base: BaseModel, tokens: Sequence[Sequence[Sequence[int]]]) -> Prompts:
    """Prompts by their tokens, `[device][prompt]`, none without any."""
    width = max(1, max(len(row) for row in tokens))
    ids = [[*row, *[[base.eos_id]] * (width - len(row))] for row in tokens]
    length = max(len(prompt) for row in ids for prompt in row)
    padded = [[[base.pad_id] * (length - len(prompt)) + [*prompt] for prompt in row] for row in ids]
    lengths = torch.tensor([[len(prompt) for prompt in row] for row in ids])  # (K, P)
    mask = torch.arange(length) >= (length - lengths)[:, :, None]  # (K, P, L)
    device = base.model.device
    return Prompts(torch.tensor(padded, device=device), mask.to(device), tuple(len(row) for row in tokens))


def given(base: BaseModel, tokens: Sequence[Sequence[Sequence[int]]]) -> Completions:
    """Completions that somebody else wrote, one for each prompt, `(K, P, 1, T)`; without texts.

    Args:
        base: the model that will read them.
        tokens: `[device][prompt]`, the ending one included; one without tokens counts as filling.
    """
    width = max(1, max(len(row) for row in tokens))
    longest = max(1, max((len(answer) for row in tokens for answer in row), default=1))
    rows = [[*row, *[()] * (width - len(row))] for row in tokens]
    padded = [[[*answer, *[base.pad_id] * (longest - len(answer))] for answer in row] for row in rows]
    device = base.model.device
    ids = torch.tensor(padded, device=device)[:, :, None]  # (K, P, 1, T)
    lengths = torch.tensor([[len(answer) for answer in row] for row in rows], device=device)  # (K, P)
    mask = torch.arange(longest, device=device) < lengths[..., None, None]  # (K, P, 1, T)
    asked = (base.help.completed(ids) & mask).any(-1)  # (K, P, 1)
    return Completions(ids, mask, torch.zeros(ids.shape, device=device), asked, [])


def read(base: BaseModel, prompts: Prompts) -> Reading:
    """Read every prompt once."""
    first, past = base.forward.read(prompts.ids, prompts.mask)
    return Reading(prompts, past, first.logits, first.states)


@torch.no_grad()
def generate(
    base: BaseModel,
    reading: Reading,
    *,
    group_size: int,
    max_new_tokens: int,
    temperature: float,
    generators: Sequence[torch.Generator] | None = None,
    may_ask: bool = True,
    help_bias: Tensor | None = None,
    surprise: float = 0.0,
    traced: bool = False,
) -> Completions:
    """Generate `group_size` completions per prompt; a completion ends with an ending token or the help request.

    A device's tokens depend on its own generator and prompts only, never on who shares its pack.

    Args:
        base: the model, with the pack's adapters in use.
        reading: the pack's prompts, read with the same adapters.
        group_size: G.
        max_new_tokens: longest completion, the ending token included.
        temperature: of the sampling; 0 means greedy.
        generators: one per device; needed unless greedy.
        may_ask: False forbids the help request, so that the device answers alone.
        help_bias: added to the logit of the help request at each prompt `(K, P)`, -inf rules it out; None adds nothing.
            Of a text it is the logit of its first token (`HelpRequest.biased` says where).
        surprise: kappa; after t >= 1 tokens of a draft the logit of the help request, of a text that of its first
            token, is raised by kappa (mean surprise of these tokens - `CALM`). A token's surprise is minus its
            log-probability at temperature 1 with the request ruled out, in nats. 0 adds nothing.
        traced: whether hidden states and entropies are kept.

    Raises:
        ValueError: if the help request has more tokens than a completion may have.
    """
    if may_ask:
        _refuse_short(base, max_new_tokens)
    prompts = reading.prompts
    k, p, _ = prompts.ids.shape
    rows, device = p * group_size, prompts.ids.device  # rows of one device
    noise = _uniform(prompts, group_size, max_new_tokens, generators) if temperature > 0 else None  # (K * rows, T)
    tokens = torch.full((k * rows, max_new_tokens), base.pad_id, device=device)
    logprobs = torch.zeros(k * rows, max_new_tokens, device=device)
    done = ~prompts.real.repeat_interleave(group_size, 1).flatten()  # (K * rows,)
    now, counts = torch.arange(k * rows, device=device), None  # (n,), the rows that are decoded on, device by device
    decoder = base.forward.decoder(prompts.mask, reading.past, group_size, max_new_tokens)
    logits, states = (of.repeat_interleave(group_size, 0) for of in (reading.logits, reading.states))  # (n, V), (n, D)
    seen = _Seen(states, max_new_tokens, temperature) if traced else None
    open_ = _open(prompts, help_bias, may_ask=may_ask)  # (K, P)
    doubt = _Doubt(base, surprise, open_, group_size, max_new_tokens) if surprise and may_ask else None
    for t in range(max_new_tokens):
        bias = None if help_bias is None else help_bias.flatten()[now // group_size]  # (n,)
        begun = max(0, t + 1 - max(1, len(base.help.ids)))  # where a request may have begun that would be complete now
        offset = None if doubt is None else doubt.offset(t, now, done[now])  # (n,)
        scores = _scores(base, logits, tokens[now, begun:t], bias, offset, t, temperature, may_ask=may_ask)  # (n, V)
        chosen = scores.argmax(-1) if noise is None else _draw(scores, noise[now, t])  # (n,)
        if seen is not None:
            seen.note(t, now, ~done[now], states, scores, chosen)
        if doubt is not None:
            doubt.note(now, logits, tokens[now, begun:t], chosen)
        logprobs[now, t] = scores.gather(-1, chosen[:, None])[:, 0].masked_fill(done[now], 0.0)
        chosen = chosen.masked_fill(done[now], base.pad_id)
        tokens[now, t] = chosen
        done[now] |= base.ends(chosen) | base.help.completed(tokens[now, begun : t + 1])[:, -1]
        going = (~done[now]).long()  # (n,)
        left = going.new_zeros(k).index_add_(0, now // rows, going)  # (K,)
        numbers = [] if t + 1 == max_new_tokens else left.tolist()  # the one time per token that a GPU is waited for
        if not any(numbers):
            break
        shrunk = _unfinished(done[now], numbers, equal=counts is None)
        if shrunk is not None:
            places, equal = shrunk
            now, chosen, counts = now[places], chosen[places], None if equal else left
            decoder.keep(places)
        with nullcontext() if counts is None else unequal(counts):
            following = decoder.step(chosen)
        logits, states = following.logits, following.states
    shape = (k, p, group_size, t + 1)
    parts = tokens[:, : t + 1].view(shape), logprobs[:, : t + 1].view(shape)
    said = _finish(base, prompts, *parts, open_)
    said = said if doubt is None else replace(said, offsets=doubt.offsets(shape))
    return said if seen is None else replace(said, trace=seen.trace(shape))


class _Doubt:
    """Of n rows what `Completions.offsets` says, as they are decoded."""

    def __init__(self, base: BaseModel, kappa: float, open_: Tensor, group_size: int, longest: int) -> None:
        self._base, self._kappa = base, kappa
        self._closed = ~open_.repeat_interleave(group_size, 1).flatten()  # (n,): rows that may not ask
        self._sums = torch.zeros(len(self._closed), device=open_.device)  # (n,): of the surprises so far
        self._offsets = torch.zeros(len(self._closed), longest, device=open_.device)  # (n, T)

    def offset(self, t: int, now: Tensor, done: Tensor) -> Tensor | None:
        """For token t of the rows `now` `(n,)`, 0 for those that are `done`; None where there is no draft yet."""
        if not t:
            return None
        each = self._kappa * (self._sums[now] / t - CALM)  # (n,)
        each = each.masked_fill(done | self._closed[now], 0.0)  # (n,)
        self._offsets[now, t] = each
        return each

    def note(self, now: Tensor, logits: Tensor, before: Tensor, chosen: Tensor) -> None:
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


def _open(prompts: Prompts, help_bias: Tensor | None, *, may_ask: bool) -> Tensor:
    """True at prompts where a response may ask, `(K, P)`."""
    open_ = torch.full(prompts.ids.shape[:2], may_ask, device=prompts.ids.device)  # (K, P)
    return open_ if help_bias is None else open_ & ~help_bias.isneginf()  # (K, P)


class _Seen:
    """Of n rows what `Trace` says, as they are decoded."""

    def __init__(self, states: Tensor, longest: int, temperature: float) -> None:
        self._states = torch.zeros_like(states)  # (n, D)
        self._entropies, self._logprobs = torch.zeros(2, len(states), longest, device=states.device)  # (n, T) each
        self._heat = temperature if temperature > 0 else 1.0

    def note(self, t: int, now: Tensor, going: Tensor, states: Tensor, scores: Tensor, chosen: Tensor) -> None:
        """Token t `chosen` `(n,)` of the rows `now` by log-probabilities `scores` `(n, V)`; some are `going` on."""
        rows, scores = now[going], scores[going]
        plain = scores if self._heat == 1.0 else torch.log_softmax(scores * self._heat, -1)  # (n, V)
        self._states[rows] = states[going]
        self._entropies[rows, t] = torch.special.entr(plain.exp()).sum(-1)
        self._logprobs[rows, t] = plain.gather(-1, chosen[going][:, None])[:, 0]

    def trace(self, shape: tuple[int, int, int, int]) -> Trace:
        """Of completions `(K, P, G, T)`."""
        entropies, logprobs = (of[:, : shape[-1]].view(shape) for of in (self._entropies, self._logprobs))
        return Trace(self._states.float().view(*shape[:3], -1), entropies, logprobs)


def _refuse_short(base: BaseModel, max_new_tokens: int) -> None:
    if base.help.ids and base.help.least > max_new_tokens:
        what = "a draft and the help request" if base.help.least > len(base.help.ids) else "the help request"
        raise ValueError(
            f"max_new_tokens={max_new_tokens} is less than the {base.help.least} tokens of {what} "
            f"{base.help.text!r}; raise model.max_new_tokens (and client.max_new_tokens), or give a shorter model.help"
        )


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
    places = torch.full(logits.shape[:1], t, device=logits.device)  # (n,)
    logits = base.help.raised(base.help.biased(logits, bias, places), offset)  # (n, V)
    barred = base.help.barred(base.help.closing(said)[:, -1], bias, places, may_ask=may_ask)  # (n,)
    logits = logits if barred is None else base.help.ruled_out(logits, barred)  # (n, V)
    return torch.log_softmax(logits.float() / temperature if temperature > 0 else logits.float(), -1)


def _unfinished(done: Tensor, left: Sequence[int], *, equal: bool) -> tuple[Tensor, bool] | None:
    """Which rows to go on with, and whether they are equally many of each device; None while too few have ended.

    While rows are equal, every device keeps as many as the one with the most unfinished, unless that is wasteful.

    Args:
        done: of all rows, device by device, `(n,)`.
        left: unfinished rows of each device.
        equal: whether all devices have equally many rows so far.
    """
    k, most, total = len(left), max(left), sum(left)
    equal = equal and k * most <= WASTE * total
    if (k * most if equal else total) > _SHRINK_AT * len(done):
        return None
    if not equal:
        return (~done).nonzero()[:, 0], False
    order = done.view(k, -1).int().argsort(dim=1, stable=True)[:, :most]  # (K, most)
    return (order + torch.arange(k, device=done.device)[:, None] * (len(done) // k)).flatten(), True


def _uniform(prompts: Prompts, group_size: int, steps: int, generators: Sequence[torch.Generator] | None) -> Tensor:
    """Numbers in (0, 1], `(rows, T)`: each device draws for its own real prompts only."""
    if generators is None or len(generators) != len(prompts.counts):
        raise ValueError(f"sampling needs one generator per device, {len(prompts.counts)} of them")
    p = prompts.ids.shape[1]
    noise = torch.ones(len(prompts.counts), p * group_size, steps)
    for row, (count, source) in enumerate(zip(prompts.counts, generators, strict=True)):
        noise[row, : count * group_size] = 1.0 - torch.rand(count * group_size, steps, generator=source)
    return noise.view(-1, steps).to(prompts.ids.device)


def _draw(scores: Tensor, uniform: Tensor) -> Tensor:
    """Inverse-CDF sampling: one uniform number per row; a token of probability zero is never chosen."""
    cumulative = scores.exp().double().cumsum(-1)  # (rows, V)
    threshold = uniform.double() * cumulative[:, -1]  # (rows,)
    return torch.searchsorted(cumulative, threshold[:, None])[:, 0].clamp(max=scores.shape[-1] - 1)


def _finish(base: BaseModel, prompts: Prompts, tokens: Tensor, logprobs: Tensor, open_: Tensor) -> Completions:
    """`open_` `(K, P)` says where a response may ask."""
    ended = base.ends(tokens) | base.help.completed(tokens)  # (K, P, G, T)
    mask = ended.long().cumsum(-1) - ended.long() == 0  # everything up to and including the first end
    mask &= prompts.real[..., None, None]
    asked = (base.help.completed(tokens) & mask).any(-1)  # (K, P, G)
    words = tokens.masked_fill(~mask | ended | base.help.held_by(tokens), base.pad_id)
    said = base.tokenizer.batch_decode(words[prompts.real].flatten(0, 1), skip_special_tokens=True)
    group = tokens.shape[2]
    spelt = [base.help.ends(text) for text in said]  # in other tokens than its own
    drafts = [base.help.draft_of(text) if other else text for text, other in zip(said, spelt, strict=True)]
    flags = [flag for flag in open_[prompts.real].tolist() for _ in range(group)]
    may = [flag and base.help.may_follow(draft) for flag, draft in zip(flags, drafts, strict=True)]
    if any(spelt):
        also = [other and flag for other, flag in zip(spelt, may, strict=True)]
        asked[prompts.real] |= torch.tensor(also, device=asked.device).view(-1, group)
    # who may not ask and spells the request all the same says nothing, which no verifier takes
    told = iter("" if other and not flag else text for text, other, flag in zip(drafts, spelt, may, strict=True))
    texts = [[[next(told) for _ in range(group)] for _ in range(count)] for count in prompts.counts]
    return Completions(tokens, mask, logprobs, asked, texts)
