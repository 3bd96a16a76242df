"""The bare loop: the forward and backward passes of a round on token ids that are known beforehand, and nothing else.

Per step it reads every prompt once, with gradient; decodes token by token on the key-value cache, taking the argmax and
feeding the recorded tokens; drops rows that have ended; reads the completions on top of the prompts once more, with
gradient; goes backward; clips per device and steps Adam. There is no stream, tokenizer, random number, softmax of the
sampling, text, verdict, cloud, reward, advantage, ledger, note or device. What is fed, which rows go on, lengths,
masks, positions and the weight of every token in the loss are worked out before the clock starts.

`our_passes` runs the passes of flsim/models, `plain_passes` the model's own `forward` with a `DynamicCache`.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from flsim.learning.adam import Adam, AdamState
from flsim.models.base import BaseModel
from flsim.models.decoding import Completions, Prompts, read
from flsim.models.lora_linear import unequal
from flsim.models.scoring import pull_back
from flsim.models.stacked_lora import StackedLora


@dataclass(frozen=True)
class Fed:
    """One decoding step: after the first token, what each of the rows that go on reads."""

    keep: Tensor | None
    """Places of those rows among the ones so far; None if all go on."""
    tokens: Tensor
    """`(n,)`."""
    mask: Tensor
    """True at all tokens so far that count, this one included, `(n, L + t)`."""
    counts: Tensor | None
    """Rows of each device, `(K,)`; None if equal."""


@dataclass(frozen=True)
class Part:
    """Completions that are scored together, equally many of every prompt."""

    prompt: Tensor
    """The row of its prompt, `(n,)`."""
    tokens: Tensor
    """`(n, t)`."""
    mask: Tensor
    """True at the prompt's tokens and at the completion's, `(n, L + t)`."""
    weight: Tensor
    """Of every token's log-probability in the loss, `(n, t)`; zero after the end."""


@dataclass(frozen=True)
class Step:
    """One step of a pack, ready to be run."""

    prompts: Prompts
    completions: Completions
    weight: Tensor
    """`(K, P, G, T)`."""
    fed: tuple[Fed, ...]
    parts: tuple[Part, ...]
    """By length; for the plain passes only."""


Passes = Callable[[BaseModel, StackedLora, Step], Tensor]  # the gradient of one step, (K, n)


@dataclass(frozen=True)
class Layout:
    """What is free in the bare loop; whichever is fastest."""

    parts: int = 1
    """How many batches the plain passes score the completions in."""
    drop_at: float = 0.9
    """Rows that have ended are dropped once at most this share goes on."""
    waste: float = math.inf
    """Devices keep equally many rows as long as that makes at most so many times the rows that are needed."""


