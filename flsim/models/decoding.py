"""Sample completions for a pack of devices, and score them: prompts are encoded once and shared by their group.

Shapes: K devices, P prompts per device (padded to the longest list), G completions per prompt, T new tokens. All rows
of one device lie side by side, as `StackedLora` needs them. Works with any Hugging Face decoder-only model that takes
a `DynamicCache`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from flsim.models.base import BaseModel


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
        return torch.arange(self.ids.shape[1]) < torch.tensor(self.counts)[:, None]  # (K, P)


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
    """Decoded text without the ending token, `[device][prompt][completion]`, real prompts only."""


def encode(base: BaseModel, questions: Sequence[Sequence[str]]) -> Prompts:
    """Tokenise each device's questions; devices may have unequal numbers, a device with none gets filling only."""
    width = max(1, max(len(row) for row in questions))
    ids = [[base.tokenizer(q)["input_ids"] for q in row] + [[base.eos_id]] * (width - len(row)) for row in questions]
    length = max(len(prompt) for row in ids for prompt in row)
    padded = [[[base.pad_id] * (length - len(prompt)) + prompt for prompt in row] for row in ids]
    lengths = torch.tensor([[len(prompt) for prompt in row] for row in ids])  # (K, P)
    mask = torch.arange(length) >= (length - lengths)[:, :, None]  # (K, P, L)
    return Prompts(torch.tensor(padded), mask, tuple(len(row) for row in questions))


@torch.no_grad()
def generate(
    base: BaseModel,
    prompts: Prompts,
    *,
    group_size: int,
    max_new_tokens: int,
    temperature: float,
    generators: Sequence[torch.Generator] | None = None,
    may_ask: bool = True,
) -> Completions:
    """Generate `group_size` completions per prompt; a completion ends with `<eos>` or the help request.

    A device's tokens depend on its own generator and prompts only, never on who shares its pack.

    Args:
        base: the model, with the pack's adapters in use.
        prompts: the pack's prompts.
        group_size: G.
        max_new_tokens: longest completion, the ending token included.
        temperature: of the sampling; 0 means greedy.
        generators: one per device; needed unless greedy.
        may_ask: False forbids the help request, so that the device answers alone.
    """
    k, p, _ = prompts.ids.shape
    rows = k * p * group_size
    noise = _uniform(prompts, group_size, max_new_tokens, generators) if temperature > 0 else None
    cache, logits, positions, attended = _read_prompts(base, prompts, group_size)
    tokens = torch.full((rows, max_new_tokens), base.pad_id)
    logprobs = torch.zeros(rows, max_new_tokens)
    done = torch.zeros(rows, dtype=torch.bool)
    for t in range(max_new_tokens):
        if not may_ask:
            logits[:, base.help_id] = -torch.inf
        scores = torch.log_softmax(logits / temperature if temperature > 0 else logits, -1)  # (rows, V)
        chosen = scores.argmax(-1) if noise is None else _draw(scores, noise[:, t])  # (rows,)
        logprobs[:, t] = scores.gather(-1, chosen[:, None])[:, 0].masked_fill(done, 0.0)
        chosen = chosen.masked_fill(done, base.pad_id)
        tokens[:, t] = chosen
        done |= (chosen == base.eos_id) | (chosen == base.help_id)
        if t + 1 == max_new_tokens or bool(done.all()):
            break
        attended = torch.cat([attended, torch.ones(rows, 1, dtype=torch.bool)], 1)  # (rows, L + t + 1)
        logits = _step(base, chosen[:, None], cache, positions + t, attended)  # (rows, V)
    shape = (k, p, group_size, t + 1)
    return _finish(base, prompts, tokens[:, : t + 1].view(shape), logprobs[:, : t + 1].view(shape))


