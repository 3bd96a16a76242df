"""The losses of distillation against finite differences, hand-derived numbers and their laws."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from flsim.learning.distillation import Target, forward_kl, reverse_kl, reverse_kl_loss, sequence_loss, tail

N, V = 4, 7
RULED_OUT = 2  # a token of probability zero on both sides, as the help request is

SEEDS = st.integers(0, 10_000)
TOPS = st.integers(1, V - 1)


def logits_of(seed: int, scale: float = 2.0) -> Tensor:
    """Float64 logits `(N, V)`."""
    return scale * torch.randn(N, V, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def logprobs_of(logits: Tensor) -> Tensor:
    """`(N, V)`, with one token ruled out."""
    ruled_out = torch.arange(V) == RULED_OUT
    return torch.log_softmax(logits.masked_fill(ruled_out, -torch.inf), -1)


def target_of(logits: Tensor, top: int) -> Target:
    best = logprobs_of(logits).topk(top, -1)
    return Target(best.indices, best.values)


def full_kl(first: Tensor, second: Tensor) -> Tensor:
    """`KL(first || second)` of log-probabilities `(N, V)`, token by token, `(N,)`."""
    terms = first.exp() * (first - second)
    return torch.cat([terms[:, :RULED_OUT], terms[:, RULED_OUT + 1 :]], -1).sum(-1)


def gradient_of(loss: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
    logits = logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(logprobs_of(logits)).sum(), logits)
    return gradient


def finite_differences(loss: Callable[[Tensor], Tensor], logits: Tensor, step: float = 1e-6) -> Tensor:
    """Central differences of the summed loss by every logit."""
    gradient = torch.zeros_like(logits)
    for place in range(logits.numel()):
        nudge = torch.zeros_like(logits)
        nudge.view(-1)[place] = step
        up, down = (float(loss(logprobs_of(logits + sign * nudge)).sum()) for sign in (1, -1))
        gradient.view(-1)[place] = (up - down) / (2 * step)
    return gradient


def assert_gradient(loss: Callable[[Tensor], Tensor], logits: Tensor) -> None:
    torch.testing.assert_close(gradient_of(loss, logits), finite_differences(loss, logits), rtol=1e-6, atol=1e-8)


@given(SEEDS)
def test_sequence_loss_has_the_gradient_of_finite_differences(seed: int) -> None:
    tokens = torch.tensor([0, 1, 3, 6])
    assert_gradient(lambda student: sequence_loss(student, tokens), logits_of(seed))


@given(SEEDS, TOPS)
def test_forward_kl_has_the_gradient_of_finite_differences(seed: int, top: int) -> None:
    target = target_of(logits_of(seed + 1), top)
    assert_gradient(lambda student: forward_kl(student, target), logits_of(seed))


@given(SEEDS)
def test_the_expected_gradient_of_reverse_kl_loss_is_that_of_the_divergence(seed: int) -> None:
    """The sum over all tokens, each with its probability, stands for infinitely many samples."""
    teacher, logits = logprobs_of(logits_of(seed + 1)), logits_of(seed)
    probabilities = logprobs_of(logits).exp()
    expected = torch.zeros_like(logits)
    for token in (t for t in range(V) if t != RULED_OUT):
        loss = partial(reverse_kl_loss, tokens=torch.full((N,), token), teacher=teacher[:, token], clip=99.0)
        drawn = gradient_of(loss, logits)
        expected += probabilities[:, token : token + 1] * drawn
    divergence = finite_differences(lambda student: full_kl(student, teacher), logits)
    torch.testing.assert_close(expected, divergence, rtol=1e-6, atol=1e-8)


@given(SEEDS)
def test_reverse_kl_loss_has_the_gradient_of_finite_differences_with_its_advantages_held(seed: int) -> None:
    logits, tokens = logits_of(seed), torch.tensor([0, 1, 3, 6])
    teacher = -3 * torch.rand(N, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    held = (teacher + sequence_loss(logprobs_of(logits), tokens)).clamp(-1.0, 1.0)
    analytic = gradient_of(lambda student: reverse_kl_loss(student, tokens, teacher, clip=1.0), logits)
    numeric = finite_differences(lambda student: held * sequence_loss(student, tokens), logits)
    torch.testing.assert_close(analytic, numeric, rtol=1e-6, atol=1e-8)


@given(SEEDS, TOPS)
def test_a_student_that_is_the_teacher_has_nothing_to_learn(seed: int, top: int) -> None:
    logits = logits_of(seed)
    target, tokens = target_of(logits, top), torch.tensor([0, 1, 3, 6])
    scores = -sequence_loss(logprobs_of(logits), tokens)
    zero = torch.zeros(N, dtype=torch.float64)
    torch.testing.assert_close(forward_kl(logprobs_of(logits), target), zero, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        gradient_of(lambda s: forward_kl(s, target), logits), torch.zeros_like(logits), rtol=0, atol=1e-12
    )
    assert (reverse_kl(logprobs_of(logits), tokens, scores) == 0).all()
    assert (gradient_of(lambda s: reverse_kl_loss(s, tokens, scores, clip=5.0), logits) == 0).all()


@given(SEEDS, TOPS)
def test_the_tail_fills_the_buckets_up_to_one(seed: int, top: int) -> None:
    target = target_of(logits_of(seed), top)
    filled = target.logprobs.exp().sum(-1) + tail(target)
    torch.testing.assert_close(filled, torch.ones(N, dtype=torch.float64), rtol=0, atol=1e-12)
    assert (tail(target) >= 0).all()


@given(SEEDS)
def test_with_all_tokens_it_is_the_full_divergence_even_with_one_that_is_ruled_out(seed: int) -> None:
    student, teacher = logprobs_of(logits_of(seed)), logits_of(seed + 1)
    full = full_kl(logprobs_of(teacher), student)
    torch.testing.assert_close(forward_kl(student, target_of(teacher, V - 1)), full)
    torch.testing.assert_close(forward_kl(student, target_of(teacher, V)), full)
    assert torch.isfinite(gradient_of(lambda s: forward_kl(s, target_of(teacher, V)), logits_of(seed))).all()


@given(SEEDS, st.integers(1, V - 2))
def test_more_buckets_see_more(seed: int, top: int) -> None:
    """The data processing inequality: merging buckets cannot raise a divergence, and none is negative."""
    student, teacher = logprobs_of(logits_of(seed)), logits_of(seed + 1)
    coarse, fine = (forward_kl(student, target_of(teacher, k)) for k in (top, top + 1))
    assert (coarse <= fine + 1e-12).all()
    assert (coarse >= -1e-12).all()


def test_forward_kl_by_hand() -> None:
    """Teacher 1/2 on a, the rest elsewhere; student 1/4 on a: 1/2 ln 2 + 1/2 ln (1/2 / 3/4) = ln 2 / 2 - ln 1.5 / 2."""
    student = torch.log(torch.tensor([[0.25, 0.25, 0.5]], dtype=torch.float64))
    target = Target(torch.tensor([[0]]), torch.log(torch.tensor([[0.5]], dtype=torch.float64)))
    assert float(forward_kl(student, target)) == pytest.approx(0.5 * math.log(2) - 0.5 * math.log(1.5))


def test_without_the_tail_mass_outside_would_be_free() -> None:
    """The student agrees on the ratio of the two named tokens, but has given half of its mass away."""
    student = torch.log(torch.tensor([[0.25, 0.25, 0.5]], dtype=torch.float64))
    target = Target(torch.tensor([[0, 1]]), torch.log(torch.tensor([[0.5, 0.5]], dtype=torch.float64)))
    assert float(forward_kl(student, target)) == pytest.approx(math.log(2))


def test_an_advantage_is_clipped() -> None:
    """log p_T - log p_S = -30 + ln 2; clipped to -5, the loss is 5 log p_S."""
    student = torch.log(torch.tensor([[0.5, 0.5]], dtype=torch.float64))
    loss = reverse_kl_loss(student, torch.tensor([0]), torch.tensor([-30.0], dtype=torch.float64), clip=5.0)
    assert float(loss) == pytest.approx(5 * math.log(0.5))
