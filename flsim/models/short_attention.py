"""Attention over a few dozen tokens as plain products, with its gradient by hand (see `flsim/models/llama.py`)."""

from collections.abc import Sequence

import torch
from torch import Tensor

Segment = tuple[Tensor, Tensor]
"""Keys and values `(m H, L, d)` of m rows."""


def attend(query: Tensor, segments: Sequence[Segment], bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Softmax attention over segments laid end to end, `(n, H, T, d)`, and its weights `(n, H, T, L)`.

    Args:
        query: `(n, H, T, d)`, scaled.
        segments: row i meets row `i // (n / m)` of each.
        bias: `(n, 1, T, L)`; None is zero.
    """
    n, heads, t, _ = query.shape
    scores = [unfolded(torch.bmm(folded(query, k.shape[0]), k.transpose(1, 2)), n, heads, t) for k, _ in segments]
    total = torch.cat(scores, -1) if len(scores) > 1 else scores[0]  # (n, H, T, L)
    weights = torch.softmax(total if bias is None else total.add_(bias), -1)  # (n, H, T, L)
    if len(segments) == 1:
        return unfolded(torch.bmm(folded(weights, segments[0][1].shape[0]), segments[0][1]), n, heads, t), weights
    mixed = None
    for part, (_, v) in zip(weights.split([k.shape[1] for k, _ in segments], -1), segments, strict=True):
        own = unfolded(torch.bmm(folded(part, v.shape[0]), v), n, heads, t)  # (n, H, T, d)
        mixed = own if mixed is None else mixed.add_(own)  # (n, H, T, d)
    assert mixed is not None
    return mixed, weights


def pull_attend(g: Tensor, query: Tensor, segments: Sequence[Segment], weights: Tensor) -> tuple[Tensor, list[Segment]]:
    """The gradients of the queries, and of the keys and values of every segment, from g `(n, H, T, d)`.

    Args:
        g: gradient of what `attend` gave.
        query: what it was given, as `segments`.
        segments: keys and values.
        weights: what it gave besides.
    """
    n, heads, t, _ = query.shape
    lengths = [k.shape[1] for k, _ in segments]
    of_weights, of_values = [], []
    for part, (_, v) in zip(_split(weights, lengths), segments, strict=True):
        own = folded(g, v.shape[0])  # (m H, *, d)
        of_weights.append(unfolded(torch.bmm(own, v.transpose(1, 2)), n, heads, t))  # (n, H, T, L_i)
        of_values.append(torch.bmm(folded(part, v.shape[0]).transpose(1, 2), own))  # (m H, L_i, d)
    every = torch.cat(of_weights, -1) if len(of_weights) > 1 else of_weights[0]  # (n, H, T, L)
    scores = torch._softmax_backward_data(every, weights, -1, weights.dtype)
    of_query, of_keys = None, []
    for part, (k, _) in reversed(list(zip(_split(scores, lengths), segments, strict=True))):  # as autograd does
        own = folded(part, k.shape[0])  # (m H, *, L_i)
        more = unfolded(torch.bmm(own, k), n, heads, t)  # (n, H, T, d)
        of_query = more if of_query is None else of_query.add_(more)
        of_keys.append(torch.bmm(folded(query, k.shape[0]).transpose(1, 2), own).transpose(1, 2))  # (m H, L_i, d)
    assert of_query is not None
    return of_query, list(zip(reversed(of_keys), of_values, strict=True))


def _split(weights: Tensor, lengths: Sequence[int]) -> Sequence[Tensor]:
    return weights.split(lengths, -1) if len(lengths) > 1 else (weights,)


def folded(x: Tensor, blocks: int) -> Tensor:
    """The rows of x `(n, H, T, e)` that meet one of m rows, side by side: `(m H, n / m * T, e)`.

    Args:
        x: of the queries' rows.
        blocks: m H.
    """
    n, heads, t, e = x.shape
    if n * heads == blocks:
        return x.reshape(blocks, t, e)
    share = n * heads // blocks
    return x.reshape(n // share, share, heads, t, e).transpose(1, 2).reshape(blocks, share * t, e)


def unfolded(x: Tensor, n: int, heads: int, t: int) -> Tensor:
    """The inverse of `folded`: `(n, H, T, e)`."""
    blocks, _, e = x.shape
    if n * heads == blocks:
        return x.view(n, heads, t, e)
    share = n * heads // blocks
    return x.view(n // share, heads, share, t, e).transpose(1, 2).reshape(n, heads, t, e)
