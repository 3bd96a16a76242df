"""Exploring the help request: what a policy that never asks, or always does, can still learn about asking.

With z the log-odds of the request, p = sigmoid(z) its probability, b what the cloud would gain and lambda its price,
the policy gradient of DA-GRPO (arXiv 2602.00166) along z is

    dL / dz = p (1 - p) (b - lambda)

so it vanishes where p is near 0 or 1, however much asking would gain. That holds for every unbiased estimate of it: for
a policy mixed with a coin, whose requests count (1 - eps) p / p', and for forced requests with importance weights
p / q. Both sample the request and give it a weight of almost nothing, which the gradients of all other tokens drown.

So a few prompts are explored instead: the device drafts G answers of its own with the request ruled out, the cloud's
answer is bought as well, and z moves along the difference that was seen,

    b^ - lambda = r(cloud) - mean r(drafts) - lambda

without the factor p (1 - p): the natural gradient of the decision (Kakade 2001), whose speed does not hang on how
rarely the policy asks. Its sign is that of the policy gradient, so that both rest at the same optimum.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

EDGE = 0.02
"""Chance of the request below which exploring pushes it no further down, and 1 minus that above which not up: what is
out of reach already would only take longer to come back."""
_FAR = 100.0  # of log-odds whose exponentials float64 still tells from 0 and 1


def how_many(expected: float, uniform: float) -> int:
    """A whole number of prompts with that mean: `floor(expected + u)` for u uniform in [0, 1) (systematic sampling)."""
    return int(expected + uniform)


def log_chance(odds: Tensor, mask: Tensor) -> Tensor:
    """Log-probability of a request of m tokens, `sum_i log sigmoid(z_i)`, `(...)` in float64.

    Args:
        odds: z_i of each token, `(..., T)`.
        mask: True at the request's tokens, `(..., T)`.
    """
    each = F.logsigmoid(odds.double().clamp(-_FAR, _FAR))  # (..., T)
    return (each * mask).sum(-1)  # (...)


def parts_of_odds(odds: Tensor, mask: Tensor) -> Tensor:
    """How the log-odds z of a whole request move with those of its tokens, `dz / dz_i`, `(..., T)` in float64.

    With P the product of the p_i, z = log P - log(1 - P), so that dz / dz_i = (1 - p_i) / (1 - P). One token has 1,
    whatever its probability; of several those move most that are least likely. By hand: p = (1/2, 1/2) has P = 1/4, and
    each part is 2/3.

    Args:
        odds: z_i of each token, `(..., T)`.
        mask: True at the request's tokens, `(..., T)`.
    """
    far = odds.double().clamp(-_FAR, _FAR)  # (..., T)
    rest = -torch.expm1(log_chance(odds, mask))  # (...): 1 - P
    return torch.sigmoid(-far) * mask / rest[..., None].clamp(min=torch.finfo(torch.float64).tiny)  # (..., T)


def push(gain: Tensor, chance: Tensor, edge: float = EDGE) -> Tensor:
    """How far explored prompts push the log-odds of the request, `(...)`: by the gain, if there is room.

    Args:
        gain: what asking was worth more than a draft, its price taken off, `(...)`.
        chance: of the request, `(...)`.
        edge: nothing below it is pushed down, and nothing above 1 minus it is pushed up.
    """
    spent = ((gain < 0) & (chance < edge)) | ((gain > 0) & (chance > 1 - edge))  # (...)
    return gain.masked_fill(spent, 0.0)  # (...)
