"""What asking the cloud would gain, estimated from a device's own draft, and asking where it exceeds the price.

A device drafts an answer y to a prompt x and then asks, or keeps it. At the optimum of DA-GRPO's Lagrangian (Chen,
Fang, Wang, Brinton 2026, arXiv 2602.00166) it asks where the benefit exceeds its dual variable lambda:

    b(x, y) = p_cloud(x, y) - p_alone(x, y)        the chances that the cloud and that the draft are right
    a ~ Bernoulli(sigmoid((b(x, y) - lambda) / T)) while it learns; at tests it asks where b > lambda

Both chances are logistic regressions on what the model was like when it ended its draft: `p = sigmoid(w . phi)`. Their
labels are verdicts that training has anyway: of every draft, and of every answer that was bought. So nothing must be
sampled for asking to be learned, and a lower price always brings it back.

Shapes: K devices, P prompts, G responses, T tokens, D the width of the model, F = 8 + D features.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

ALONE, CLOUD = 0, 1
"""The rows of a head's weights."""
NUMBERS = 8
"""Features that are no hidden state."""
FEATURES = ("both", "numbers", "hidden", "question")
PIECES = 64
"""Groups that a question's tokens are counted in."""
FIRST_CHANCE = 0.9
"""That the cloud is right, as long as a device has bought nothing."""
FIRST_CHANCES = (0.5, FIRST_CHANCE)
"""That a draft and that the cloud is right, as long as nothing is known."""


def features(
    states: Tensor,
    logprobs: Tensor,
    entropies: Tensor,
    mask: Tensor,
    *,
    kind: str = "both",
    scale: float = 1.0,
    read: Tensor | None = None,
) -> Tensor:
    """What a head sees of every draft: one, seven numbers of how sure the model was, and its last hidden state.

    The hidden state is scaled to unit mean square. The numbers are the mean, the least and the last log-probability of
    the draft's tokens, their sum by the root of how many there are, the greatest and the mean entropy, and the
    logarithm of how many there are.

    Args:
        states: that the last token was drawn from, `(..., D)`.
        logprobs: of the tokens at temperature 1, zero after the end, `(..., T)`.
        entropies: likewise, `(..., T)`.
        mask: True at tokens, the ending one included, `(..., T)`.
        kind: `both`, or one without the other: `numbers` or `hidden`; the other features are zero. With `question` the
            hidden state and, in the numbers' place, what was `read`: where a draft is one token, and says nothing.
        scale: of all features. Adam moves every weight by about its rate, so this is how much faster a head learns.
        read: of `(K, P, G)` drafts the prompts' `question_features`, `(K, P, 2 + PIECES)`; with `question` alone.

    Returns:
        `(..., F)`; with `question` there are `PIECES` more.
    """
    count = mask.sum(-1).clamp(min=1)  # (...)
    ends = count[..., None] - 1  # (..., 1)
    # running sums, read at the end: how `sum` groups what it adds hangs on how far drafts are padded
    last, total, unsure = (
        of.gather(-1, ends)[..., 0] for of in (logprobs, logprobs.cumsum(-1), entropies.cumsum(-1))
    )  # (...) each
    sure = [total / count, logprobs.amin(-1), last, total / count.sqrt()]
    numbers = torch.stack(
        [torch.ones_like(last), *sure, entropies.amax(-1), unsure / count, count.log()], -1
    )  # (..., 8)
    if kind in ("hidden", "question"):
        numbers = numbers * (torch.arange(NUMBERS, device=numbers.device) == 0)  # (..., 8)
    hidden = F.rms_norm(states, states.shape[-1:]) * (kind != "numbers")  # (..., D)
    if read is not None:
        each = read[:, :, None].expand(*mask.shape[:3], -1)  # (K, P, G, 2 + PIECES)
        numbers[..., 1:3] = each[..., :2]
        hidden = torch.cat([hidden, each[..., 2:]], -1)  # (K, P, G, D + PIECES)
    return scale * torch.cat([numbers, hidden], -1)  # (..., F)


