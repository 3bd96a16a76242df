"""The loss of hidden states and the maps between them: laws, numbers by hand, finite differences."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from flsim.learning.features import COSINE, FEATURE_LOSSES, SQUARE, feature_loss, fitted_maps, mapped_by

S, N, OWN, TAUGHT = 2, 5, 3, 4
SEEDS = st.integers(0, 10_000)


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def loss_of(mapped: list[float], taught: list[float], kind: str) -> float:
    """Of one place of one pair."""
    return float(feature_loss(torch.tensor([[mapped]]), torch.tensor([[taught]]), kind))


def test_by_hand() -> None:
    """(3, 4) and (1, 0): the cosine is 3/5; apart are (2, 4), whose square is 20, in parts of 1 and of (2, 0)'s 4."""
    assert loss_of([3.0, 4.0], [1.0, 0.0], COSINE) == pytest.approx(0.4)
    assert loss_of([3.0, 4.0], [1.0, 0.0], SQUARE) == pytest.approx(20.0)
    assert loss_of([3.0, 4.0], [2.0, 0.0], SQUARE) == pytest.approx((1 + 16) / 4)
    assert loss_of([-2.0, 0.0], [1.0, 0.0], COSINE) == pytest.approx(2.0)
    assert loss_of([0.0, 0.0], [1.0, 0.0], COSINE) == loss_of([0.0, 0.0], [1.0, 0.0], SQUARE) == 1.0


def test_the_gradient_of_the_cosine_by_hand() -> None:
    """By m = (3, 4) it is -(t/|t| - cos m/|m|)/|m| = -((1, 0) - 0.6 (0.6, 0.8))/5."""
    mapped = torch.tensor([[[3.0, 4.0]]], requires_grad=True)
    feature_loss(mapped, torch.tensor([[[1.0, 0.0]]]), COSINE).sum().backward()
    assert mapped.grad is not None
    assert mapped.grad.flatten().tolist() == pytest.approx([-0.128, 0.096])


@given(SEEDS, st.sampled_from(FEATURE_LOSSES))
def test_gradients_by_states_and_maps_are_those_of_finite_differences(seed: int, kind: str) -> None:
    taught = drawn(seed, S, N, TAUGHT)
    parts = [drawn(seed + 1, S, TAUGHT, OWN), drawn(seed + 2, S, N, OWN)]

    def loss(maps: Tensor, states: Tensor) -> Tensor:
        return feature_loss(mapped_by(maps, states), taught, kind).sum()

    asked = [part.clone().requires_grad_() for part in parts]
    assert torch.autograd.gradcheck(loss, asked, eps=1e-6, atol=1e-6, rtol=1e-5)


@given(SEEDS, st.floats(0.1, 100), st.sampled_from(FEATURE_LOSSES))
def test_the_scale_of_the_teachers_states_means_nothing(seed: int, scale: float, kind: str) -> None:
    """With maps of that scale; a cosine does not even look at theirs."""
    mapped, taught = drawn(seed, S, N, TAUGHT), drawn(seed + 1, S, N, TAUGHT)
    own = mapped if kind == COSINE else scale * mapped
    torch.testing.assert_close(feature_loss(own, scale * taught, kind), feature_loss(mapped, taught, kind))


@given(SEEDS, st.sampled_from(FEATURE_LOSSES))
def test_states_that_the_maps_bring_to_the_teachers_lose_nothing(seed: int, kind: str) -> None:
    states, maps = drawn(seed, S, N, OWN), drawn(seed + 1, S, TAUGHT, OWN)
    taught = mapped_by(maps, states)
    torch.testing.assert_close(taught[1, 2], maps[1] @ states[1, 2])
    assert feature_loss(taught, taught, kind).abs().max() < 1e-12


@given(SEEDS)
def test_fitted_maps_are_the_least_of_the_ridge(seed: int) -> None:
    """At the minimum the gradient of `sum |W h - t|^2 + ridge |W|^2` vanishes, pair by pair."""
    states, taught = drawn(seed, S, N, OWN), drawn(seed + 1, S, N, TAUGHT)
    maps = fitted_maps(states, taught).requires_grad_()
    ridge = 0.01 * states.square().sum((1, 2)) / OWN  # (S,): a hundredth of the mean of the Gram's diagonal
    missed = (mapped_by(maps, states) - taught).square().sum((1, 2)) + ridge * maps.square().sum((1, 2))  # (S,)
    (gradient,) = torch.autograd.grad(missed.sum(), maps)
    assert gradient.abs().max() < 1e-9


def test_a_linear_teacher_is_found_again() -> None:
    """With many places the ridge, a hundredth, is all that the maps are off."""
    states, maps = drawn(0, S, 4000, OWN), drawn(1, S, TAUGHT, OWN)
    found = fitted_maps(states, mapped_by(maps, states))
    torch.testing.assert_close(found, maps / 1.01, rtol=0.01, atol=0.01)


def test_fewer_places_than_numbers_and_states_of_zeros_have_maps() -> None:
    few = fitted_maps(drawn(0, 1, 2, 50).float(), drawn(1, 1, 2, TAUGHT).float())
    assert few.isfinite().all()
    assert few.dtype == torch.float32
    assert (fitted_maps(torch.zeros(1, N, OWN), torch.ones(1, N, TAUGHT)) == 0).all()
