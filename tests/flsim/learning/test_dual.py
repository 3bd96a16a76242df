import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from flsim.learning.benefit import ask_chance
from flsim.learning.dual import DualRule, solved_price

pytestmark = pytest.mark.usefixtures("one_thread")

BENEFIT = torch.linspace(0, 1, 401) ** 2  # p_cloud - p_local of 401 prompt types; most gain little, few gain much
SHARES = st.floats(0, 1, width=32)


def responses(price: Tensor) -> Tensor:
    """The best policy at a price, a little softened: the chance to ask at each prompt type, `(types,)`."""
    return torch.sigmoid((BENEFIT - price) / 0.01)


def iterate(rule: DualRule, *, tau: float, dual: float, asking: float, steps: int) -> tuple[Tensor, Tensor]:
    """A policy that moves a tenth of the way to its best response per step: (usage, lambda) of every step."""
    policy = torch.full_like(BENEFIT, asking)
    price, duals, usages = torch.tensor([dual]), [], []
    multiplier = torch.tensor([dual])
    for _ in range(steps):
        usage = policy.mean()[None]  # (1,)
        price = rule.price(multiplier, usage, tau)
        multiplier = rule.ascend(multiplier, usage, tau)
        policy = 0.9 * policy + 0.1 * responses(price)
        duals.append(multiplier)
        usages.append(usage)
    return torch.cat(usages), torch.cat(duals)


@pytest.mark.parametrize("gain", [0.0, 2.0])
@pytest.mark.parametrize(("dual", "asking"), [(0.5, 0.1), (0.0, 1.0), (1.0, 0.0)])
@pytest.mark.parametrize("tau", [0.1, 0.3, 0.5, 0.8])
def test_settles_at_the_quantile_of_the_benefit(gain: float, dual: float, asking: float, tau: float) -> None:
    """The budget goes to the tau of all prompts that gain most, so lambda* is the (1 - tau)-quantile of the benefit.

    Here it is (1 - tau)^2, as the benefit is the square of a uniform number. It does not matter where one starts.
    """
    rule = DualRule(lr=0.05, gain=gain)
    usage, multiplier = iterate(rule, tau=tau, dual=dual, asking=asking, steps=1500)
    assert usage[-1].item() == pytest.approx(tau, abs=0.005)
    assert multiplier[-1].item() == pytest.approx(float(BENEFIT.quantile(1 - tau)), abs=0.01)
    assert multiplier[-1].item() == pytest.approx((1 - tau) ** 2, abs=0.01)


def test_a_budget_that_nobody_wants_is_free() -> None:
    """Help does harm to half of the prompts, so even at no price usage is 1/2, below tau = 0.8: lambda goes to 0."""
    rule, multiplier, price = DualRule(), torch.tensor([0.5]), torch.tensor([0.5])
    benefit = torch.linspace(-1, 1, 400)
    for _ in range(300):
        usage = torch.sigmoid((benefit - price) / 0.01).mean()[None]
        price, multiplier = rule.price(multiplier, usage, 0.8), rule.ascend(multiplier, usage, 0.8)
    assert multiplier.tolist() == price.tolist() == [0.0]
    assert usage.item() == pytest.approx(0.5, abs=0.01)


def test_the_proportional_term_damps_the_swing() -> None:
    """After a switch to a harder phase the plain integral swings further past tau, and for longer."""
    far = {}
    for gain in (0.0, 2.0):
        usage, _ = iterate(DualRule(lr=0.1, gain=gain), tau=0.3, dual=0.0, asking=1.0, steps=400)
        far[gain] = (usage - 0.3).abs()[20:]
    assert far[2.0].sum() < 0.5 * far[0.0].sum()
    assert far[2.0].max() < far[0.0].max()


@given(st.lists(SHARES, min_size=1, max_size=4), SHARES, SHARES, st.floats(0, 5), st.floats(0, 10), st.floats(0.1, 2))
def test_lambda_and_price_stay_within_their_bounds(
    duals: list[float], usage: float, tau: float, lr: float, gain: float, maximum: float
) -> None:
    rule = DualRule(lr, gain, maximum)
    dual = torch.tensor(duals)
    for moved in (rule.price(dual, torch.tensor(usage), tau), rule.ascend(dual, torch.tensor(usage), tau)):
        assert moved.shape == dual.shape
        assert (moved >= 0).all()
        assert (moved <= torch.tensor(maximum)).all()


@given(SHARES, SHARES, SHARES)
def test_over_budget_raises_and_under_budget_lowers(dual: float, usage: float, tau: float) -> None:
    rule, before = DualRule(), torch.tensor([dual])
    for moved in (rule.price(before, torch.tensor([usage]), tau), rule.ascend(before, torch.tensor([usage]), tau)):
        assert (moved - before).item() * (usage - tau) >= 0