def score(base: BaseModel, prompts: Prompts, completions: Completions, *, temperature: float) -> Tensor:
    """Log-probabilities `(K, P, G, T)` of the completions' tokens, with gradient; zero after the end."""
    k, p, g, t = completions.tokens.shape
    cache, first, positions, attended = _read_prompts(base, prompts, g)  # first: (rows, V)
    tokens = completions.tokens.view(-1, t)  # (rows, T)
    logits = first[:, None]  # (rows, 1, V)
    if t > 1:
        attended = torch.cat([attended, completions.mask.view(-1, t)[:, :-1]], 1)  # (rows, L + T - 1)
        later = base.model(
            input_ids=tokens[:, :-1],
            attention_mask=attended,
            position_ids=positions[:, None] + torch.arange(t - 1),
            past_key_values=cache,
        ).logits  # (rows, T - 1, V)
        logits = torch.cat([logits, later], 1)  # (rows, T, V)
    scores = torch.log_softmax(logits / temperature if temperature > 0 else logits, -1)  # (rows, T, V)
    taken = scores.gather(-1, tokens[..., None])[..., 0].view(k, p, g, t)  # (K, P, G, T)
    return taken * completions.mask


def _read_prompts(base: BaseModel, prompts: Prompts, group_size: int) -> tuple[DynamicCache, Tensor, Tensor, Tensor]:
    """Encode every prompt once, then repeat it for its group: (cache, last logits, next positions, attention mask)."""
    length = prompts.ids.shape[-1]
    mask = prompts.mask.view(-1, length)  # (K * P, L)
    positions = (mask.long().cumsum(1) - 1).clamp(min=0)  # (K * P, L)
    cache = DynamicCache()
    logits = base.model(
        input_ids=prompts.ids.view(-1, length),
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]  # (K * P, V)
    cache.batch_repeat_interleave(group_size)
    return (
        cache,
        logits.repeat_interleave(group_size, 0),  # (rows, V)
        (positions[:, -1] + 1).repeat_interleave(group_size, 0),  # (rows,)
        mask.repeat_interleave(group_size, 0),  # (rows, L)
    )


def _step(base: BaseModel, chosen: Tensor, cache: DynamicCache, positions: Tensor, attended: Tensor) -> Tensor:
    logits: Tensor = base.model(
        input_ids=chosen,
        attention_mask=attended,
        position_ids=positions[:, None],
        past_key_values=cache,
        use_cache=True,
    ).logits[:, -1]  # (rows, V)
    return logits


def _uniform(prompts: Prompts, group_size: int, steps: int, generators: Sequence[torch.Generator] | None) -> Tensor:
    """Numbers in (0, 1], `(rows, T)`: each device draws for its own real prompts only."""
    if generators is None or len(generators) != len(prompts.counts):
        raise ValueError(f"sampling needs one generator per device, {len(prompts.counts)} of them")
    p = prompts.ids.shape[1]
    noise = torch.ones(len(prompts.counts), p * group_size, steps)
    for row, (count, source) in enumerate(zip(prompts.counts, generators, strict=True)):
        noise[row, : count * group_size] = 1.0 - torch.rand(count * group_size, steps, generator=source)
    return noise.view(-1, steps)


def _draw(scores: Tensor, uniform: Tensor) -> Tensor:
    """Inverse-CDF sampling: one uniform number per row; a token of probability zero is never chosen."""
    cumulative = scores.exp().double().cumsum(-1)  # (rows, V)
    threshold = uniform.double() * cumulative[:, -1]  # (rows,)
    return torch.searchsorted(cumulative, threshold[:, None])[:, 0].clamp(max=scores.shape[-1] - 1)


def _finish(base: BaseModel, prompts: Prompts, tokens: Tensor, logprobs: Tensor) -> Completions:
    ended = (tokens == base.eos_id) | (tokens == base.help_id)  # (K, P, G, T)
    mask = ended.long().cumsum(-1) - ended.long() == 0  # everything up to and including the first end
    asked = ((tokens == base.help_id) & mask).any(-1) & prompts.real[..., None]  # (K, P, G)
    words = tokens.masked_fill(~mask | ended, base.pad_id)
    texts = [
        [base.tokenizer.batch_decode(words[row, prompt], skip_special_tokens=True) for prompt in range(count)]
        for row, count in enumerate(prompts.counts)
    ]
    return Completions(tokens, mask, logprobs, asked, texts)
