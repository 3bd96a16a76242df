"""The losses of policy optimisation: one number per device, a function of the sampled tokens' log-probabilities.

    ratio        rho = pi / pi_old of a token, or the geometric mean over a response (GSPO)
    surrogate    -min(rho A, clip(rho) A)                     (PPO, GRPO; clip-higher: DAPO; delta: INTELLECT-2)
    penalty      + beta k3, an estimate of KL(pi || reference)
    aggregation  one number of all tokens: `sum`, `grpo`, `bnpo`, `dapo` or `dr_grpo`

They equal those of TRL's `GRPOTrainer` to the last bit, value and gradient, where TRL has them. Beside them stand GVPO,
which needs neither ratio nor clip, and the supervised loss on given answers.

Every device is normalised by its own prompts and tokens, never by the pack's, so that devices of a pack cannot weigh on
each other. Gradient flows through `logprobs` only: whatever else is given counts as a number.

Shapes: K devices, P prompts, G responses, T tokens.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from flsim.learning.advantage import centred

LEVELS = ("token", "sequence")
AGGREGATIONS = ("sum", "grpo", "bnpo", "dapo", "dr_grpo")


@dataclass(frozen=True)
class Clipping:
    """How far the ratio may pull: beyond `[1 - low, 1 + high]` there is nothing left to gain."""

    low: float = 0.2
    """From 0 to 1; 1 is no lower bound."""
    high: float = 0.2
    """At least 0; DAPO's clip-higher is 0.28, infinity is no upper bound."""
    delta: float | None = None
    """Largest ratio where the advantage is negative, and the bounds above leave it unbounded; None is no such bound."""

    def __post_init__(self) -> None:
        """Refuse bounds that cannot work."""
        if not 0 <= self.low <= 1:
            raise ValueError(f"low={self.low} must lie between 0 and 1: a ratio is never below 0; 0.2 is usual")
        if not self.high >= 0:
            raise ValueError(f"high={self.high} must be at least 0; 0.2 is usual, and .inf turns the bound off")
        if self.delta is not None and not self.delta > 1 + self.high:
            raise ValueError(f"delta={self.delta} must be above 1 + high = {1 + self.high}; leave it out for no bound")