@given(st.floats(0, 20, width=32), SHARES, SHARES, st.floats(0, 1))
def test_without_guards_it_is_the_papers_formula(dual: float, usage: float, tau: float, lr: float) -> None:
    """`lambda <- max(0, lambda + eta (J - tau))`, and the price is lambda itself, bit for bit."""
    rule = DualRule(lr, gain=0.0, maximum=math.inf)
    dual_, usage_ = torch.tensor([dual]), torch.tensor([usage])
    assert torch.equal(rule.price(dual_, usage_, tau), dual_)
    assert torch.equal(rule.ascend(dual_, usage_, tau), torch.relu(dual_ + lr * (usage_ - tau)))


def test_by_hand() -> None:
    """Lambda 0.5, tau 0.3, eta 0.1, gain 2, three devices with usage 0.3, 0.5 and 1.

    Lambda: 0.5 + 0.1 x (0, 0.2, 0.7) = 0.5, 0.52, 0.57. Price: 0.5 + 2 x (0, 0.2, 0.7) = 0.5, 0.9, 1.9, clipped at 1.
    """
    rule, dual, usage = DualRule(lr=0.1, gain=2.0), torch.full((3,), 0.5), torch.tensor([0.3, 0.5, 1.0])
    assert rule.ascend(dual, usage, 0.3).tolist() == pytest.approx([0.5, 0.52, 0.57])
    assert rule.price(dual, usage, 0.3).tolist() == pytest.approx([0.5, 0.9, 1.0])


def learn(rule: DualRule, *, tau: float, steps: int) -> tuple[Tensor, Tensor]:
    """Exact policy gradient from a policy that nearly always asks: (usage, lambda) of every step.

    One logit per prompt type; its gradient is p (1 - p) (benefit - price), which is nearly 0 while p is nearly 1, just
    as a group that asks unanimously has no advantage.
    """
    logits = torch.full_like(BENEFIT, 5.0)
    multiplier, usages, duals = torch.tensor([0.5]), [], []
    for _ in range(steps):
        asking = torch.sigmoid(logits)
        usage = asking.mean()[None]
        price = rule.price(multiplier, usage, tau)
        multiplier = rule.ascend(multiplier, usage, tau)
        logits = logits + 4.0 * asking * (1 - asking) * (BENEFIT - price)
        usages.append(usage)
        duals.append(multiplier)
    return torch.cat(usages), torch.cat(duals)


def test_clipping_prevents_the_wind_up() -> None:
    """A request can gain 1 at most, so a higher lambda says nothing more, but takes long to unwind.

    From an always-asking policy the plain integral climbs far above 1 (seen: 1.93) before usage reacts, and then usage
    falls to next to nothing (0.003 for tau = 0.3). Clipped at 1, it does not fall below 0.18.
    """
    plain_usage, plain = learn(DualRule(lr=0.05, gain=0.0, maximum=math.inf), tau=0.3, steps=400)
    clipped_usage, clipped = learn(DualRule(lr=0.05, gain=0.0, maximum=1.0), tau=0.3, steps=400)
    assert plain.max() > 1.5
    assert clipped.max() <= 1
    assert plain_usage.min() < 0.01
    assert clipped_usage.min() > 0.1


@given(st.floats(0, 20, width=32), SHARES, SHARES)
def test_a_rule_without_steps_is_a_fixed_price(dual: float, usage: float, tau: float) -> None:
    rule, dual_, usage_ = DualRule(lr=0.0, gain=0.0, maximum=math.inf), torch.tensor([dual]), torch.tensor([usage])
    assert torch.equal(rule.price(dual_, usage_, tau), dual_)
    assert torch.equal(rule.ascend(dual_, usage_, tau), dual_)


BENEFITS = st.lists(st.floats(-1, 1), min_size=1, max_size=30).map(lambda found: torch.tensor(found))


@given(BENEFITS, st.floats(0.02, 0.98), st.floats(0.05, 1.0))
def test_the_solved_price_lets_tau_of_the_prompts_through(gain: Tensor, tau: float, temperature: float) -> None:
    price = solved_price(gain, tau, temperature)
    asks = ask_chance(gain.double()[None, :, None], torch.full((1, len(gain)), price, dtype=torch.float64), temperature)
    assert float(asks.mean()) == pytest.approx(tau, abs=1e-6) or abs(price) == pytest.approx(2)


@given(BENEFITS, st.floats(0.05, 0.95), st.floats(-0.5, 0.5))
def test_the_solved_price_moves_with_the_benefit(gain: Tensor, tau: float, more: float) -> None:
    before, after = (solved_price(of.double(), tau, 0.1) for of in (gain, gain + more))
    assert after - before == pytest.approx(more, abs=1e-6)


def test_the_solved_price_by_hand() -> None:
    """Equal benefits of 0.4, T = 0.1 and tau = 0.3: 0.4 - 0.1 log(3 / 7) = 0.4847, the default lambda but for 0.015."""
    assert solved_price(torch.tensor([0.4, 0.4]), 0.3, 0.1) == pytest.approx(0.48473, abs=1e-5)
