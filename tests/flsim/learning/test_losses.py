"""The policy losses against hand-derived numbers, finite differences and their laws."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from flsim.learning.advantage import task_advantage
from flsim.learning.losses import (
    AGGREGATIONS,
    LEVELS,
    Clipping,
    PolicyLoss,
    aggregate,
    gvpo_loss,
    importance,
    k3,
    surrogate,
)
from tests.flsim.learning.estimator import policy_gradient_loss

pytestmark = pytest.mark.usefixtures("one_thread")

LENGTH = 6  # the longest response allowed; the longest there is has 5 tokens
UNBOUNDED = Clipping(low=1.0, high=math.inf)
LOSSES = [
    PolicyLoss(aggregation, level, Clipping(0.2, 0.28, delta), beta, correct_kl, LENGTH)
    for aggregation, (level, delta), (beta, correct_kl) in product(
        AGGREGATIONS, (("token", 1.5), ("sequence", None)), ((0.0, True), (0.3, True), (0.3, False))
    )
]


@dataclass(frozen=True)
class Pack:
    """What a loss looks at, drawn at random."""

    logprobs: Tensor
    old: Tensor
    reference: Tensor
    advantages: Tensor
    mask: Tensor
    real: Tensor

    def of(self, *devices: int, prompts: int | None = None) -> "Pack":
        """Some devices only, and of these the first prompts."""
        parts = {name: part[list(devices), :prompts] for name, part in vars(self).items()}
        return Pack(**parts)


def pack_of(counts: tuple[int, ...] = (3, 1, 2), *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Pack:
    """Devices with so many prompts each, 4 responses of 1 to 5 tokens; ratios from about 1/2 to 2."""
    generator = torch.Generator().manual_seed(seed)
    shape = len(counts), max(counts), 4, 5  # (K, P, G, T)
    lengths = torch.randint(1, 6, shape[:3], generator=generator)
    mask = torch.arange(5) < lengths[..., None]
    logprobs, moves, others = torch.randn(3, *shape, generator=generator, dtype=dtype)
    logprobs = -logprobs.abs() * mask
    return Pack(
        logprobs=logprobs,
        old=logprobs + 0.3 * moves * mask,
        reference=logprobs + 0.5 * others * mask,
        advantages=torch.randn(shape[:3], generator=generator, dtype=dtype),
        mask=mask,
        real=torch.arange(max(counts)) < torch.tensor(counts)[:, None],
    )


Loss = Callable[[Pack], Tensor]


def policy(loss: PolicyLoss) -> Loss:
    return lambda pack: loss.per_device(
        pack.logprobs, pack.advantages, pack.mask, pack.real, old=pack.old, reference=pack.reference
    )


def gvpo(pack: Pack) -> Tensor:
    return gvpo_loss(pack.logprobs, pack.advantages, pack.mask, pack.real, old=pack.old)


EVERY = pytest.mark.parametrize("loss", [*map(policy, LOSSES), gvpo], ids=[*map(str, LOSSES), "gvpo"])


def value_and_gradient(loss: Loss, pack: Pack) -> tuple[Tensor, Tensor]:
    """`(K,)` and, by the log-probabilities, `(K, P, G, T)`."""
    logprobs = pack.logprobs.clone().requires_grad_()
    value = loss(replace(pack, logprobs=logprobs))
    (gradient,) = torch.autograd.grad(value.sum(), logprobs)
    return value.detach(), gradient


# --- laws of all losses


@EVERY
def test_gradient_is_that_of_finite_differences(loss: Loss) -> None:
    pack = pack_of((2, 1), dtype=torch.float64)
    logprobs = pack.logprobs.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda given: loss(replace(pack, logprobs=given)), logprobs)


@EVERY
def test_packing_changes_no_bit_of_a_device(loss: Loss) -> None:
    """Each device alone, in a tensor of the pack's shape: the same loss and the same gradient."""
    pack = pack_of()
    values, gradients = value_and_gradient(loss, pack)
    for k in range(3):
        value, gradient = value_and_gradient(loss, pack.of(k))
        assert torch.equal(value, values[k : k + 1])
        assert torch.equal(gradient, gradients[k : k + 1])


@EVERY
def test_a_device_is_normalised_by_its_own_prompts_and_tokens(loss: Loss) -> None:
    """Alone and without filling, the sums are shorter, which may move a last bit, and no more."""
    pack = pack_of(dtype=torch.float64)
    values, gradients = value_and_gradient(loss, pack)
    for k, prompts in enumerate((3, 1, 2)):
        value, gradient = value_and_gradient(loss, pack.of(k, prompts=prompts))
        torch.testing.assert_close(value[0], values[k])
        torch.testing.assert_close(gradient[0], gradients[k, :prompts])
        assert not gradients[k, prompts:].any()


