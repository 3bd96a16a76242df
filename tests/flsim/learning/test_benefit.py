"""The benefit head: where a price settles, gradients against autograd, features of a draft alone, and calibration."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from flsim.learning.benefit import (
    ALONE,
    CLOUD,
    FEATURES,
    FIRST_CHANCE,
    NUMBERS,
    ask_chance,
    benefit,
    chances,
    features,
    first_head,
    head_gradient,
    regression_pull,
)
from flsim.learning.dual import DualRule

pytestmark = pytest.mark.usefixtures("one_thread")

UNIT = st.floats(-1, 1, width=32)
SHARES = st.floats(0, 1, width=32)
K, P, G, T, D = 3, 4, 5, 7, 6


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --------------------------------------------------------------------------------------------- asking where it is worth


def settled(gain: Tensor, rule: DualRule, *, tau: float, temperature: float, dual: float, steps: int) -> Tensor:
    """Usage and lambda after so many ascents of a device that asks by b `(types,)`, `(2,)`."""
    multiplier = torch.tensor([dual])
    for _ in range(steps):
        usage = ask_chance(gain[None, :, None], multiplier[:, None], temperature).mean((1, 2))  # (1,)
        multiplier = rule.ascend(multiplier, usage, tau)
    return torch.cat([usage, multiplier])


@pytest.mark.parametrize(("tau", "dual"), [(0.1, 1.0), (0.3, 0.0), (0.3, 1.0), (0.6, 0.5)])
def test_the_price_settles_at_the_quantile_of_the_benefit(tau: float, dual: float) -> None:
    """b is the square of a uniform number, so its (1 - tau)-quantile is (1 - tau)^2, wherever one starts."""
    gain = torch.linspace(0, 1, 2001) ** 2
    usage, multiplier = settled(gain, DualRule(lr=0.02), tau=tau, temperature=0.01, dual=dual, steps=600).tolist()
    assert usage == pytest.approx(tau, abs=2e-3)
    assert multiplier == pytest.approx((1 - tau) ** 2, abs=5e-3)
    asked = gain > multiplier
    assert asked.float().mean().item() == pytest.approx(tau, abs=5e-3)  # as at tests
    sent = gain[asked].sum()
    assert sent >= gain[torch.randperm(2001, generator=source())[: int(asked.sum())]].sum()  # no choice gains more


def test_a_benefit_that_is_always_the_same_is_asked_for_at_random() -> None:
    """The chance is one for all drafts and settles at tau: b - lambda = T logit(tau)."""
    tau, heat = 0.3, 0.1
    usage, multiplier = settled(torch.full((50,), 0.4), DualRule(), tau=tau, temperature=heat, dual=0.5, steps=400)
    assert float(usage) == pytest.approx(tau, abs=1e-4)
    assert float(multiplier) == pytest.approx(0.4 - heat * math.log(tau / (1 - tau)), abs=1e-4)
    draws = torch.rand(200_000, generator=source()) < usage
    assert draws.float().mean().item() == pytest.approx(tau, abs=5e-3)


def test_a_fleets_first_head_is_such_a_benefit() -> None:
    """0.9 - 0.5 whatever the draft and however fast it learns."""
    for scale in (1.0, 5.0):
        phi = features(*drafts(), scale=scale)  # (K, P, G, F)
        both = chances(first_head(D, scale=scale).expand(K, -1, -1), phi)  # (K, P, G, 2)
        torch.testing.assert_close(both[..., ALONE], torch.full((K, P, G), 0.5))
        torch.testing.assert_close(both[..., CLOUD], torch.full((K, P, G), FIRST_CHANCE))
        torch.testing.assert_close(benefit(both), torch.full((K, P, G), 0.4))


@given(UNIT, UNIT, SHARES, st.floats(1e-3, 2))
def test_who_gains_more_asks_more_and_nobody_more_at_a_higher_price(
    one: float, other: float, price: float, heat: float
) -> None:
    gain = torch.tensor([[sorted([one, other])]])  # (1, 1, 2)
    for temperature in (heat, 0.0):
        at, dearer = (ask_chance(gain, torch.tensor([[p]]), temperature) for p in (price, price + 0.1))
        assert ((at >= 0) & (at <= 1)).all()
        assert (at.diff(dim=-1) >= 0).all()
        assert (dearer <= at).all()


@given(UNIT, SHARES)
def test_a_cold_request_is_a_threshold(b: float, price: float) -> None:
    """T -> 0, and T = 0 itself; at b = lambda exactly nobody asks."""
    gain, at = torch.tensor([[[b]]]), torch.tensor([[price]])
    threshold = ask_chance(gain, at, 0.0).item()
    assert threshold == float(torch.tensor(b) > torch.tensor(price))
    if abs(b - price) > 1e-3:
        assert ask_chance(gain, at, 1e-5).item() == pytest.approx(threshold, abs=1e-6)


def test_who_may_not_ask_does_not() -> None:
    gain = torch.ones(1, 1, 3)
    for temperature in (0.1, 0.0):
        assert not ask_chance(gain, torch.full((1, 1), torch.inf), temperature).any()


# ------------------------------------------------------------------------------------------------------------- features


def drafts(seed: int = 0, longest: int = T) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden states, log-probabilities, entropies and masks of K P G drafts of 1 to T tokens, padded to `longest`."""
    mask = torch.arange(longest) < torch.randint(1, T + 1, (K, P, G, 1), generator=source(seed))  # (K, P, G, longest)
    drawn = -torch.rand(2, K, P, G, T, generator=source(seed + 1)) * 3
    logprobs, entropies = (F.pad(of, (0, longest - T)) * mask for of in (drawn[0], -drawn[1]))
    return torch.randn(K, P, G, D, generator=source(seed + 2)) * 4, logprobs, entropies, mask


