"""Drawing a token by one uniform number, so that two models that share the number draw alike as far as they agree.

The token is the first one at which the cumulated probability reaches the number, its inverse CDF. Who draws by logits
that differ by rounding draws the same token, unless the number lies that near to an end of the token's interval.
"""

import torch
from torch import Tensor

_AT_ONCE = 2**21  # numbers of `draw` that are in float64 at a time


def draw(scores: Tensor, uniforms: Tensor) -> Tensor:
    """One token of each row, `(n,)`; one of probability zero is never chosen.

    Some rows at a time: float64 of all words of all rows is more than a cache holds, and with large vocabularies a lot.

    Args:
        scores: logarithms of what the tokens weigh, `(n, V)`; they need not add up to 1.
        uniforms: in (0, 1], `(n,)`.
    """
    rows = max(1, _AT_ONCE // scores.shape[-1])
    if len(scores) <= rows:
        return _draw_rows(scores, uniforms)
    return torch.cat([_draw_rows(*part) for part in zip(scores.split(rows), uniforms.split(rows), strict=True)])


def _draw_rows(scores: Tensor, uniforms: Tensor) -> Tensor:
    cumulative = scores.exp().double().cumsum(-1)  # (rows, V)
    threshold = uniforms.double() * cumulative[:, -1]  # (rows,)
    return torch.searchsorted(cumulative, threshold[:, None])[:, 0].clamp(max=scores.shape[-1] - 1)  # (rows,)


def interval(scores: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Where the numbers lie that draw these tokens, from above the first to the second, both `(n,)` in float64.

    Args:
        scores: as of `draw`, `(n, V)`.
        tokens: `(n,)`.
    """
    rows = max(1, _AT_ONCE // scores.shape[-1])
    parts = [_interval_rows(*part) for part in zip(scores.split(rows), tokens.split(rows), strict=True)]
    low, high = (torch.cat(ends) for ends in zip(*parts, strict=True))  # (n,) each
    return low, high


def _interval_rows(scores: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    cumulative = scores.exp().double().cumsum(-1)  # (rows, V)
    total, before = cumulative[:, -1], (tokens - 1).clamp(min=0)  # (rows,) each
    low = cumulative.gather(-1, before[:, None])[:, 0] / total  # (rows,)
    high = cumulative.gather(-1, tokens[:, None])[:, 0] / total  # (rows,)
    return low * (tokens > 0), high


def near(number: Tensor, end: Tensor, rounding: float) -> Tensor:
    """Whether a number could lie on the other side of an end, were each logit moved by at most `rounding`, `(n,)`.

    The odds of an end, F / (1 - F), are a quotient of two sums of exponentials, each of which moves by a factor of at
    most e^rounding either way. So what moves by at most 2 rounding are the logarithms of the odds. An end at 0 or 1
    has nothing beyond it and stays where it is, but the number 1 itself is near to whatever the last sums make of it.

    Args:
        number: in (0, 1], `(n,)`.
        end: of an interval, in [0, 1], `(n,)`.
        rounding: of a logit that has been divided by the temperature.
    """
    fixed = (end <= 0) | (end >= 1)  # (n,)
    apart = (torch.logit(number) - torch.logit(end)).abs()  # (n,)
    return (~fixed & (apart <= 2 * rounding)) | (number >= 1)