def prepare(prompts: Prompts, completions: Completions, weight: Tensor, layout: Layout) -> Step:
    """Lay out one step.

    Args:
        prompts: of a pack.
        completions: what was generated.
        weight: of every token's log-probability in the loss `(K, P, G, T)`.
        layout: how.
    """
    k, p, g, t = completions.tokens.shape
    lengths = completions.mask.sum(-1).view(k, p * g)  # (K, P G)
    seen = torch.cat([prompts.mask[:, :, None].expand(-1, -1, g, -1), completions.mask], -1)  # (K, P, G, L + T)
    seen, tokens = seen.flatten(0, 2), completions.tokens.flatten(0, 2)
    scored = []
    for chunk in lengths.view(k * p, g).argsort(dim=1, stable=True).chunk(layout.parts, dim=1):
        rows = (chunk + torch.arange(k * p)[:, None] * g).flatten()  # (n,)
        longest = int(lengths.flatten()[rows].max())
        mask = seen[rows, : seen.shape[1] - t + longest]
        pull = (weight * completions.mask).flatten(0, 2)[rows, :longest]
        scored.append(Part(rows // g, tokens[rows, :longest], mask, pull))
    return Step(prompts, completions, weight, _schedule(tokens, seen, lengths, layout), tuple(scored))


def _schedule(tokens: Tensor, seen: Tensor, lengths: Tensor, layout: Layout) -> tuple[Fed, ...]:
    """What is fed to which rows, token after token."""
    k, t = len(lengths), tokens.shape[1]
    rows, counts = torch.arange(len(tokens)), None  # (n,), those that go on, device by device
    device = rows // (len(tokens) // k)  # (rows,)
    fed = []
    for time in range(t - 1):
        going = lengths.flatten()[rows] > time + 1  # (n,)
        left = torch.bincount(device[rows[going]], minlength=k)  # (K,)
        padded = k * int(left.max())
        equal = counts is None and padded <= layout.waste * int(left.sum())
        keep = None
        if (padded if equal else int(left.sum())) <= layout.drop_at * len(rows):
            keep = _first(going.view(k, -1), padded // k) if equal else going.nonzero()[:, 0]
            rows, counts = rows[keep], None if equal else left
        fed.append(Fed(keep, tokens[rows, time], seen[rows, : seen.shape[1] - t + time + 1], counts))
    return tuple(fed)


def _first(going: Tensor, most: int) -> Tensor:
    """Places of `most` rows of each device, those that go on first, from `(K, n)`."""
    order = (~going).int().argsort(dim=1, stable=True)[:, :most]  # (K, most)
    return (order + torch.arange(len(going))[:, None] * going.shape[1]).flatten()


def bare_round(
    passes: Passes,
    base: BaseModel,
    lora: StackedLora,
    adam: Adam,
    theta: Tensor,
    moments: AdamState,
    steps: Sequence[Step],
) -> None:
    """A round of a pack; `theta` `(K, n)` and `moments` are changed in place."""
    for step in steps:
        lora.attach(theta, train=True)
        adam.step(theta, passes(base, lora, step), moments)


def our_passes(base: BaseModel, lora: StackedLora, step: Step) -> Tensor:
    """One step by the passes of flsim/models."""
    reading = read(base, step.prompts)
    group = step.completions.tokens.shape[2]
    with torch.no_grad():
        decoder = base.forward.decoder(step.prompts.seen, reading.past, group, len(step.fed))
        reading.logits.repeat_interleave(group, 0).argmax(-1)
        for fed in step.fed:
            if fed.keep is not None:
                decoder.keep(fed.keep)
            with nullcontext() if fed.counts is None else unequal(fed.counts):
                decoder.step(fed.tokens).logits.argmax(-1)
    return pull_back(base, lora, reading, step.completions, step.weight, temperature=1.0)


def plain_passes(base: BaseModel, lora: StackedLora, step: Step) -> Tensor:
    """One step by the model's own `forward`."""
    ids, mask = step.prompts.ids.flatten(0, 1), step.prompts.mask.flatten(0, 1)  # (m, L)
    group = step.completions.tokens.shape[2]
    cache = DynamicCache()
    logits = _forward(base, ids, mask, cache)[:, -1]  # (m, V)
    read: list[Tensor] = [getattr(layer, name) for layer in cache.layers for name in ("keys", "values")]
    with torch.no_grad():
        own = _cache([tensor.repeat_interleave(group, 0) for tensor in read])
        logits.repeat_interleave(group, 0).argmax(-1)
        for fed in step.fed:
            if fed.keep is not None:
                own.batch_select_indices(fed.keep)
            with nullcontext() if fed.counts is None else unequal(fed.counts):
                _forward(base, fed.tokens[:, None], fed.mask, own).argmax(-1)
    leaves = [tensor.detach().requires_grad_() for tensor in (*read, logits)]  # their graph is walked once, at the end
    for part in step.parts:
        scores = leaves[-1][part.prompt, None]  # (n, 1, V)
        if part.tokens.shape[1] > 1:
            shared = _cache([leaf[part.prompt] for leaf in leaves[:-1]])
            scores = torch.cat([scores, _forward(base, part.tokens[:, :-1], part.mask[:, :-1], shared)], 1)  # (n, t, V)
        logprobs = torch.log_softmax(scores, -1).gather(-1, part.tokens[..., None])[..., 0]  # (n, t)
        logprobs.backward(part.weight)
    used = [(tensor, leaf.grad) for tensor, leaf in zip((*read, logits), leaves, strict=True) if leaf.grad is not None]
    torch.autograd.backward([tensor for tensor, _ in used], [gradient for _, gradient in used])
    return lora.gradient()


def _forward(base: BaseModel, ids: Tensor, mask: Tensor, cache: DynamicCache) -> Tensor:
    """Logits `(n, T, V)` of tokens `(n, T)` after those in the cache; only the last if the cache is empty."""
    logits: Tensor = base.model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :],
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=0 if cache.layers else 1,
    ).logits
    return logits


def _cache(tensors: Sequence[Tensor]) -> DynamicCache:
    """Keys and values, layer by layer."""
    cache = DynamicCache()
    for number, (keys, values) in enumerate(zip(tensors[::2], tensors[1::2], strict=True)):
        cache.update(keys, values, number)
    return cache
