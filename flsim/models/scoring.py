"""Log-probabilities of completions, and the pull of any loss on the adapters through them, in bounded memory.

A loss of policy optimisation is a function of the log-probabilities of the sampled tokens. On policy these are known
from the sampling, so its gradient with respect to them is known before any second forward pass; `pull_back` carries it
on to the adapters, some completions at a time: one forward and one backward in all, however the loss looks.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from flsim.models.base import BaseModel
from flsim.models.decoding import Completions, Reading
from flsim.models.stacked_lora import StackedLora

TOKENS = 2**15
"""Most tokens of completions in one forward pass, unless one completion per prompt has more."""
_LOGITS = 2**28  # most numbers of a pass's logits, 1 GiB: with a large vocabulary they, not the tokens, fill the memory


def score(
    base: BaseModel, reading: Reading, completions: Completions, *, temperature: float, tokens: int = TOKENS
) -> Tensor:
    """Log-probabilities `(K, P, G, T)` of the completions' tokens, with gradient if any; zero after the end."""
    parts = (slice_ for slice_ in _parts(completions, tokens))
    return torch.cat([_score(base, reading, completions, part, temperature) for part in parts], 2)


def pull_back(
    base: BaseModel,
    lora: StackedLora,
    reading: Reading,
    completions: Completions,
    pull: Tensor,
    *,
    temperature: float,
    tokens: int = TOKENS,
) -> Tensor:
    """The gradient `(K, n)` of a loss from its gradient `pull` `(K, P, G, T)` with respect to the log-probabilities.

    Args:
        base: the model; `lora.learn` was called with the pack's adapters before `reading` was made.
        lora: the pack's adapters.
        reading: the prompts, read with gradient; its graph is used up.
        completions: what the log-probabilities belong to.
        pull: gradient of the summed per-device losses; what it holds after the end of a completion is ignored.
        temperature: of the sampling.
        tokens: most tokens of completions in one forward pass; fewer need less memory.
    """
    read = [*reading.past.tensors, reading.logits]
    # the prompts' graph is walked once, at the end; keys below the first adapter have none
    leaves = [tensor.detach().requires_grad_(tensor.requires_grad) for tensor in read]
    shared = Reading(reading.prompts, reading.past.of(tuple(leaves[:-1])), leaves[-1])
    pull = pull * completions.mask  # (K, P, G, T)
    silent = (pull == 0).all(-1, keepdim=True)  # (K, P, G, 1): all of a unanimous group, for instance
    completions = replace(completions, mask=completions.mask & ~silent)  # they pull nothing, so they need no pass
    tokens = min(tokens, _LOGITS // reading.logits.shape[-1])
    for part in _parts(completions, tokens):
        _score(base, shared, completions, part, temperature).backward(pull[:, :, part])
    used = [(tensor, leaf.grad) for tensor, leaf in zip(read, leaves, strict=True) if leaf.grad is not None]
    torch.autograd.backward([tensor for tensor, _ in used], [gradient for _, gradient in used])
    return lora.gradient()


def _parts(completions: Completions, tokens: int) -> Iterator[slice]:
    """Which completions of every prompt to score together."""
    k, p, g, t = completions.tokens.shape
    size = max(1, min(g, tokens // (k * p * t)))
    return (slice(start, start + size) for start in range(0, g, size))


def _score(base: BaseModel, reading: Reading, completions: Completions, part: slice, temperature: float) -> Tensor:
    """Log-probabilities `(K, P, g, T)` of g completions of every prompt."""
    ids, mask = completions.tokens[:, :, part], completions.mask[:, :, part]  # (K, P, g, T)
    k, p, g, t = ids.shape
    later = ids[..., 1:].flatten()  # what follows each token but the last

    def judge(logits: Tensor, places: Tensor) -> Tensor:
        return _logprobs(logits, later[places], temperature)

    first = reading.logits.repeat_interleave(g, 0)  # (K P g, V)
    begun = _logprobs(first, ids[..., 0].flatten(), temperature).view(k, p, g, 1) * mask[..., :1]
    if t == 1:
        return begun
    known, counts = ids[..., :-1].flatten(1, 2), mask[..., 1:].flatten(1, 2)  # (K, P g, T - 1): read if one follows
    rest = base.forward.follow(known, counts, reading.prompts.mask, reading.past, judge)
    return torch.cat([begun, rest.view(k, p, g, t - 1)], -1)


def _logprobs(logits: Tensor, tokens: Tensor, temperature: float) -> Tensor:
    """Log-probabilities `(n,)` of tokens `(n,)` under logits `(n, V)`."""
    logits = logits.float() / temperature if temperature > 0 else logits.float()
    return torch.log_softmax(logits, -1).gather(-1, tokens[:, None])[:, 0]
