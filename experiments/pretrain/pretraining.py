"""What pretraining shares: rows in buckets of like length, and the loop over them."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

_BUCKETS = 4  # a batch is cut by length into buckets: 1.5 times fewer padded tokens
_WARMUP_STEPS = 30
_FLAT_SHARE = 0.5  # the learning rate is constant for this share of the steps, then falls linearly to 2 %

Bucket = tuple[Tensor, Tensor]
"""Token ids and labels, both `(B / 4, T)`; -100 is no label."""


def fresh_model(
    tokenizer: PreTrainedTokenizerFast, *, seed: int, width: int, layers: int, heads: int, longest: int
) -> LlamaForCausalLM:
    """A Llama that knows nothing yet, for texts of up to `longest` tokens; sets torch's seed."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=3 * width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            max_position_embeddings=longest,
            tie_word_embeddings=False,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )


def labelled_rows(rows: Sequence[tuple[list[int], int]], pad_id: int) -> Iterator[Bucket]:
    """One batch as buckets of like length.

    Args:
        rows: B token ids, and the place from which on they are labelled.
        pad_id: fills the rest of a row.
    """
    ordered = sorted(rows, key=lambda row: len(row[0]))
    size = len(rows) // _BUCKETS
    for start in range(0, len(rows), size):
        bucket = ordered[start : start + size]
        width = max(len(ids) for ids, _ in bucket)
        tokens = torch.full((size, width), pad_id)  # (B / 4, T)
        labels = torch.full((size, width), -100)  # (B / 4, T)
        for row, (ids, first) in enumerate(bucket):
            tokens[row, : len(ids)] = torch.tensor(ids)
            labels[row, first : len(ids)] = torch.tensor(ids[first:])
        yield tokens, labels


def learning_rate_factor(step: int, steps: int) -> float:
    """Warm-up, a flat half, then a linear fall to 2 %."""
    left = (steps - step) / steps
    return min(1.0, (step + 1) / _WARMUP_STEPS) * min(1.0, max(0.02, left / (1 - _FLAT_SHARE)))


def fit(
    model: LlamaForCausalLM,
    batch: Callable[[int], Sequence[Bucket]],
    *,
    steps: int,
    rates: tuple[float, float],
    name: str,
) -> None:
    """Train `model` in place with cross-entropy on the labels, then round it to half precision.

    Muon (Jordan et al. 2024, `torch.optim.Muon`) for the matrices of the layers, AdamW for the rest.

    Args:
        model: fresh, or as an earlier stage left it.
        batch: the buckets of a step, a pure function of its number from 0.
        steps: how many.
        rates: the highest learning rates of Muon and AdamW.
        name: for the progress bar.
    """
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and ".layers." in name]
    rest = [p for name, p in model.named_parameters() if not (p.ndim == 2 and ".layers." in name)]
    optimizers: list[tuple[torch.optim.Optimizer, float]] = [
        (torch.optim.Muon(matrices, lr=rates[0], weight_decay=0.01), rates[0]),
        (torch.optim.AdamW(rest, lr=rates[1], betas=(0.9, 0.98), weight_decay=0.01), rates[1]),
    ]
    bar = tqdm(range(steps), desc=f"pretrain {name}", unit="step", mininterval=1.0)
    smooth = None
    for step in bar:
        loss = backward(model, batch(step))
        for optimizer, lr in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr * learning_rate_factor(step, steps)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        smooth = loss if smooth is None else 0.95 * smooth + 0.05 * loss
        bar.set_postfix(loss=f"{smooth:.3f}", refresh=False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half())


def backward(model: nn.Module, buckets: Sequence[Bucket]) -> float:
    """Add the gradient of the mean loss per labelled token; returns that loss."""
    labelled = sum(int((labels != -100).sum()) for _, labels in buckets)
    total = 0.0
    for tokens, labels in buckets:
        logits = model(input_ids=tokens).logits[:, :-1]  # (B / 4, T - 1, V)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="sum") / labelled
        loss.backward()
        total += loss.item()
    return total
