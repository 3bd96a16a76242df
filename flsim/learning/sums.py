"""A logistic regression in closed form, from sums: what many devices have seen, added up, gives the fit of all of it.

It is one Newton step from the model that knows only how often a label is 1, with a ridge penalty. Features are
standardised by what was seen, and z is a standardised one:

    share = (sum y + prior) / (n + 1)          one label more, the prior chance
    w = (mean z z^T + ridge N / n I)^-1 mean z (y - mean y) / (share (1 - share))
    logit p = logit share + w . z

with n labels of one chance, and N of the one that has most: what was bought is little, and must not speak as loud.
The ridge may differ from feature to feature: a hidden state of hundreds of numbers, each held back as much as one of
the few that say how sure the model was, would drown these.

All of it follows from `sum phi phi^T` and `sum phi y`, which add up over drafts, rounds and devices: the mean of
devices' sums, which is what averaging makes of them, has the solution of all their drafts together. No learning rate
is chosen and no order of rounds counts; but features of the same draft must stay what they are.

Shapes: K devices, C = 2 chances (that a draft and that the cloud is right), F features, the first of them constant.
"""

import torch
from torch import Tensor

_SAME = 1e-5
"""A feature whose deviation is at most this share of its root mean square tells nothing."""


def gathered(phi: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """The sums of drafts, `(K, C, F, F + 1)`: `phi phi^T`, and in the last column `phi y`.

    Args:
        phi: features, `(K, ..., F)`.
        labels: 0 or 1, `(K, ..., C)`.
        weights: how much each label counts, 0 where there is none, `(K, ..., C)`.
    """
    seen = phi.flatten(1, -2).double()[:, None]  # (K, 1, n, F)
    known, counts = (of.flatten(1, -2).double().transpose(1, 2)[..., None] for of in (labels, weights))  # (K, C, n, 1)
    both = torch.cat([seen.expand(-1, known.shape[1], -1, -1), known], -1)  # (K, C, n, F + 1)
    return ((counts * seen).transpose(-1, -2) @ both).to(phi.dtype)  # (K, C, F, F + 1)


def solved(sums: Tensor, prior: Tensor, ridge: float | Tensor) -> Tensor:
    """The weights, `(K, C, F)`: a chance is `sigmoid(w . phi)`.

    Laws: sums times any number have nearly the same solution, exactly where there is much of them; a feature may be
    measured in any unit; with nothing seen, or an endless ridge, all chances are the share. By hand: drafts right at
    phi = (1, 1) and wrong at (1, -1), equally often, many of them, and ridge 1 give w = (0, 1): mean z z^T = 1, mean
    z (y - 1/2) = 1/2, share (1 - share) = 1/4.

    Args:
        sums: of `gathered`, `(K, C, F, F + 1)`.
        prior: the chance while nothing is known, `(C,)`.
        ridge: how far weights are held back, above 0, all alike or each feature `(F,)`; in units of a standardised
            feature's variance, for the chance with most labels.
    """
    gram, moment = sums[..., :-1].double(), sums[..., -1].double()  # (K, C, F, F), (K, C, F)
    count, ones = gram[..., 0, 0], moment[..., 0]  # (K, C) each
    total = count.clamp(min=1e-12)[..., None]  # (K, C, 1)
    mean = gram[..., 0] / total  # (K, C, F)
    square = gram.diagonal(dim1=-2, dim2=-1) / total  # (K, C, F)
    deviation = (square - mean**2).clamp(min=0).sqrt()  # (K, C, F)
    tells = deviation > _SAME * square.sqrt()  # (K, C, F)
    unit = torch.where(tells, 1 / deviation.clamp(min=1e-30), 0.0)  # (K, C, F)
    spread = gram / total[..., None] - mean[..., None] * mean[..., None, :]  # (K, C, F, F)
    alike = spread * unit[..., None] * unit[..., None, :]  # (K, C, F, F)
    with_label = (moment / total - mean * (ones[..., None] / total)) * unit  # (K, C, F)
    share = (ones + prior.double()) / (count + 1)  # (K, C)
    penalty = ridge * total.amax(1, keepdim=True) / total  # (K, C, 1), or (K, C, F)
    held = alike + torch.diag_embed(penalty.expand_as(mean))  # (K, C, F, F)
    each = torch.linalg.solve(held, with_label) / (share * (1 - share))[..., None] * unit  # (K, C, F)
    each[..., 0] = torch.logit(share) - (each * mean).sum(-1)
    found: Tensor = each.to(sums.dtype)  # (K, C, F)
    return found