@EVERY
def test_what_lies_outside_the_mask_counts_for_nothing(loss: Loss) -> None:
    pack = pack_of()
    counted = pack.mask & pack.real[..., None, None]
    noisy = replace(pack, **{name: getattr(pack, name).where(counted, -3.0) for name in ("logprobs", "old")})
    for plain, other in zip(value_and_gradient(loss, pack), value_and_gradient(loss, noisy), strict=True):
        assert torch.equal(plain, other)


@EVERY
def test_a_device_of_filling_only_has_no_loss_and_no_gradient(loss: Loss) -> None:
    value, gradient = value_and_gradient(loss, pack_of((2, 0)))
    assert value[1] == 0
    assert not gradient[1].any()
    assert value[0] != 0


@EVERY
def test_a_response_without_tokens_is_no_trouble(loss: Loss) -> None:
    pack = pack_of()
    value, gradient = value_and_gradient(loss, replace(pack, mask=pack.mask & (torch.arange(4) > 0)[:, None]))
    assert value.isfinite().all()
    assert not gradient[:, :, 0].any()


@EVERY
def test_gradient_flows_through_the_logprobs_only(loss: Loss) -> None:
    pack = pack_of()
    parts = {name: part.requires_grad_() for name, part in vars(pack).items() if part.is_floating_point()}
    loss(replace(pack, **parts)).sum().backward()
    assert [name for name, part in parts.items() if part.grad is not None] == ["logprobs"]


# --- the ratio and its clip


def test_ratio_by_hand() -> None:
    """Tokens twice as likely, half as likely, eight times as likely; the third response token does not count.

    By sequence: (2 x 1/2 x 8)^(1/3) = 2 over all three, and (2 x 1/2)^(1/2) = 1 over the first two.
    """
    logprobs = torch.tensor([[[[2.0, 0.5, 8.0], [2.0, 0.5, 8.0]]]]).log()
    mask = torch.tensor([[[[True, True, True], [True, True, False]]]])
    old = torch.zeros(1, 1, 2, 3)
    by_token = importance(logprobs, old, mask, level="token")
    torch.testing.assert_close(by_token, torch.tensor([[[[2.0, 0.5, 8.0]] * 2]]))
    by_sequence = importance(logprobs, old, mask, level="sequence")
    torch.testing.assert_close(by_sequence, torch.tensor([[[[2.0], [1.0]]]]))


@pytest.mark.parametrize("level", LEVELS)
def test_without_an_old_policy_every_ratio_is_one_and_still_has_a_gradient(level: str) -> None:
    pack = pack_of()
    logprobs = pack.logprobs.requires_grad_()
    ratio = importance(logprobs, None, pack.mask, level=level)
    assert (ratio == 1).all()
    (gradient,) = torch.autograd.grad(ratio.sum(), logprobs)
    assert gradient.any()


@pytest.mark.parametrize(
    ("ratio", "advantage", "delta", "loss", "pulls"),
    [
        (2.0, 1.0, None, -1.28, False),  # better and already likelier: nothing more to gain
        (2.0, -1.0, None, 2.0, True),  # worse and likelier: down without bound,
        (2.0, -1.0, 1.5, 1.5, False),  # unless delta bounds it
        (0.5, 1.0, None, -0.5, True),  # better and rarer: back up
        (0.5, -1.0, None, 0.8, False),  # worse and already rarer
        (1.1, 1.0, 1.5, -1.1, True),
        (1.1, -1.0, 1.5, 1.1, True),
    ],
)
def test_surrogate_by_hand(ratio: float, advantage: float, delta: float | None, loss: float, pulls: bool) -> None:
    """Bounds 0.8 and 1.28."""
    rho = torch.tensor([[[[ratio]]]], requires_grad=True)
    found = surrogate(rho, torch.tensor([[[advantage]]]), Clipping(0.2, 0.28, delta))
    assert found.item() == pytest.approx(loss)
    (gradient,) = torch.autograd.grad(found.sum(), rho)
    assert gradient.item() == pytest.approx(-advantage if pulls else 0.0)


@given(st.floats(0.01, 10), st.floats(-3, 3), st.floats(0, 1), st.floats(0, 1))
def test_clipping_never_promises_more_than_the_ratio(rho: float, advantage: float, low: float, high: float) -> None:
    """The surrogate bounds `-rho A` from above, and is that where the ratio lies within its bounds."""
    ratio, a = torch.tensor([[[[rho]]]], dtype=torch.float64), torch.tensor([[[advantage]]], dtype=torch.float64)
    found, plain = surrogate(ratio, a, Clipping(low, high)).item(), -rho * advantage
    assert found >= plain
    if 1 - low <= rho <= 1 + high:
        assert found == plain
    assert surrogate(ratio, a, UNBOUNDED).item() == plain


