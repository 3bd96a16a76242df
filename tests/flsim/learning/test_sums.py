"""A head solved from sums: a number by hand, what adding and units change (nothing), and a ridge regression."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from flsim.learning.benefit import FIRST_CHANCES, chances, first_head
from flsim.learning.sums import gathered, solved

pytestmark = pytest.mark.usefixtures("one_thread")

PRIOR = torch.tensor(FIRST_CHANCES)
F = 4  # a constant and three features


def seen(seed: int, drafts: int = 60) -> tuple[Tensor, Tensor, Tensor]:
    """Features `(1, n, F)`, labels and weights `(1, n, 2)`: all drafts are judged, and half of the answers bought."""
    rng = torch.Generator().manual_seed(seed)
    phi = torch.cat([torch.ones(drafts, 1), torch.randn(drafts, F - 1, generator=rng)], 1)[None]  # (1, n, F)
    chance = torch.sigmoid(torch.stack([phi[..., 1], 1 + phi[..., 2]], -1))  # (1, n, 2)
    labels = (torch.rand(chance.shape, generator=rng) < chance).float()
    bought = (torch.rand(1, drafts, generator=rng) < 0.5).float()
    return phi, labels, torch.stack([torch.ones(1, drafts), bought], -1)


def test_a_weight_by_hand() -> None:
    """Right at +1 and wrong at -1, a million of each: 1 / (1 + ridge) * 1/2 over 1/4."""
    phi = torch.tensor([[[1.0, 1.0], [1.0, -1.0]]])
    labels = torch.tensor([[[1.0, 1.0], [0.0, 1.0]]])
    sums = gathered(phi, labels, torch.full((1, 2, 2), 1e6))
    found = solved(sums, PRIOR, 1.0)
    assert found[0, 0].tolist() == pytest.approx([0.0, 1.0], abs=1e-5)
    assert found[0, 1].tolist() == pytest.approx([np.log(2e6 + 0.9) - np.log(0.1), 0.0], abs=0.2)  # it never failed


def test_nothing_seen_is_the_head_that_a_fleet_starts_from() -> None:
    assert torch.allclose(solved(torch.zeros(1, 2, F, F + 1), PRIOR, 1.0)[0], torch.cat([first_head(0)[:, :F]], 1))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), cut=st.integers(1, 59), ridge=st.sampled_from([0.01, 1.0, 30.0]))
def test_sums_of_parts_have_the_solution_of_the_whole(seed: int, cut: int, ridge: float) -> None:
    phi, labels, weights = seen(seed)
    parts = [gathered(*(of[:, part] for of in (phi, labels, weights))) for part in (slice(cut), slice(cut, None))]
    whole = gathered(phi, labels, weights)
    torch.testing.assert_close(
        solved(parts[0] + parts[1], PRIOR, ridge), solved(whole, PRIOR, ridge), rtol=0, atol=1e-3
    )


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), unit=st.floats(0.1, 50), shift=st.floats(-5, 5))
def test_units_of_a_feature_change_no_chance(seed: int, unit: float, shift: float) -> None:
    phi, labels, weights = seen(seed)
    other = phi.clone()
    other[..., 2] = unit * phi[..., 2] + shift
    found = [chances(solved(gathered(own, labels, weights), PRIOR, 0.3), own) for own in (phi, other)]
    torch.testing.assert_close(*found, rtol=0, atol=1e-3)


def test_a_feature_that_is_held_back_without_end_is_as_good_as_left_out() -> None:
    phi, labels, weights = seen(5)
    ridges = torch.tensor([0.3, 0.3, 1e12, 0.3])
    found = solved(gathered(phi, labels, weights), PRIOR, ridges)  # (1, 2, F)
    kept = [0, 1, 3]
    without = solved(gathered(phi[..., kept], labels, weights), PRIOR, 0.3)  # (1, 2, F - 1)
    torch.testing.assert_close(found[..., kept], without, rtol=0, atol=1e-3)
    assert found[..., 2].abs().max() < 1e-6


def test_it_is_a_ridge_regression_in_the_logit() -> None:
    """scikit-learn's weights on standardised features, by share (1 - share); with one penalty for both chances."""
    phi, labels, weights = seen(3, 400)
    found = solved(gathered(phi, labels, weights), PRIOR, 0.2)[0].double().numpy()  # (2, F)
    for row in (0, 1):
        kept = weights[0, :, row].bool()
        x, y = phi[0, kept, 1:].double().numpy(), labels[0, kept, row].double().numpy()
        scaler = StandardScaler().fit(x)
        fit = Ridge(alpha=0.2 * 400).fit(scaler.transform(x), y)
        share = (y.sum() + FIRST_CHANCES[row]) / (len(y) + 1)
        np.testing.assert_allclose(found[row, 1:], fit.coef_ / scaler.scale_ / (share * (1 - share)), rtol=1e-3)
        logit = found[row, 0] + found[row, 1:] @ x.mean(0)
        assert logit == pytest.approx(np.log(share / (1 - share)), abs=1e-4)
