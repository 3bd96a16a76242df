"""The rules of acceptance: their laws on any distributions, the numbers by hand, and what rounding may turn."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from flsim.collaboration.accept import (
    NONE,
    POINT,
    REJECTION,
    RULES,
    SHARED,
    acceptance,
    decide,
    gumbel_bound,
    residual,
)
from flsim.collaboration.drawing import draw, interval, near

pytestmark = pytest.mark.usefixtures("one_thread")

P, Q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.5, 0.3])
MANY = 20_000
NUMBERS = (torch.arange(MANY).double() + 0.5) / MANY
"""All numbers alike, so that a mean over them is an integral."""

DISTRIBUTIONS = st.lists(st.floats(0.01, 1), min_size=4, max_size=4).map(lambda of: torch.tensor(of) / sum(of))


def drafts(rule: str, q: Tensor) -> list[tuple[int, float]]:
    """The tokens that may be drafted, with their chances: those of q, or its likeliest one where that is certain."""
    return [(int(q.argmax()), 1.0)] if rule == POINT else list(enumerate(q.tolist()))


def came_of(rule: str, p: Tensor, q: Tensor, drafted: int, numbers: Tensor) -> tuple[Tensor, float]:
    """What comes of a drafted token over all numbers, `(V,)`, and how often it is accepted."""
    rows = len(numbers)
    found = decide(
        rule, p.log().expand(rows, -1), torch.full((rows,), drafted), numbers, q.expand(rows, -1), rounding=0.0
    )
    return torch.bincount(found.tokens, minlength=len(p)) / rows, float(found.accepted.double().mean())


def numbers_of(rule: str, q: Tensor, drafted: int) -> Tensor:
    """The numbers under which a token is drafted: of `shared` those that draw it from q, else all."""
    if rule != SHARED:
        return NUMBERS
    return NUMBERS[draw(q.log().expand(MANY, -1), NUMBERS) == drafted]


@pytest.mark.parametrize("rule", RULES)
@given(p=DISTRIBUTIONS, q=DISTRIBUTIONS)
def test_what_comes_out_is_distributed_as_the_cloud_alone(rule: str, p: Tensor, q: Tensor) -> None:
    """Summed exactly over drafts and numbers: p itself, with as many accepted as the closed form says."""
    total, accepted = torch.zeros(len(p)), 0.0
    for drafted, chance in drafts(rule, q):
        numbers = numbers_of(rule, q, drafted)
        if len(numbers):
            out, share = came_of(rule, p, q, drafted, numbers)
            total, accepted = total + chance * out, accepted + chance * share
    assert total.tolist() == pytest.approx(p.tolist(), abs=2e-3)
    assert accepted == pytest.approx(acceptance(rule, p, q), abs=2e-3)


@pytest.mark.parametrize(("rule", "chance"), [(REJECTION, 0.7), (SHARED, 0.6), (POINT, 0.3)])
def test_acceptance_by_hand(rule: str, chance: float) -> None:
    """p = (.5, .3, .2), q = (.2, .5, .3): .2 + .3 + .2; intervals that overlap .2 + .2 + .2; p of q's likeliest."""
    assert acceptance(rule, P, Q) == pytest.approx(chance)


def test_residual_and_bound_by_hand() -> None:
    assert residual(P.double(), Q.double()).tolist() == pytest.approx([1.0, 0.0, 0.0])
    assert residual(P, P).tolist() == P.tolist()
    assert gumbel_bound(P, Q) == pytest.approx((1 - 0.3) / (1 + 0.3))
    assert round(gumbel_bound(P, Q), 3) == 0.538


@given(p=DISTRIBUTIONS, q=DISTRIBUTIONS)
def test_rejection_accepts_most(p: Tensor, q: Tensor) -> None:
    assert acceptance(SHARED, p, q) <= acceptance(REJECTION, p, q) + 1e-9
    assert acceptance(POINT, p, q) <= float(p.max())
    assert acceptance(REJECTION, p, p) == pytest.approx(1.0)
    assert acceptance(SHARED, p, p) == pytest.approx(1.0)


@pytest.mark.parametrize("rule", RULES)
def test_of_nothing_drafted_comes_what_the_number_draws(rule: str) -> None:
    scores = P.log().expand(MANY, -1)
    found = decide(rule, scores, torch.full((MANY,), NONE), NUMBERS, torch.zeros(MANY, 3))
    assert torch.equal(found.tokens, draw(scores, NUMBERS))
    assert not found.accepted.any()


@pytest.mark.parametrize("rule", RULES)
def test_without_numbers_all_rules_take_the_likeliest(rule: str) -> None:
    scores = torch.stack([P, P, Q]).log()
    found = decide(rule, scores, torch.tensor([0, 1, NONE]), None)
    assert found.tokens.tolist() == [0, 0, 1]
    assert found.accepted.tolist() == [True, False, False]
    assert not found.close.any()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("temperature", [0, 1])
def test_no_rounding_turns_what_is_not_close(rule: str, temperature: int) -> None:
    """Logits are moved at random as far as they may be, 100 times: a place that turns is always marked, and few are."""
    rows, rounding = 400, 0.01
    source = torch.Generator().manual_seed(0)
    scores = torch.log_softmax(torch.randn(rows, 12, generator=source), -1)
    q = torch.softmax(torch.randn(rows, 12, generator=source), -1)
    numbers = 1 - torch.rand(rows, generator=source) if temperature else None
    drafted = draw(q.log(), 1 - torch.rand(rows, generator=source))
    drafted[::5], q[::5] = NONE, 0.0
    plain = decide(rule, scores, drafted, numbers, q, rounding=rounding)
    assert 0 < int(plain.close.sum()) < rows / 2
    turned = torch.zeros(rows, dtype=torch.bool)
    for _ in range(100):
        off = rounding * (2 * torch.rand(scores.shape, generator=source) - 1)
        other = decide(rule, torch.log_softmax(scores + off, -1), drafted, numbers, q)
        turned |= (other.tokens != plain.tokens) | (other.accepted != plain.accepted)
    assert turned.any()
    assert not (turned & ~plain.close).any()


def test_the_ends_of_intervals_by_hand() -> None:
    """Token 1 of p lies from .5 to .8; at .5 odds are 1, so that logits off by .01 move it to between .495 and .505."""
    low, high = interval(P.log()[None], torch.tensor([1]))
    assert (float(low), float(high)) == pytest.approx((0.5, 0.8))
    at = torch.tensor([0.4949, 0.4951, 0.5049, 0.5051, 1.0], dtype=torch.float64)
    assert near(at, torch.full((5,), 0.5), 0.01).tolist() == [False, True, True, False, True]
    assert near(at[:1], torch.zeros(1), 9.0).tolist() == [False]  # nothing lies below the first interval
    assert draw(P.log().expand(4, -1), torch.tensor([1e-6, 0.5, 0.5 + 1e-6, 1.0])).tolist() == [0, 0, 1, 2]


def test_a_token_of_no_probability_is_never_drawn() -> None:
    scores = torch.tensor([0.0, 0.5, 0.0, 0.5, 0.0]).log().expand(4, -1)
    assert draw(scores, torch.tensor([1e-9, 0.5, 0.6, 1.0])).tolist() == [1, 1, 3, 3]


def test_what_cannot_be_decided_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rule='typical' is no rule of acceptance; choose one of: shared, rejection"):
        decide("typical", P.log()[None], torch.tensor([0]), None)
    with pytest.raises(ValueError, match=r"needs what the drafted tokens were drawn from \(Draft.chances\)"):
        decide(REJECTION, P.log()[None], torch.tensor([0]), torch.tensor([0.5]))