@dataclass(frozen=True)
class PolicyLoss:
    """The settings of a clipped policy loss.

    With the defaults and on policy, its gradient is the plain policy gradient's, `-mean of A log pi`, bit for bit.
    """

    aggregation: str = "sum"
    """How tokens become one number: see `aggregate`."""
    level: str = "token"
    """Whose ratio counts: each `token`'s own, or one of the whole `sequence` (GSPO)."""
    clipping: Clipping = Clipping()
    beta: float = 0.0
    """Weight of the KL penalty; 0 turns it off, and no reference is needed."""
    correct_kl: bool = True
    """Whether the penalty is multiplied by the ratio: see `k3`."""
    max_length: int | None = None
    """Tokens that a response may have at most, the divisor of `dr_grpo`; no other aggregation looks at it."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        if self.level not in LEVELS:
            raise ValueError(f"level={self.level!r} is not known; choose one of: {', '.join(LEVELS)}")
        _check_aggregation(self.aggregation, self.max_length)
        if not self.beta >= 0:
            raise ValueError(f"beta={self.beta} must be at least 0; 0 turns the penalty off")

    def per_device(
        self,
        logprobs: Tensor,
        advantages: Tensor,
        mask: Tensor,
        real: Tensor,
        *,
        old: Tensor | None = None,
        reference: Tensor | None = None,
    ) -> Tensor:
        """The loss of each device.

        Args:
            logprobs: of the sampled tokens under the policy that learns, finite everywhere, `(K, P, G, T)`.
            advantages: `(K, P, G)`.
            mask: True at tokens that the policy itself sampled, `(K, P, G, T)`.
            real: True at prompts that count, `(K, P)`: those that are not filling, or of them those that a filter kept.
            old: log-probabilities when the tokens were sampled `(K, P, G, T)`; None means that nothing has been learned
                since, so that every ratio is 1.
            reference: log-probabilities under the reference policy `(K, P, G, T)`; needed if `beta` is above 0.

        Returns:
            `(K,)`; 0 for a device without prompts that count.

        Raises:
            ValueError: if there is a penalty and no reference.
        """
        ratio = importance(logprobs, old, mask, level=self.level)  # (K, P, G, T) or (K, P, G, 1)
        # the penalty first: autograd then sums its gradient and the surrogate's in TRL's order
        penalty = self.beta * self._kl(logprobs, reference, ratio) if self.beta else None  # (K, P, G, T)
        losses = surrogate(ratio, advantages, self.clipping)  # (K, P, G, T) or (K, P, G, 1)
        losses = losses if penalty is None else losses + penalty  # (K, P, G, T)
        return aggregate(losses, mask, real, aggregation=self.aggregation, max_length=self.max_length)  # (K,)

    def _kl(self, logprobs: Tensor, reference: Tensor | None, ratio: Tensor) -> Tensor:
        if reference is None:
            raise ValueError(f"beta={self.beta} weighs the distance to a reference, and none is given")
        kl = k3(logprobs, reference)  # (K, P, G, T)
        return kl * ratio if self.correct_kl else kl  # (K, P, G, T)


def importance(logprobs: Tensor, old: Tensor | None, mask: Tensor, *, level: str) -> Tensor:
    """The ratio of the policy that learns to the one that sampled.

    Args:
        logprobs: `(K, P, G, T)`.
        old: the same when the tokens were sampled; None means now.
        mask: True at tokens that count `(K, P, G, T)`.
        level: `token`, or `sequence`: the geometric mean over a response (Zheng et al. 2025, GSPO, arXiv 2507.18071),
            which does not drift with its length.

    Returns:
        `(K, P, G, T)` by token, `(K, P, G, 1)` by sequence.
    """
    log_ratio = logprobs - (logprobs if old is None else old).detach()  # (K, P, G, T)
    if level == "sequence":
        lengths = mask.sum(-1, keepdim=True).clamp(min=1)  # (K, P, G, 1)
        log_ratio = (log_ratio * mask).sum(-1, keepdim=True) / lengths  # (K, P, G, 1)
    return log_ratio.exp()


def surrogate(ratio: Tensor, advantages: Tensor, clipping: Clipping) -> Tensor:
    """`-min(rho A, clip(rho, 1 - low, 1 + high) A)` (Schulman et al. 2017, arXiv 1707.06347, equation 7).

    The minimum leaves a negative advantage with a large ratio unbounded; `delta` bounds the first rho from above
    (two-sided clipping, Prime Intellect 2025, arXiv 2505.07291).

    Args:
        ratio: `(K, P, G, T)` or `(K, P, G, 1)`.
        advantages: `(K, P, G)`.
        clipping: the bounds.

    Returns:
        Of the ratio's shape.
    """
    advantages = advantages.detach()[..., None]  # (K, P, G, 1)
    clipped = ratio.clamp(1 - clipping.low, 1 + clipping.high)
    bounded = ratio if clipping.delta is None else ratio.clamp(max=clipping.delta)
    return -torch.min(bounded * advantages, clipped * advantages)


def k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """`exp(ref - lp) - (ref - lp) - 1`: an estimate of `KL(pi || reference)` per token, unbiased and never negative.

    Only its value is unbiased: on policy, the mean of its gradient is that of `KL(reference || pi)`, the other
    direction. Multiplied by the ratio, both are right (DeepSeek-V3.2, arXiv 2512.02556; TRL's
    `use_bias_correction_kl`).

    Args:
        logprobs: of tokens that pi sampled.
        reference: theirs under the reference policy, of the same shape.

    Returns:
        Of the same shape; 0 where both agree (Schulman 2020, "Approximating KL divergence").
    """
    gap = reference.detach() - logprobs
    return gap.exp() - gap - 1


def aggregate(losses: Tensor, mask: Tensor, real: Tensor, *, aggregation: str, max_length: int | None = None) -> Tensor:
    """One number per device from one per token.

        sum      sum over tokens / responses               an unbiased policy gradient; long responses pull more
        grpo     mean over responses of the mean token     a token of a short response weighs more
        bnpo     mean over all the device's tokens         long responses pull more, all tokens weigh the same
        dapo     the same: one step's responses are one batch here, which TRL may spread over several
        dr_grpo  sum over tokens / (responses x longest)   `sum` with a constant divisor (Liu et al. 2025, 2503.20783)

    Args:
        losses: `(K, P, G, T)`, or `(K, P, G, 1)` for one number that all tokens of a response share.
        mask: True at tokens that count `(K, P, G, T)`.
        real: True at prompts that count `(K, P)`.
        aggregation: one of the above.
        max_length: the longest response allowed, in tokens; for `dr_grpo`.

    Returns:
        `(K,)`; 0 for a device without prompts or without tokens.

    Raises:
        ValueError: for an unknown aggregation, or `dr_grpo` without a length.
    """
    _check_aggregation(aggregation, max_length)
    counted = mask & real[..., None, None]  # (K, P, G, T)
    losses = losses * counted  # (K, P, G, T)
    responses = (real.sum(-1) * mask.shape[2]).clamp(min=1)  # (K,)
    if aggregation == "grpo":
        means = losses.sum(-1) / counted.sum(-1).clamp(min=1)  # (K, P, G)
        return means.flatten(1).sum(-1) / responses  # (K,)
    total = losses.flatten(1).sum(-1)  # (K,)
    if aggregation in ("bnpo", "dapo"):
        return total / counted.flatten(1).sum(-1).clamp(min=1)  # (K,)
    if aggregation == "dr_grpo" and max_length is not None:
        responses = responses * max_length  # (K,)
    return total / responses  # (K,)


def gvpo_loss(
    logprobs: Tensor, rewards: Tensor, mask: Tensor, real: Tensor, *, old: Tensor | None = None, beta: float = 0.1
) -> Tensor:
    """GVPO: responses shall differ in implicit reward as they do in reward (Zhang et al. 2025, arXiv 2504.19599).

        L = 1/2 sum_i [ (R_theta,i - mean R_theta) - (R_i - mean R) ]^2 / (G - 1)
        R_theta,i = beta (log pi(y_i) - log pi_old(y_i))

    It is 0 exactly where pi is proportional to `pi_old exp(R / beta)` on the group, the best policy under a KL penalty
    of weight beta; centring removes the unknown normaliser. On policy its gradient is beta times the centred policy
    gradient; later on, the squared gap to `pi_old` holds it, without ratio and clip.

    Args:
        logprobs: of the sampled tokens under the policy that learns `(K, P, G, T)`.
        rewards: of the responses `(K, P, G)`; with a price on asking, reward minus price times cost.
        mask: True at tokens that the policy itself sampled `(K, P, G, T)`.
        real: True at prompts that count `(K, P)`.
        old: log-probabilities when the tokens were sampled; None means now.
        beta: above 0; how closely to stay at the old policy.

    Returns:
        `(K,)`: mean over the device's prompts, 0 if there are none.

    Raises:
        ValueError: for a beta that is not above 0, or a group of one.
    """
    group = rewards.shape[-1]
    if not beta > 0:
        raise ValueError(f"beta={beta} must be above 0: without it the loss does not depend on the policy")
    if group < 2:
        raise ValueError("a group of one response has nothing to be compared with; GVPO needs at least 2")
    log_ratio = ((logprobs - (logprobs if old is None else old).detach()) * mask).sum(-1)  # (K, P, G)
    gap = beta * centred(log_ratio) - centred(rewards.detach())  # (K, P, G)
    losses = 0.5 * gap.square().sum(-1) / (group - 1)  # (K, P)
    return (losses * real).sum(-1) / real.sum(-1).clamp(min=1)  # (K,)


def _check_aggregation(aggregation: str, max_length: int | None) -> None:
    if aggregation not in AGGREGATIONS:
        raise ValueError(f"aggregation={aggregation!r} is not known; choose one of: {', '.join(AGGREGATIONS)}")
    if aggregation == "dr_grpo" and not (max_length is not None and max_length > 0):
        raise ValueError(f"aggregation='dr_grpo' divides by max_length, which is {max_length}; give it in tokens")
