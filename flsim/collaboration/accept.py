"""Which of the tokens that a device drafted its cloud accepts, and what it says instead: three rules, all exact.

What comes out is distributed as if the cloud had spoken alone, whatever was drafted; at temperature 0 it is the text of
the cloud to the last token, and all rules are one. Each looks at one number in (0, 1] per place:

    shared      the cloud draws its own token by the number by which the device has drawn the draft, and accepts while
                both are equal: the text is bit for bit that of the cloud alone with these numbers, and only ids travel
    rejection   a token x drawn from q is accepted with probability min(1, p(x) / q(x)), else one is drawn from
                (p - q)+ (Leviathan et al. 2022, arXiv 2211.17192; Chen et al. 2023, arXiv 2302.01318); q travels
    point       the draft is taken as certain: x is accepted with probability p(x), else one is drawn from p without x

By hand, for p = (.5, .3, .2) and q = (.2, .5, .3): `rejection` accepts 0.7 in the mean, `shared` 0.6, and `point` 0.3
of drafts that are always the likeliest token of q.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from flsim.collaboration.drawing import draw, interval, near

RULES = ("shared", "rejection", "point")
SHARED, REJECTION, POINT = RULES
NONE = -1
"""In place of a drafted token, where nothing was drafted."""
_TINY = 1e-300  # keeps divisions by what may be 0 finite


@dataclass(frozen=True)
class Decided:
    """What n places come to, each supposing that what was drafted before it is accepted."""

    tokens: Tensor
    """What the cloud says there, `(n,)`."""
    accepted: Tensor
    """Whether that is what was drafted, by the rule, `(n,)`."""
    close: Tensor
    """Whether logits that differ by rounding might have decided otherwise, `(n,)`."""


def decide(
    rule: str,
    scores: Tensor,
    drafted: Tensor,
    uniforms: Tensor | None,
    chances: Tensor | None = None,
    *,
    rounding: float = 0.0,
) -> Decided:
    """What the cloud says at n places.

    Args:
        rule: one of `RULES`.
        scores: its log-probabilities at its temperature, `(n, V)`.
        drafted: what was drafted at each, `(n,)`; `NONE` asks for a token of its own.
        uniforms: in (0, 1], `(n,)`; None is greedy.
        chances: q, what each token was drawn from, `(n, V)`; it is looked at by `rejection` alone, which needs it.
        rounding: by how much a logit over the temperature may be off.

    Raises:
        ValueError: for another rule, or `rejection` without chances.
    """
    if rule not in RULES:
        raise ValueError(f"rule={rule!r} is no rule of acceptance; choose one of: {', '.join(RULES)}")
    if uniforms is None:
        return _greedy(scores, drafted, rounding)
    uniforms = uniforms.double()  # (n,)
    if rule == SHARED:
        tokens = draw(scores, uniforms)  # (n,)
        close = _near_ends(uniforms, interval(scores, tokens), rounding)  # (n,)
        return Decided(tokens, tokens == drafted, close)
    if rule == POINT:
        return _point(scores, drafted, uniforms, rounding)
    if chances is None:
        raise ValueError(f"rule={REJECTION!r} needs what the drafted tokens were drawn from (Draft.chances)")
    return _rejection(scores, drafted, uniforms, chances, rounding)


def _greedy(scores: Tensor, drafted: Tensor, rounding: float) -> Decided:
    """The likeliest token, whatever the rule."""
    best = scores.topk(min(2, scores.shape[-1]), -1).values  # (n, 2)
    tokens = scores.argmax(-1)  # (n,)
    return Decided(tokens, tokens == drafted, best[:, 0] - best[:, -1] <= 2 * rounding)


def _near_ends(uniforms: Tensor, ends: tuple[Tensor, Tensor], rounding: float) -> Tensor:
    return near(uniforms, ends[0], rounding) | near(uniforms, ends[1], rounding)


def _point(scores: Tensor, drafted: Tensor, uniforms: Tensor, rounding: float) -> Decided:
    """It is an inverse CDF as well, in which the drafted token comes first."""
    some = drafted != NONE  # (n,)
    tried = drafted.clamp(min=0)  # (n,)
    first = _at(torch.softmax(scores.double(), -1), tried) * some  # (n,)
    accepted = uniforms <= first  # (n,)
    others = _without(scores, tried, some)  # (n, V)
    own = draw(others, _beyond(uniforms, first))  # (n,)
    low, high = (first + (1 - first) * end for end in interval(others, own))  # (n,) each
    low, high = low * ~accepted, torch.where(accepted, first, high)  # (n,) each
    return Decided(torch.where(accepted, tried, own), accepted, _near_ends(uniforms, (low, high), rounding))


def _without(scores: Tensor, tokens: Tensor, some: Tensor) -> Tensor:
    """Scores `(n, V)` with these tokens ruled out where there are some; a row of which nothing would be left stays."""
    barred = scores.masked_fill(_one_hot(tokens, scores) & some[:, None], -torch.inf)  # (n, V)
    return torch.where(barred.isneginf().all(-1, keepdim=True), scores, barred)


def _one_hot(tokens: Tensor, like: Tensor) -> Tensor:
    return torch.arange(like.shape[-1], device=like.device) == tokens[:, None]  # (n, V)


def _rejection(scores: Tensor, drafted: Tensor, uniforms: Tensor, chances: Tensor, rounding: float) -> Decided:
    """One number decides twice: given that it rejects, where it lies beyond the chance of acceptance is uniform too."""
    some = drafted != NONE  # (n,)
    tried = drafted.clamp(min=0)  # (n,)
    p = torch.softmax(scores.double(), -1)  # (n, V)
    q = chances.double() * some[:, None]  # (n, V)
    ratio = _at(p, tried) / _at(q, tried).clamp(min=_TINY) * some  # (n,)
    chance = ratio.clamp(max=1.0)  # (n,)
    accepted = uniforms <= chance  # (n,)
    rest, beyond = residual(p, q).log(), _beyond(uniforms, chance)  # (n, V), (n,)
    own = draw(rest, beyond)  # (n,)
    low, high = interval(rest, own)  # (n,) each
    mass = (p - q).clamp(min=0).sum(-1).clamp(min=_TINY)  # (n,)
    moved = rounding * (4 / mass + 2 / (1 - chance).clamp(min=_TINY))  # (n,): an end of the residual's, at most
    within = ((low > 0) & (beyond - low <= moved)) | ((high < 1) & (high - beyond <= moved))  # (n,)
    turns = (uniforms.log() - ratio.log()).abs() <= 2 * rounding  # (n,)
    close = turns | (~accepted & within) | (uniforms >= 1)  # (n,)
    return Decided(torch.where(accepted, tried, own), accepted, close)


def _beyond(uniforms: Tensor, chance: Tensor) -> Tensor:
    """Where numbers above a chance lie between it and 1, `(n,)`, in (0, 1]; anything for the others."""
    return ((uniforms - chance) / (1 - chance).clamp(min=_TINY)).clamp(_TINY, 1.0)


def _at(values: Tensor, tokens: Tensor) -> Tensor:
    return values.gather(-1, tokens[:, None])[:, 0]  # (n,)


def residual(p: Tensor, q: Tensor) -> Tensor:
    """What is drawn from where a draft from q is rejected, (p - q)+ over its sum, `(..., V)`; p where that is nothing.

    By hand: for p = (.5, .3, .2) and q = (.2, .5, .3) it is (1, 0, 0).
    """
    left = (p - q).clamp(min=0)  # (..., V)
    total = left.sum(-1, keepdim=True)  # (..., 1)
    return torch.where(total > 0, left / total.clamp(min=_TINY), p)


def acceptance(rule: str, p: Tensor, q: Tensor) -> float:
    """The chance that a drafted token is accepted.

    Of `rejection` it is sum min(p, q), 1 minus the total variation; of `shared` the overlap of both models' intervals,
    at most as much; of `point` what p gives to the likeliest token of q.

    Args:
        rule: one of `RULES`.
        p: of the cloud, `(V,)`.
        q: of the device, `(V,)`.
    """
    p, q = p.double(), q.double()
    if rule == POINT:
        return float(p[q.argmax()])
    if rule == REJECTION:
        return float(torch.minimum(p, q).sum())
    high, low = torch.stack([p, q]).cumsum(-1), torch.stack([p, q]).cumsum(-1) - torch.stack([p, q])  # (2, V) each
    return float((high.amin(0) - low.amax(0)).clamp(min=0).sum())


def gumbel_bound(p: Tensor, q: Tensor) -> float:
    """The least that two models agree which draw by the same Gumbel noise, (1 - D) / (1 + D), `(V,)` both.

    D is their total variation (Daliri, Musco and Suresh 2024, arXiv 2408.07978). No rule here draws so; it is what
    `shared` is held against.
    """
    apart = 1 - acceptance(REJECTION, p, q)
    return (1 - apart) / (1 + apart)
