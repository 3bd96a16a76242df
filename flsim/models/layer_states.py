"""The hidden states of any decoder after some of its layers, at the tokens of answers that are given.

By the model's own forward on whole sequences, so that it is the same for every architecture, and with adapters and
gradient where they are in use. Layers count from 1; what the last one gives is taken after the model's last
normalisation, as the output layer reads it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from flsim.models.base import BaseModel
from flsim.models.memory import bytes_kept

TOKENS = 2**15
"""Most tokens of a pass, filling included, unless one sequence has more."""


def depth_of(base: BaseModel) -> int:
    """How many layers it has."""
    layers: int = base.model.config.get_text_config().num_hidden_layers
    return layers


def layer_states(
    base: BaseModel, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], layers: Sequence[int]
) -> Tensor:
    """The states that the answers' tokens are drawn from: each at the token before it, with gradient if any.

    Law: those of one answer do not depend on the others but for rounding, nor on what follows in it.

    Args:
        base: the model, with the adapters in use of one device, if any.
        prompts: tokens of each, at least one.
        answers: tokens of each, the ending one included.
        layers: from 1 to `depth_of`; S of them.

    Returns:
        `(S, N, D)`: of all tokens of all answers one after another, N of them.
    """
    rows = [[*prompt, *answer[:-1]] for prompt, answer in zip(prompts, answers, strict=True)]
    longest = max(len(row) for row in rows)
    padded = torch.tensor([[*row, *[base.pad_id] * (longest - len(row))] for row in rows])  # (n, L)
    lengths = torch.tensor([[len(row)] for row in rows])  # (n, 1)
    starts = torch.tensor([[len(prompt) - 1] for prompt in prompts])  # (n, 1)
    ends = starts + torch.tensor([[len(answer)] for answer in answers])  # (n, 1)
    place = torch.arange(longest)  # (L,)
    kept = (place >= starts) & (place < ends)  # (n, L)
    device = base.model.device
    found = base.model.base_model(
        input_ids=padded.to(device),
        attention_mask=(place < lengths).long().to(device),
        output_hidden_states=True,
        use_cache=False,
    ).hidden_states  # (n, L, D) each: the embeddings, then every layer's
    return torch.stack([found[layer][kept.to(device)] for layer in layers])  # (S, N, D)


def passes(base: BaseModel, lengths: Sequence[int]) -> list[slice]:
    """Which sequences to read at once so that what they keep for the backward fits; `lengths` are theirs, in tokens."""
    most = TOKENS if base.graph is None else min(TOKENS, base.graph // bytes_kept(base.model))
    size = max(1, most // max(lengths))
    return [slice(start, start + size) for start in range(0, len(lengths), size)]
