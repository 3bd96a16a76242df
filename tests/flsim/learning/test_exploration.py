"""Exploring the help request: its formulas by hand, and the law that usage comes back to tau from never and always."""

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from flsim.learning.adam import Adam, fresh_state
from flsim.learning.advantage import cost_advantage, task_advantage
from flsim.learning.dual import DualRule
from flsim.learning.exploration import EDGE, how_many, log_chance, parts_of_odds, push

PROMPTS, GROUP, KINDS, STEPS = 8, 8, 32, 600
CLOUD = 0.95
FAR = 14.0
"""Log-odds of about one request in a million."""


def test_by_hand() -> None:
    """Two tokens of chance 1/2 each: P = 1/4, and each part of dz is (1/2) / (3/4)."""
    odds, mask = torch.zeros(1, 3), torch.tensor([[True, True, False]])
    assert log_chance(odds, mask).exp().tolist() == pytest.approx([0.25])
    assert parts_of_odds(odds, mask)[0].tolist() == pytest.approx([2 / 3, 2 / 3, 0])


@given(st.lists(st.floats(-12, 12), min_size=1, max_size=4))
def test_the_parts_are_the_derivative_of_the_log_odds_of_the_whole(odds: list[float]) -> None:
    each = torch.tensor([odds], dtype=torch.float64, requires_grad=True)
    mask = torch.ones(1, len(odds), dtype=torch.bool)
    whole = torch.nn.functional.logsigmoid(each).sum()
    (expected,) = torch.autograd.grad(whole - torch.log(-torch.expm1(whole)), each)
    assert torch.allclose(parts_of_odds(each.detach(), mask), expected, rtol=1e-6)


@given(st.floats(-1e4, 1e4))
def test_of_one_token_the_odds_are_its_own_however_unlikely(odds: float) -> None:
    assert parts_of_odds(torch.tensor([[odds]]), torch.tensor([[True]])).item() == pytest.approx(1.0)


@given(st.floats(0, 20))
def test_a_whole_number_of_prompts_with_the_mean_that_is_wanted(expected: float) -> None:
    counts = [how_many(expected, (i + 0.5) / 1000) for i in range(1000)]
    assert set(counts) <= {math.floor(expected), math.ceil(expected)}
    assert sum(counts) / 1000 == pytest.approx(expected, abs=0.001)


@given(st.floats(-2, 2), st.floats(0, 1))
def test_nothing_is_pushed_further_out_of_reach(gain: float, chance: float) -> None:
    pushed = push(torch.tensor([gain], dtype=torch.float64), torch.tensor([chance], dtype=torch.float64)).item()
    lost = (gain < 0 and chance < EDGE) or (gain > 0 and chance > 1 - EDGE)
    assert pushed == (0.0 if lost else gain)


def usage_of(starts: Sequence[float], taus: Sequence[float], *, explore: float = 0.0, coin: float = 0.0) -> Tensor:
    """J of every step, `(STEPS, K)`, of K policies that share a part of their log-odds among all kinds of prompts.

    Drafts are right with a chance of each kind's own, the cloud with 0.95. DA-GRPO's advantage, lambda and Adam are
    those of flsim; noise in the gradient stands for all else that a model learns with the same weights.

    Args:
        starts: log-odds of the request.
        taus: of the budgets.
        explore: share of tau.
        coin: share of responses that toss a coin of chance tau instead, in sampling and score alike.
    """
    source, k, tau = torch.Generator().manual_seed(0), len(starts), torch.tensor(taus)  # tau is (K,)
    theta = torch.zeros(k, 1 + KINDS)
    theta[:, 0] = torch.tensor(starts)
    right = torch.rand(KINDS, generator=source)
    rule, adam, state = DualRule(), Adam(lr=0.1), fresh_state(k, 1 + KINDS)
    dual, usages = torch.full((k,), 0.5), []
    for _ in range(STEPS):
        kinds = torch.randint(KINDS, (k, PROMPTS), generator=source)  # (K, P)
        own = torch.sigmoid((theta[:, :1] + theta.gather(1, 1 + kinds)).double())  # (K, P)
        chance = (1 - coin) * own + coin * tau[:, None]  # (K, P)
        drawn = torch.rand(k, generator=source).tolist()
        counts = torch.tensor([how_many(explore * t * PROMPTS, u) for t, u in zip(taus, drawn, strict=True)])
        explored = torch.arange(PROMPTS) < counts[:, None]  # (K, P)
        asks = (torch.rand(k, PROMPTS, GROUP, generator=source) < chance[..., None]) & ~explored[..., None]
        asks = asks.float()  # (K, P, G)
        drafts = (torch.rand(k, PROMPTS, GROUP, generator=source) < right[kinds][..., None]).float()  # (K, P, G)
        cloud = (torch.rand(k, PROMPTS, generator=source) < CLOUD).float()  # (K, P)
        usage = asks.maximum(explored[..., None].float()).mean((1, 2))  # (K,)
        price = rule.price(dual, usage, tau)  # (K,)
        rewards = torch.where(asks > 0, cloud[..., None], drafts)  # (K, P, G)
        costs = cost_advantage(asks, baseline="batch", real=~explored)  # (K, P, G)
        advantage = task_advantage(rewards) - price[:, None, None] * costs  # (K, P, G)
        slope = (1 - coin) * own * (1 - own) / (chance * (1 - chance))  # (K, P)
        pull = (advantage * (asks - chance[..., None])).mean(-1) * slope * ~explored  # (K, P)
        pull += push(cloud - drafts.mean(-1) - price[:, None], own) * explored
        gradient = torch.randn(k, 1 + KINDS, generator=source) * 0.03  # (K, n)
        gradient[:, 0] -= pull.float().mean(-1)
        gradient.scatter_add_(1, 1 + kinds, -pull.float() / PROMPTS)
        adam.step(theta, gradient, state)
        dual = rule.ascend(dual, usage, tau)
        usages.append(usage)
    return torch.stack(usages)  # (STEPS, K)


def test_explored_usage_comes_back_to_tau() -> None:
    """Within tau +- 0.05 over the last third of 600 steps, from one request in a million and from all but one."""
    starts, taus = [-FAR, FAR] * 4, [tau for tau in (0.2, 0.3, 0.5, 0.7) for _ in range(2)]
    late = usage_of(starts, taus, explore=0.5)[-STEPS // 3 :].mean(0)
    assert (late - torch.tensor(taus)).abs().max() < 0.05


def test_neither_the_price_nor_a_policy_mixed_with_a_coin_comes_back() -> None:
    """The policy gradient has the factor p (1 - p), and so has the exact one of a mixture, which samples requests."""
    ends = torch.tensor([0.0, 1.0])
    for coin in (0.0, 0.25):
        late = usage_of([-FAR, FAR], [0.3, 0.3], coin=coin)[STEPS // 3 : STEPS // 2].mean(0)
        assert torch.allclose(late, (1 - coin) * ends + coin * 0.3, atol=0.02)