# --- the penalty


def test_k3_by_hand() -> None:
    """Twice as likely under the reference: 2 - log 2 - 1 = 0.307; half as likely: 1/2 + log 2 - 1 = 0.193."""
    found = k3(torch.zeros(3), torch.tensor([2.0, 0.5, 1.0]).log())
    assert found.tolist() == pytest.approx([1 - math.log(2), math.log(2) - 0.5, 0.0])


@given(st.floats(-10, 0, width=32), st.floats(-10, 0, width=32))
def test_k3_is_never_negative(logprob: float, reference: float) -> None:
    found = k3(torch.tensor(logprob, dtype=torch.float64), torch.tensor(reference, dtype=torch.float64))
    assert found >= -1e-12
    if logprob == reference:
        assert found == 0


def test_only_the_corrected_k3_descends_the_divergence() -> None:
    """By enumeration of a policy of four actions: mean value and mean gradient, each action by its probability.

    The value is that of KL(pi || ref) either way. The gradient is that of KL(ref || pi) as it is, and that of
    KL(pi || ref) times the ratio.
    """
    theta = torch.tensor([0.2, -0.4, 0.9, 0.3], dtype=torch.float64, requires_grad=True)
    log_pi = torch.log_softmax(theta, -1)
    log_ref = torch.log_softmax(torch.tensor([0.0, 0.5, -1.0, 0.4], dtype=torch.float64), -1)
    chances, ratio = log_pi.detach().exp(), (log_pi - log_pi.detach()).exp()
    forward, reverse = (log_ref.exp() * (log_ref - log_pi)).sum(), (log_pi.exp() * (log_pi - log_ref)).sum()

    def gradient(of: Tensor) -> Tensor:
        (found,) = torch.autograd.grad(of, theta, retain_graph=True)
        return found

    for plain, divergence in ((k3(log_pi, log_ref), forward), (k3(log_pi, log_ref) * ratio, reverse)):
        torch.testing.assert_close((chances * plain).sum(), reverse)
        torch.testing.assert_close(gradient((chances * plain).sum()), gradient(divergence))
    assert (gradient(forward) - gradient(reverse)).abs().max() > 0.05


# --- one number of many tokens


def test_aggregations_by_hand() -> None:
    """Responses with the losses (1, 2) and (4), beside a prompt of filling; 4 tokens are allowed.

    sum 7/2; grpo (3/2 + 4)/2; bnpo and dapo 7/3; dr_grpo 7/(2 x 4).
    """
    losses = torch.tensor([[[[1.0, 2.0], [4.0, 9.0]], [[9.0, 9.0], [9.0, 9.0]]]])  # (1, 2, 2, 2)
    mask = torch.tensor([[[[True, True], [True, False]], [[True, True], [True, True]]]])
    real = torch.tensor([[True, False]])
    expected = {"sum": 7 / 2, "grpo": 2.75, "bnpo": 7 / 3, "dapo": 7 / 3, "dr_grpo": 7 / 8}
    assert set(expected) == set(AGGREGATIONS)
    for aggregation, number in expected.items():
        found = aggregate(losses, mask, real, aggregation=aggregation, max_length=4)
        assert found.tolist() == pytest.approx([number]), aggregation


def test_a_loss_by_hand() -> None:
    """One response of two tokens, A = 2, token ratios 1/2 and 2, reference as likely as the old policy, beta 1/2.

    Surrogates: -min(1, 1.6) = -1 and -min(4, 2.4) = -2.4. k3: 2 - log 2 - 1 = 0.307 and 1/2 + log 2 - 1 = 0.193, times
    the ratio 0.153 and 0.386. bnpo: (-1 + 0.077 - 2.4 + 0.193) / 2 = -1.565.
    """
    old = torch.full((1, 1, 1, 2), -1.0)
    logprobs = old + torch.tensor([0.5, 2.0]).log()
    loss = PolicyLoss("bnpo", beta=0.5)
    everything = torch.ones(1, 1, 1, 2, dtype=torch.bool), torch.ones(1, 1, dtype=torch.bool)
    found = loss.per_device(logprobs, torch.tensor([[[2.0]]]), *everything, old=old, reference=old)
    log2 = math.log(2)
    assert found.item() == pytest.approx((-1 + 0.5 * 0.5 * (1 - log2) - 2.4 + 0.5 * 2 * (log2 - 0.5)) / 2)