def test_features_by_hand() -> None:
    """Two tokens of log-probabilities -1 and -3, entropies 0.5 and 2, and padding; the hidden state (3, 4).

    Mean -2, least -3, last -3, sum by the root of two -4 / sqrt 2, greatest entropy 2, mean 1.25, log 2. The root of
    the hidden state's mean square is sqrt(12.5).
    """
    parts = [3.0, 4.0], [-1.0, -3.0, 0.0], [0.5, 2.0, 0.0], [True, True, False]
    expected = [1, -2, -3, -3, -4 / 2**0.5, 2, 1.25, math.log(2), 3 / 12.5**0.5, 4 / 12.5**0.5]
    torch.testing.assert_close(features(*map(torch.tensor, parts)), torch.tensor(expected), rtol=1e-5, atol=1e-6)
    scaled = features(*map(torch.tensor, parts), scale=5.0)
    torch.testing.assert_close(scaled, 5 * torch.tensor(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", FEATURES)
@pytest.mark.parametrize("longest", [8, 9, 16, 40, 129])
def test_features_are_of_the_draft_alone(kind: str, longest: int) -> None:
    """However far others make it be padded and however many they are, no bit changes."""
    whole = features(*drafts(longest=longest), kind=kind, scale=5.0)  # (K, P, G, F)
    assert torch.equal(features(*drafts(), kind=kind, scale=5.0), whole)
    states, logprobs, entropies, mask = drafts()
    for k, p, g in ((0, 0, 0), (1, 2, 3), (2, 3, 4)):
        own = (states[k, p, g], *(of[k, p, g, : mask[k, p, g].sum()] for of in (logprobs, entropies, mask)))
        assert torch.equal(features(*own, kind=kind, scale=5.0), whole[k, p, g])


def test_a_kind_leaves_out_what_it_says() -> None:
    both, numbers, hidden = (features(*drafts(), kind=kind) for kind in FEATURES[:3])
    assert torch.equal(numbers[..., :NUMBERS], both[..., :NUMBERS])
    assert torch.equal(hidden[..., NUMBERS:], both[..., NUMBERS:])
    assert torch.equal(hidden[..., 0], both[..., 0])  # a constant has to be learned by any
    assert not numbers[..., NUMBERS:].any()
    assert not hidden[..., 1:NUMBERS].any()


def test_the_length_of_a_hidden_state_says_nothing() -> None:
    states, *rest = drafts()
    torch.testing.assert_close(features(states * 1e3, *rest), features(states, *rest), rtol=1e-3, atol=1e-4)


# ----------------------------------------------------------------------------------------------------------- regression


def test_chances_and_benefit_by_hand() -> None:
    """sigmoid(ln 3) = 3/4 and sigmoid(-ln 3) = 1/4: the cloud is ahead by 1/2; lambda 0.3, T 0.1: sigmoid(2)."""
    weight = torch.tensor([[[-math.log(3.0), 0.0], [0.0, math.log(3.0)]]])  # (1, 2, 2)
    both = chances(weight, torch.ones(1, 1, 1, 2))  # (1, 1, 1, 2)
    torch.testing.assert_close(both.flatten(), torch.tensor([0.25, 0.75]))
    torch.testing.assert_close(benefit(both).flatten(), torch.tensor([0.5]))
    asks = ask_chance(benefit(both), torch.tensor([[0.3]]), 0.1).item()
    assert asks == pytest.approx(1 / (1 + math.exp(-2)), rel=1e-5)


@dataclass(frozen=True)
class Lessons:
    """A pack's features, labels, and which of them are known."""

    phi: Tensor
    labels: Tensor
    known: Tensor

    @classmethod
    def drawn(cls, seed: int = 0) -> "Lessons":
        """Also a device that knows nothing of the cloud, and one that knows nothing at all."""
        phi = torch.randn(K, P, G, NUMBERS + D, generator=source(seed))
        labels, known = (torch.rand(2, K, P, G, 2, generator=source(seed + 1)) < 0.6).float()
        known[1, ..., CLOUD], known[2] = 0.0, 0.0
        return cls(phi, labels, known)

    def loss(self, weight: Tensor) -> Tensor:
        """Each device's mean cross-entropies over what it knows of the draft and of the cloud, `(K, 2)`."""
        logits = torch.einsum("kpgf,kcf->kpgc", self.phi, weight)
        each = F.binary_cross_entropy_with_logits(logits, self.labels, reduction="none") * self.known
        return each.sum((1, 2)) / self.known.sum((1, 2)).clamp(min=1)

    def gradient(self, weight: Tensor) -> Tensor:
        """By the formulas."""
        return head_gradient(regression_pull(chances(weight, self.phi), self.labels, self.known), self.phi)


def test_the_gradient_is_autograds() -> None:
    lessons, weight = Lessons.drawn(), torch.randn(K, 2, NUMBERS + D, generator=source(5)).requires_grad_()
    (expected,) = torch.autograd.grad(lessons.loss(weight).sum(), weight)
    found = lessons.gradient(weight.detach())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)
    assert not found[1, CLOUD].any()
    assert not found[2].any()
    assert found[0].abs().max() > 1e-2


def test_what_is_not_known_weighs_nothing() -> None:
    """Labels and features of filling may be anything, bit for bit."""
    lessons, weight = Lessons.drawn(), torch.randn(K, 2, NUMBERS + D, generator=source(5))
    filling = lessons.known.sum(-1, keepdim=True) == 0  # (K, P, G, 1)
    assert filling[0].any()
    other = Lessons(
        torch.where(filling, lessons.phi + 3, lessons.phi),
        torch.where(lessons.known > 0, lessons.labels, 1 - lessons.labels),
        lessons.known,
    )
    assert torch.equal(other.gradient(weight), lessons.gradient(weight))


def test_the_pull_by_hand() -> None:
    """Two drafts, chances 0.75 and 0.25 of being right, both right: (p - y) / 2; the cloud's label of one: (p - y)."""
    both = torch.tensor([[[[0.75, 0.5], [0.25, 0.5]]]])  # (1, 1, 2, 2)
    labels, known = torch.ones(1, 1, 2, 2), torch.tensor([[[[1.0, 1.0], [1.0, 0.0]]]])
    pull = regression_pull(both, labels, known)
    torch.testing.assert_close(pull[0, 0], torch.tensor([[-0.125, -0.5], [-0.375, 0.0]]))
    gradient = head_gradient(pull, torch.tensor([[[[2.0], [3.0]]]]))  # (1, 2, 1)
    torch.testing.assert_close(gradient.flatten(), torch.tensor([-0.125 * 2 - 0.375 * 3, -0.5 * 2]))


def test_regression_finds_the_chances_that_labels_were_drawn_from() -> None:
    """1,500 drafts with known chances: what is claimed comes true (ECE in ten bins), and b is found to 0.05."""
    count, width = 1500, 4
    phi = torch.cat([torch.ones(1, count, 1, 1), torch.randn(1, count, 1, width, generator=source())], -1)
    truth = torch.tensor([[[0.3, 1.5, -1.0, 0.0, 0.5], [1.5, -0.5, 0.0, 0.7, 0.0]]])  # (1, 2, 5)
    known = chances(truth, phi)  # (1, n, 1, 2)
    labels = (torch.rand(known.shape, generator=source(1)) < known).float()
    weight = torch.zeros(1, 2, 1 + width)
    for _ in range(300):
        weight -= 4 * head_gradient(regression_pull(chances(weight, phi), labels, torch.ones_like(labels)), phi)
    found = chances(weight, phi)
    assert (benefit(found) - benefit(known)).abs().mean() < 0.05
    fresh = (torch.rand(known.shape, generator=source(2)) < known).float()
    for row in (ALONE, CLOUD):
        assert expected_calibration_error(found[..., row].flatten(), fresh[..., row].flatten()) < 0.04
    assert expected_calibration_error(torch.full((count,), 0.5), fresh[..., CLOUD].flatten()) > 0.2


def expected_calibration_error(claimed: Tensor, true: Tensor) -> float:
    """Over ten bins of equal width (Guo et al. 2017, arXiv 1706.04599)."""
    bins = (claimed * 10).long().clamp(max=9).numpy()
    gaps = np.bincount(bins, weights=(claimed - true).numpy(), minlength=10)
    return float(np.abs(gaps).sum() / len(bins))
