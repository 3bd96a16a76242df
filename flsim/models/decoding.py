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
from transformers.cache_utils import DynamicLayer

from flsim.models.base import BaseModel

_PARTS = 4  # of a scoring pass, by length of the completions
_SHRINK_AT = 0.75  # decoding drops finished rows once at most this share is unfinished


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
    rows = p * group_size  # of one device
    noise = _uniform(prompts, group_size, max_new_tokens, generators) if temperature > 0 else None  # (K * rows, T)
    tokens = torch.full((k * rows, max_new_tokens), base.pad_id)
    logprobs = torch.zeros(k * rows, max_new_tokens)
    done = ~prompts.real.repeat_interleave(group_size, 1).flatten()  # (K * rows,)
    kept = torch.arange(k * rows).view(k, rows)  # rows that are still decoded, equally many of each device
    state = _read(base, prompts).take(kept.flatten() // group_size)
    for t in range(max_new_tokens):
        if not may_ask:
            state.logits[:, base.help_id] = -torch.inf
        now = kept.flatten()
        scores = torch.log_softmax(state.logits / temperature if temperature > 0 else state.logits, -1)  # (n, V)
        chosen = scores.argmax(-1) if noise is None else _draw(scores, noise[now, t])  # (n,)
        logprobs[now, t] = scores.gather(-1, chosen[:, None])[:, 0].masked_fill(done[now], 0.0)
        chosen = chosen.masked_fill(done[now], base.pad_id)
        tokens[now, t] = chosen
        done[now] |= (chosen == base.eos_id) | (chosen == base.help_id)
        if t + 1 == max_new_tokens or bool(done.all()):
            break
        places = _unfinished(done[kept])  # (K, fewer)
        if places is not None:
            flat = (places + torch.arange(k)[:, None] * kept.shape[1]).flatten()
            kept, state, chosen = kept.gather(1, places), state.take(flat), chosen[flat]
        state = _read_token(base, state, chosen)
    shape = (k, p, group_size, t + 1)
    return _finish(base, prompts, tokens[:, : t + 1].view(shape), logprobs[:, : t + 1].view(shape))


def score(base: BaseModel, prompts: Prompts, completions: Completions, *, temperature: float) -> Tensor:
    """Log-probabilities `(K, P, G, T)` of the completions' tokens, with gradient; zero after the end.

    Every device's rows are sorted by length and scored in a few parts, so that short completions are not padded to the
    longest.
    """
    k, p, g, t = completions.tokens.shape
    tokens, mask = completions.tokens.view(-1, t), completions.mask.view(-1, t)  # (rows, T)
    lengths = mask.sum(-1).view(k, p * g)  # (K, P G)
    order = lengths.argsort(dim=1, stable=True) + torch.arange(k)[:, None] * p * g  # (K, P G)
    read = _read(base, prompts)
    result = torch.zeros(k * p * g, t)
    for part in order.chunk(_PARTS, dim=1):
        rows = part.flatten()
        longest = int(mask[rows].sum(-1).max())
        if longest > 0:
            taken = _score_rows(base, read.take(rows // g), tokens[rows, :longest], mask[rows, :longest], temperature)
            result = result.index_put((rows[:, None], torch.arange(longest)), taken)  # (rows, T)
    return (result * mask).view(k, p, g, t)


def _score_rows(base: BaseModel, state: "_State", tokens: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """Log-probabilities of the tokens `(n, T)` that follow what `state` has read."""
    logits = state.logits[:, None]  # (n, 1, V)
    t = tokens.shape[1]
    if t > 1:
        later = base.model(
            input_ids=tokens[:, :-1],
            attention_mask=torch.cat([state.attended, mask[:, :-1]], 1),  # (n, L + T - 1)
            position_ids=state.positions[:, None] + torch.arange(t - 1),
            past_key_values=state.cache,
        ).logits  # (n, T - 1, V)
        logits = torch.cat([logits, later], 1)  # (n, T, V)
    scores = torch.log_softmax(logits / temperature if temperature > 0 else logits, -1)  # (n, T, V)
    return scores.gather(-1, tokens[..., None])[..., 0]  # (n, T)


@dataclass(frozen=True)
class _State:
    """What has been read so far, row by row."""

    cache: DynamicCache
    logits: Tensor
    """Of the next token, `(n, V)`."""
    positions: Tensor
    """Of the next token, `(n,)`."""
    attended: Tensor
    """True at the cached tokens that count, `(n, L)`."""

    def take(self, rows: Tensor) -> "_State":
        """Some rows, in any order and any number of times; the cache is copied, with its gradient."""
        cache = DynamicCache()
        for number, layer in enumerate(self.cache.layers):
            if not isinstance(layer, DynamicLayer) or layer.keys is None or layer.values is None:
                raise TypeError(f"decoding needs a model with key-value attention in every layer, found {type(layer)}")
            cache.update(layer.keys[rows], layer.values[rows], number)
        return _State(cache, self.logits[rows], self.positions[rows], self.attended[rows])


def _read(base: BaseModel, prompts: Prompts) -> _State:
    """Encode every prompt once: a state of K * P rows."""
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
    return _State(cache, logits, positions[:, -1] + 1, mask)


def _read_token(base: BaseModel, state: _State, chosen: Tensor) -> _State:
    """Read one more token `(n,)` per row; the state's cache grows in place."""
    attended = torch.cat([state.attended, torch.ones(len(chosen), 1, dtype=torch.bool)], 1)  # (n, L + 1)
    logits = base.model(
        input_ids=chosen[:, None],
        attention_mask=attended,
        position_ids=state.positions[:, None],
        past_key_values=state.cache,
        use_cache=True,
    ).logits[:, -1]  # (n, V)
    return _State(state.cache, logits, state.positions + 1, attended)


def _unfinished(done: Tensor) -> Tensor | None:
    """Places of the rows worth decoding on, `(K, fewer)`, from `done` `(K, n)`; None while too few have ended.

    Each device keeps as many rows as the one with the most unfinished ones.
    """
    most = int((~done).sum(1).max())
    if most > _SHRINK_AT * done.shape[1]:
        return None
    return done.long().argsort(dim=1, stable=True)[:, :most]  # (K, most)


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
    mask &= prompts.real[..., None, None]
    asked = ((tokens == base.help_id) & mask).any(-1)  # (K, P, G)
    words = tokens.masked_fill(~mask | ended, base.pad_id)
    texts = [
        [base.tokenizer.batch_decode(words[row, prompt], skip_special_tokens=True) for prompt in range(count)]
        for row, count in enumerate(prompts.counts)
    ]
    return Completions(tokens, mask, logprobs, asked, texts)