@pytest.mark.parametrize("clipping", [Clipping(), Clipping(0.2, 0.28, 1.5), UNBOUNDED])
def test_on_policy_the_sum_is_the_policy_gradient(clipping: Clipping) -> None:
    """Bit for bit; by sequence, and for Dr.GRPO times its length, up to rounding."""
    pack = pack_of()

    def gradient(loss: PolicyLoss) -> Tensor:
        return value_and_gradient(lambda p: loss.per_device(p.logprobs, p.advantages, p.mask, p.real), pack)[1]

    _, plain = value_and_gradient(lambda p: policy_gradient_loss(p.logprobs * p.mask, p.advantages, p.real), pack)
    assert torch.equal(gradient(PolicyLoss("sum", clipping=clipping)), plain)
    torch.testing.assert_close(gradient(PolicyLoss("sum", "sequence", clipping)), plain)
    dr_grpo = PolicyLoss("dr_grpo", clipping=clipping, max_length=LENGTH)
    torch.testing.assert_close(LENGTH * gradient(dr_grpo), plain)


# --- GVPO


def test_gvpo_by_hand() -> None:
    """Rewards 1, 0, beta 1/2; the responses became e times as likely (over two tokens) and as likely as before.

    Implicit rewards 1/2 and 0; their offsets 1/4 and -1/4, those of the rewards 1/2 and -1/2, gaps -1/4 and 1/4: the
    loss is (1/16 + 1/16) / 2 / (2 - 1) = 1/16. Its gradient by a token of the first is beta x gap / (G - 1) = -1/8.
    """
    old = torch.full((1, 1, 2, 2), -2.0)
    logprobs = (old + torch.tensor([[0.5, 0.5], [0.0, 0.0]])).requires_grad_()
    real, mask = torch.ones(1, 1, dtype=torch.bool), torch.ones(1, 1, 2, 2, dtype=torch.bool)
    loss = gvpo_loss(logprobs, torch.tensor([[[1.0, 0.0]]]), mask, real, old=old, beta=0.5)
    assert loss.tolist() == [0.0625]
    (gradient,) = torch.autograd.grad(loss.sum(), logprobs)
    assert gradient.tolist() == [[[[-0.125, -0.125], [0.125, 0.125]]]]


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_on_policy_gvpo_is_beta_times_the_centred_policy_gradient(beta: float) -> None:
    pack = pack_of(dtype=torch.float64)
    _, found = value_and_gradient(
        lambda p: gvpo_loss(p.logprobs, p.advantages, p.mask, p.real, old=None, beta=beta), pack
    )
    _, plain = value_and_gradient(
        lambda p: policy_gradient_loss(p.logprobs * p.mask, task_advantage(p.advantages), p.real), pack
    )
    torch.testing.assert_close(found, beta * plain)
    assert plain.any()


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_gvpo_is_zero_at_the_best_policy_under_the_penalty(beta: float) -> None:
    """`pi_old exp(R / beta)`, whatever its normaliser: a number per prompt cancels."""
    pack = pack_of(dtype=torch.float64)
    normaliser = torch.tensor([[1.0], [-2.0], [0.5]])  # (P, 1)
    gain = (pack.advantages / beta + normaliser)[..., None] / pack.mask.sum(-1, keepdim=True)  # (K, P, G, 1)
    best = replace(pack, logprobs=(pack.old + gain) * pack.mask)
    value, gradient = value_and_gradient(
        lambda p: gvpo_loss(p.logprobs, p.advantages, p.mask, p.real, old=p.old, beta=beta), best
    )
    torch.testing.assert_close(value, torch.zeros_like(value))
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))


# --- what is refused


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: PolicyLoss("mean"), r"aggregation='mean'.*sum, grpo, bnpo, dapo, dr_grpo"),
        (lambda: PolicyLoss("dr_grpo"), r"max_length, which is None"),
        (lambda: PolicyLoss("dr_grpo", max_length=0), r"max_length, which is 0"),
        (lambda: PolicyLoss(level="response"), r"level='response'.*token, sequence"),
        (lambda: PolicyLoss(beta=-0.1), r"beta=-0.1 must be at least 0"),
        (lambda: Clipping(low=1.5), r"low=1.5 must lie between 0 and 1"),
        (lambda: Clipping(high=-0.1), r"high=-0.1 must be at least 0"),
        (lambda: Clipping(high=math.nan), r"high=nan"),
        (lambda: Clipping(delta=1.2), r"delta=1.2 must be above 1 \+ high = 1.2"),
        (lambda: gvpo_loss(*[torch.zeros(1, 1, 2, 1)] * 4, beta=0.0), r"beta=0.0 must be above 0"),
        (lambda: gvpo_loss(torch.zeros(1, 1, 1, 1), *[torch.zeros(1, 1, 1)] * 3), r"a group of one"),
    ],
)
def test_what_cannot_work_is_refused(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_a_penalty_without_a_reference_is_refused() -> None:
    pack = pack_of()
    with pytest.raises(ValueError, match=r"beta=0.1 .* none is given"):
        PolicyLoss(beta=0.1).per_device(pack.logprobs, pack.advantages, pack.mask, pack.real)