def question_features(ids: Tensor, mask: Tensor) -> Tensor:
    """What a question looks like: how long it is, how many different tokens it has, and how often which ones occur.

    Tokens are counted in 64 groups by a hash (Fibonacci hashing), as log(1 + count). By hand: the tokens 5 7 5 5 have
    the lengths log 4 and log 2, log 4 in the group of 5, and log 2 in that of 7.

    Args:
        ids: of prompts, `(K, P, L)`.
        mask: True at their tokens, `(K, P, L)`.

    Returns:
        `(K, P, 2 + PIECES)`.
    """
    ordered = ids.masked_fill(~mask, -1).sort(-1).values  # (K, P, L)
    new = torch.ones_like(mask)  # (K, P, L)
    new[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    lengths = torch.stack([mask.sum(-1), (new & (ordered >= 0)).sum(-1)], -1)  # (K, P, 2)
    groups = (ids * 2654435761 % 2**32 * PIECES) >> 32  # (K, P, L)
    counts = torch.zeros(*ids.shape[:2], PIECES, device=ids.device)  # (K, P, PIECES)
    counts.scatter_add_(-1, groups, mask.float())
    return torch.cat([lengths.clamp(min=1).log(), counts.log1p()], -1)  # (K, P, 2 + PIECES)


def first_head(width: int, *, scale: float = 1.0) -> Tensor:
    """The weights that a fleet starts from, `(2, F)`: a draft is as likely right as wrong, and the cloud nearly always.

    So a fresh device asks at random, with a chance that its lambda sets.
    """
    weight = torch.zeros(2, NUMBERS + width)  # (2, F)
    weight[CLOUD, 0] = torch.logit(torch.tensor(FIRST_CHANCE)) / scale
    return weight


def chances(weight: Tensor, phi: Tensor) -> Tensor:
    """That a draft and that the cloud are right, `(K, ..., 2)`.

    Args:
        weight: of each device's head, `(K, 2, F)`.
        phi: features of its drafts, `(K, ..., F)`.
    """
    flat = phi.flatten(1, -2)  # (K, n, F)
    return torch.sigmoid(flat @ weight.transpose(1, 2)).view(*phi.shape[:-1], 2)  # (K, ..., 2)


def benefit(both: Tensor) -> Tensor:
    """`b = p_cloud - p_alone`, in [-1, 1], `(...)` from chances `(..., 2)`."""
    return both[..., CLOUD] - both[..., ALONE]  # (...)


def ask_chance(gain: Tensor, price: Tensor, temperature: float) -> Tensor:
    """Chance of a request after a draft, `sigmoid((b - lambda) / T)`, `(K, P, G)`.

    Laws: it rises with b and falls with lambda. Under the dual ascent lambda settles where the mean chance is tau: at
    the (1 - tau)-quantile of b as T goes to 0, and at `b - T logit(tau)` where b is the same for all drafts, which is
    asking at random. By hand: b = 0.5, lambda = 0.3 and T = 0.1 give sigmoid(2) = 0.88.

    Args:
        gain: b of each draft, `(K, P, G)`.
        price: lambda of each device at each prompt, `(K, P)`; infinite where it may not ask.
        temperature: T; the smaller, the more it is a threshold, and 0 is one.
    """
    above = gain - price[..., None]  # (K, P, G)
    return torch.sigmoid(above / temperature) if temperature > 0 else (above > 0).to(gain.dtype)  # (K, P, G)


def regression_pull(both: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """The gradient of each device's mean cross-entropies with respect to the logits of its chances, `(K, P, G, 2)`.

    The loss is `sum_c mean_i [-y_ic log p_ic - (1 - y_ic) log(1 - p_ic)]`, for each of both chances c the mean over the
    drafts i whose label is known, and its gradient `(p_ic - y_ic) / n_c`: so what is known of the cloud, which is
    little, does not learn more slowly. By hand: of two known drafts with p = 0.75 the right one pulls by -0.125 and the
    wrong one by 0.375.

    Args:
        both: chances `(K, P, G, 2)`.
        labels: whether draft and cloud were right, 0 or 1, `(K, P, G, 2)`.
        weights: how much each label counts, 0 where there is none, `(K, P, G, 2)`.
    """
    total = weights.sum((1, 2), keepdim=True).clamp(min=1.0)  # (K, 1, 1, 2)
    return (both - labels) * weights / total  # (K, P, G, 2)


def head_gradient(pull: Tensor, phi: Tensor) -> Tensor:
    """That of the weights, `sum_i pull_ic phi_i`, `(K, 2, F)`.

    Args:
        pull: of `regression_pull`, `(K, P, G, 2)`.
        phi: features, `(K, P, G, F)`.
    """
    return pull.flatten(1, 2).transpose(1, 2) @ phi.flatten(1, 2)  # (K, 2, F)
