"""The losses that teach a student what a teacher knows: one number per token, from the student's log-probabilities.

    sequence     -log p_S(y)                             y from the teacher (Kim and Rush 2016, arXiv 1606.07947)
    forward KL   sum_v p_T(v) (log p_T(v) - log p_S(v))  y from the teacher (Hinton et al. 2015, arXiv 1503.02531)
    reverse KL   sum_v p_S(v) (log p_S(v) - log p_T(v))  y from the student (Agarwal et al. 2024, arXiv 2306.13649)

The last is not summed: its gradient is the policy gradient with the advantage `log p_T(y) - log p_S(y)` of each sampled
token (Gu et al. 2024, arXiv 2306.08543, for discount 0), so that the teacher need only score what the student wrote.

The student here is the model *that may not ask*: the help request is ruled out before the softmax, as it is where a
device answers alone. What is taught is the answers, never whether to ask, which is the devices' own to learn.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Target:
    """What a teacher says of the next token at each of n places: its k likeliest tokens."""

    tokens: Tensor
    """Their ids, different ones at each place, `(n, k)`."""
    logprobs: Tensor
    """Their log-probabilities `(n, k)`; what they leave of 1 is the tail, spread over all other tokens."""


def sequence_loss(student: Tensor, tokens: Tensor) -> Tensor:
    """Cross-entropy `(n,)` of tokens `(n,)` that the teacher wrote, under the student's log-probabilities `(n, V)`."""
    return -student.gather(-1, tokens[:, None])[:, 0]  # (n,)


def forward_kl(student: Tensor, target: Target) -> Tensor:
    """`KL(teacher || student)` over k + 1 buckets: the teacher's k likeliest tokens, and all others together.

    Without the last bucket the student could put its mass anywhere outside the k for free. By the data processing
    inequality this is at most the full divergence, and with k = V it is the full one.

    Args:
        student: log-probabilities `(n, V)`, with gradient; -inf at tokens that are ruled out.
        target: of the same n places.

    Returns:
        `(n,)`, at least 0 up to rounding.
    """
    p, log_p, log_q = target.logprobs.exp(), target.logprobs, student.gather(-1, target.tokens)  # (n, k) each
    certain = p > 0  # 0 log 0 is 0, whatever the student says
    head = (p * (log_p - log_q).masked_fill(~certain, 0.0)).sum(-1)  # (n,)
    p_tail = tail(target)  # (n,)
    # 1 - sum q would lose all digits of a small tail; the sum over the others is the same number
    others = student.scatter(-1, target.tokens, -torch.inf)  # (n, V)
    some = torch.isfinite(others).any(-1) & (p_tail > 0)  # (n,), whether there is a tail at all
    log_q_tail = others.masked_fill(~some[:, None], 0.0).logsumexp(-1)  # (n,)
    log_p_tail = p_tail.clamp(min=torch.finfo(p_tail.dtype).tiny).log()  # (n,)
    return head + torch.where(some, p_tail * (log_p_tail - log_q_tail), 0.0)  # (n,)


def tail(target: Target) -> Tensor:
    """The probability `(n,)` that the k likeliest tokens leave to all others; never below 0."""
    return (1 - target.logprobs.double().exp().sum(-1)).clamp(min=0.0).to(target.logprobs.dtype)  # (n,)


def reverse_kl_loss(student: Tensor, tokens: Tensor, teacher: Tensor, *, clip: float) -> Tensor:
    """A loss whose gradient is the policy gradient of `KL(student || teacher)`, on tokens the student itself drew.

    Args:
        student: log-probabilities `(n, V)` that the tokens were drawn by, with gradient.
        tokens: `(n,)`.
        teacher: the teacher's log-probabilities of these tokens `(n,)`.
        clip: largest magnitude of an advantage: a token that the teacher all but rules out says no more than this.

    Returns:
        `(n,)`; its value means nothing, and its gradient is zero where teacher and student agree.
    """
    logprobs = -sequence_loss(student, tokens)  # (n,)
    advantages = (teacher - logprobs.detach()).clamp(-clip, clip)  # (n,)
    return -advantages * logprobs  # (n,)


def reverse_kl(student: Tensor, tokens: Tensor, teacher: Tensor) -> Tensor:
    """`log p_S - log p_T` `(n,)` of tokens that the student drew; their mean estimates `KL(student || teacher)`."""
    return -sequence_loss(student, tokens) - teacher  # (n,)
