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
from flsim.models.lora_linear import WASTE, unequal
from flsim.models.prefix import Prefix, prefix_of
from flsim.models.sampling import Doubt, Sampler, Seen, uniform
from flsim.models.sampling import Trace as Trace

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
    prefix: Prefix | None = None
    """What they begin with alike, if that is read once; None if each is read whole."""

    @property
    def own(self) -> tuple[Tensor, Tensor]:
        """Ids and mask of the tokens that each prompt has beside the prefix, left-padded, `(K, P, M)` both."""
        if self.prefix is None:
            return self.ids, self.mask
        rest = self.prefix.rest
        place = self.mask.long().cumsum(-1)[..., -rest:]  # (K, P, M), from 1
        own = self.mask[..., -rest:] & (place > self.prefix.seen.sum(-1, keepdim=True))  # (K, P, M)
        return self.ids[..., -rest:], own

    @property
    def seen(self) -> Tensor:
        """True where a prompt's tokens lie among the columns of what was read, `(K, P, Z + M)`."""
        return self.mask if self.prefix is None else torch.cat([self.prefix.seen, self.own[1]], 2)

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

    def of(self, places: Sequence[Sequence[int]]) -> "Reading":
        """What was read of some of the prompts, by their places `[device][prompt]`, of any number of each device."""
        prompts, width = self.prompts, max(1, max(len(row) for row in places))
        filled = torch.tensor(
            [[*row, *[0] * (width - len(row))] for row in places], device=prompts.ids.device
        )  # (K, w)
        begins = torch.arange(len(places), device=filled.device)[:, None] * prompts.ids.shape[1]  # (K, 1)
        rows = (filled + begins).flatten()  # (K w,)

        def taken(of: Tensor) -> Tensor:
            found: Tensor = of.flatten(0, 1)[rows].unflatten(0, filled.shape)  # (K, w, ...)
            return found

        prefix = None if prompts.prefix is None else replace(prompts.prefix, seen=taken(prompts.prefix.seen))
        part = Prompts(taken(prompts.ids), taken(prompts.mask), tuple(len(row) for row in places), prefix)
        return Reading(part, self.past.at(rows), self.logits[rows], self.states[rows])


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
    """Decoded text without the ending token and what stands from a stop text on, `[device][prompt][completion]`, real
    prompts only; of one that asks its draft, what it said before the request, "" if nothing."""
    trace: Trace | None = None
    """None unless it was wanted."""
    offsets: Tensor | None = None
    """What was added to the logit of the help request for each token, by the surprise of what stood before it
    `(K, P, G, T)`; no gradient goes through it. None if nothing was."""
    resumed: Tensor | None = None
    """The place from which each one goes on by itself after its request, 0 if it does not, `(K, P, G)`; between the
    two lies what was put in, which is read and no part of `mask`. None if none goes on."""
    stopped: Tensor | None = None
    """True at tokens that completed a stop text and so ended their response, `(K, P, G, T)`; None where there are no
    stop texts."""
    cut: Tensor | None = None
    """True where a response reached the limit without an ending, `(K, P, G)`; None of what somebody else wrote."""

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
    prefix = prefix_of(tokens, base.shared_prefix) if base.shared_prefix else None
    prefix = None if prefix is None else prefix.to(device)
    return Prompts(torch.tensor(padded, device=device), mask.to(device), tuple(len(row) for row in tokens), prefix)


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
    """Read every prompt once, and what several begin with once for all of them."""
    first, past = base.forward.read(*prompts.own, prompts.prefix)
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
    """Generate `group_size` completions per prompt; one ends with an ending token, the help request, or a stop text.

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
    prompts, greedy, longest = reading.prompts, temperature <= 0, max_new_tokens
    noise = None if greedy else uniform(prompts.counts, prompts.ids.shape[1], group_size, longest, generators)  # (N, T)
    open_ = _open(prompts, help_bias, may_ask=may_ask)  # (K, P)
    rows = _Rows(base, prompts, group_size, longest)
    doubt = Doubt(base, surprise, open_, group_size, longest) if surprise and may_ask else None
    seen = Seen(reading.states.repeat_interleave(group_size, 0), longest, temperature) if traced else None
    bias = None if help_bias is None else help_bias.flatten().repeat_interleave(group_size)  # (N,)
    noise = None if noise is None else noise.to(prompts.ids.device)
    sampler = Sampler(base, noise, temperature, may_ask=may_ask, bias=bias, doubt=doubt, seen=seen)
    tokens = _decode(base, reading, rows, sampler)
    shape = (*prompts.ids.shape[:2], group_size, tokens)
    said = _finish(base, prompts, rows, shape, open_)
    said = said if doubt is None else replace(said, offsets=doubt.offsets(shape))
    return said if seen is None else replace(said, trace=seen.trace(shape))


def _decode(base: BaseModel, reading: Reading, rows: "_Rows", sampler: Sampler) -> int:
    """Fill the rows token by token; how many the longest got."""
    group_size, longest = rows.group_size, rows.longest
    decoder = base.forward.decoder(reading.prompts.seen, reading.past, group_size, longest)
    logits, states = (of.repeat_interleave(group_size, 0) for of in (reading.logits, reading.states))  # (n, V), (n, D)
    for t in range(longest):
        begun = max(0, t + 1 - max(1, len(base.help.ids)))  # where a request may have begun that would be complete now
        before = rows.tokens[rows.now, begun:t]  # (n, m)
        chosen, logprobs = sampler.draw(t, rows.now, rows.done, before, logits, states)  # (n,) each
        chosen = rows.add(t, begun, chosen, logprobs)  # (n,)
        left = rows.left()  # (K,)
        numbers = [] if t + 1 == longest else left.tolist()  # the one time per token that a GPU is waited for
        if not any(numbers):
            break
        places = rows.drop(left, numbers)
        if places is not None:
            chosen = chosen[places]
            decoder.keep(places)
        with nullcontext() if rows.counts is None else unequal(rows.counts):
            following = decoder.step(chosen)
        logits, states = following.logits, following.states
    return t + 1


class _Rows:
    """What has been said so far, `N = K P G` rows, of which n are decoded on."""

    def __init__(self, base: BaseModel, prompts: Prompts, group_size: int, longest: int) -> None:
        k, p, _ = prompts.ids.shape
        device = prompts.ids.device
        self._base, self._devices, self._each = base, k, p * group_size  # rows of one device
        self.group_size, self.longest = group_size, longest
        self.tokens = torch.full((k * self._each, longest), base.pad_id, device=device)  # (N, T)
        self.logprobs = torch.zeros(k * self._each, longest, device=device)  # (N, T)
        self.done = ~prompts.real.repeat_interleave(group_size, 1).flatten()  # (n,), of the rows that are decoded on
        self.now: Tensor | slice = slice(None)  # these, `(n,)`, device by device; all N at first
        self.counts: Tensor | None = None  # (K,), of the rows that are decoded on; None while they are equally many
        self.stopped = torch.zeros_like(self.tokens, dtype=torch.bool) if base.stops else None  # (N, T)

    def add(self, t: int, begun: int, chosen: Tensor, logprobs: Tensor) -> Tensor:
        """Token t as it is kept, `(n,)`: padding in rows that had ended; those end that it ends.

        Args:
            t: 0 for the first.
            begun: where a request may have begun that would be complete now.
            chosen: the tokens `(n,)`.
            logprobs: theirs `(n,)`.
        """
        ended = self.done  # (n,)
        self.logprobs[self.now, t] = logprobs.masked_fill(ended, 0.0)
        chosen = chosen.masked_fill(ended, self._base.pad_id)  # (n,)
        self.tokens[self.now, t] = chosen
        asked = self._base.help.completed(self.tokens[self.now, begun : t + 1])[:, -1]  # (n,)
        over = self._base.ends(chosen) | asked  # (n,)
        self.done = ended | over  # (n,)
        if self.stopped is not None:
            stopped = self._base.stops.met(self.tokens[self.now, : t + 1]) & ~ended & ~over  # (n,)
            self.stopped[self.now, t] = stopped
            self.done = self.done | stopped  # (n,)
        return chosen

    def left(self) -> Tensor:
        """How many rows of each device have not ended, `(K,)`."""
        going = ~self.done  # (n,)
        if self.counts is None:
            return going.view(self._devices, -1).sum(1)  # (K,)
        assert isinstance(self.now, Tensor), "unequal rows are fewer than all"
        return self.counts.new_zeros(self._devices).index_add_(0, self.now // self._each, going.long())  # (K,)

    def drop(self, left: Tensor, numbers: Sequence[int]) -> Tensor | None:
        """Go on without rows that have ended: which of the n are kept; None while too few have ended.

        Args:
            left: rows that have not, `(K,)`.
            numbers: the same.
        """
        shrunk = _unfinished(self.done, numbers, equal=self.counts is None)
        if shrunk is None:
            return None
        places, equal = shrunk
        self.now = self.now[places] if isinstance(self.now, Tensor) else places  # (n,)
        self.done, self.counts = self.done[places], None if equal else left
        return places


def _open(prompts: Prompts, help_bias: Tensor | None, *, may_ask: bool) -> Tensor:
    """True at prompts where a response may ask, `(K, P)`."""
    open_ = torch.full(prompts.ids.shape[:2], may_ask, device=prompts.ids.device)  # (K, P)
    return open_ if help_bias is None else open_ & ~help_bias.isneginf()  # (K, P)


def _refuse_short(base: BaseModel, max_new_tokens: int) -> None:
    if base.help.ids and base.help.least > max_new_tokens:
        what = "a draft and the help request" if base.help.least > len(base.help.ids) else "the help request"
        raise ValueError(
            f"max_new_tokens={max_new_tokens} is less than the {base.help.least} tokens of {what} "
            f"{base.help.text!r}; raise model.max_new_tokens (and client.max_new_tokens), or give a shorter model.help"
        )


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


def _finish(
    base: BaseModel, prompts: Prompts, rows: _Rows, shape: tuple[int, int, int, int], open_: Tensor
) -> Completions:
    """`shape` is `(K, P, G, T)`; `open_` `(K, P)` says where a response may ask."""
    tokens, logprobs = (of[:, : shape[-1]].view(shape) for of in (rows.tokens, rows.logprobs))  # (K, P, G, T) each
    stopped = None if rows.stopped is None else rows.stopped[:, : shape[-1]].view(shape)  # (K, P, G, T)
    over = base.ends(tokens) | base.help.completed(tokens)  # (K, P, G, T)
    ended = over if stopped is None else over | stopped  # (K, P, G, T)
    mask = ended.long().cumsum(-1) - ended.long() == 0  # everything up to and including the first end
    mask &= prompts.real[..., None, None]
    asked = (base.help.completed(tokens) & mask).any(-1)  # (K, P, G)
    words = tokens.masked_fill(~mask | over | base.help.held_by(tokens), base.pad_id)
    said = base.tokenizer.batch_decode(words[prompts.real].flatten(0, 1), skip_special_tokens=True)
    said = [base.stops.cut(text) for text in said] if base.stops else said
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
    cut = ~(ended.any(-1) | asked) & prompts.real[..., None]  # (K, P, G)
    return Completions(tokens, mask, logprobs, asked, texts, stopped=stopped, cut=cut)
