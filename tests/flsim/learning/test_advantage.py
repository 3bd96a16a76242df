from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from flsim.learning.advantage import (
    COST_BASELINES,
    centred,
    cost_advantage,
    group_scaled,
    separately_scaled,
    task_advantage,
    z_scored,
)
from tests.flsim.learning.estimator import policy_gradient_loss

pytestmark = pytest.mark.usefixtures("one_thread")

BASELINES = pytest.mark.parametrize("baseline", COST_BASELINES)
MEANS = pytest.mark.parametrize("baseline", ["group", "batch"])

# A policy that can be written down: 2 prompts, 4 actions, of which the last asks. Rewards and costs are tables.
POLICY = torch.tensor([[0.2, -0.4, 0.9, 0.3], [-0.5, 0.1, 0.0, 1.1]], dtype=torch.float64)  # (P, 4) logits
REWARD = torch.tensor([[1.0, 0.0, 0.2, 0.8], [0.0, 0.5, 0.0, 1.0]], dtype=torch.float64)  # (P, 4)
COST = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)  # (4,)
PRICE, TAU = 0.6, 0.3


def exact_gradient(prompts: int) -> Tensor:
    """Of `J_r - lambda (J_c - tau)` by enumeration, with respect to the logits `(P, 4)`."""
    theta = POLICY[:prompts].clone().requires_grad_()
    probabilities = torch.softmax(theta, -1)  # (P, 4)
    gain = (probabilities * REWARD[:prompts]).sum(-1).mean()
    usage = (probabilities * COST).sum(-1).mean()
    (gradient,) = torch.autograd.grad(gain - PRICE * (usage - TAU), theta)
    return gradient


def estimates(actions: Tensor, baseline: str, *, filling: int = 0) -> Tensor:
    """The estimator's ascent direction `(K, P, 4)` for K batches of drawn actions `(K, P, G)`."""
    k, p, g = actions.shape
    theta = POLICY[:p].expand(k, -1, -1).clone().requires_grad_()  # (K, P, 4), one copy per batch
    logprobs = torch.log_softmax(theta, -1).gather(-1, actions)  # (K, P, G)
    rewards = REWARD[:p].expand(k, -1, -1).gather(-1, actions)  # (K, P, G)
    costs = COST[actions]  # (K, P, G)
    real = torch.ones(k, p, dtype=torch.bool)
    if filling:
        noise = torch.rand(k, filling, g, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        logprobs, rewards, costs = (torch.cat([part, noise], 1) for part in (logprobs, rewards, costs))
        real = torch.cat([real, torch.zeros(k, filling, dtype=torch.bool)], 1)
    advantages = task_advantage(rewards) - PRICE * cost_advantage(costs, baseline=baseline, real=real, tau=TAU)
    loss = policy_gradient_loss(logprobs[..., None], advantages, real)
    (gradient,) = torch.autograd.grad(-loss.sum(), theta)
    return gradient


@BASELINES
@pytest.mark.parametrize(("prompts", "group", "filling"), [(1, 2, 0), (1, 4, 0), (2, 2, 0), (2, 3, 0), (2, 2, 2)])
def test_estimator_expectation_is_exact_gradient(baseline: str, prompts: int, group: int, filling: int) -> None:
    """All possible batches, each weighed with its probability."""
    every = torch.tensor(list(product(range(4), repeat=prompts * group))).view(-1, prompts, group)  # (4^(P G), P, G)
    chances = torch.log_softmax(POLICY[:prompts], -1).expand(len(every), -1, -1).gather(-1, every).sum((1, 2)).exp()
    assert chances.sum().item() == pytest.approx(1.0)
    mean = (chances[:, None, None] * estimates(every, baseline, filling=filling)).sum(0)  # (P, 4)
    torch.testing.assert_close(mean, exact_gradient(prompts), atol=1e-12, rtol=0)


@BASELINES
def test_estimator_mean_is_exact_gradient(baseline: str) -> None:
    """20,000 drawn batches of 2 prompts and groups of 8: the mean lies within 4.5 standard errors, entry by entry.

    Without G / (G - 1) the group baseline would be an eighth too small; the largest entry shows that with room.
    """
    uniform = torch.rand(20_000, 2, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    edges = torch.softmax(POLICY, -1).cumsum(-1)  # (P, 4)
    actions = (uniform[..., None] > edges[None, :, None, :-1]).sum(-1)  # (K, P, G)
    draws = estimates(actions, baseline)  # (K, P, 4)
    error = draws.std(0) / len(draws) ** 0.5  # (P, 4)
    exact = exact_gradient(2)
    assert ((draws.mean(0) - exact).abs() < 4.5 * error).all()
    assert (exact.abs() / 8 / error).max() > 9


def test_by_hand() -> None:
    """Rewards 1, 0, 0, 1 have the mean 1/2; times G / (G - 1) = 4/3 the advantages are +-2/3.

    Costs of two groups of two, (1, 0) and (0, 0). By group: (1/2, -1/2) x 2 and zeros. By batch: the mean is 1/4 and
    n / (n - 1) = 4/3, so 3/4 x 4/3 = 1 and -1/4 x 4/3 = -1/3.
    """
    assert task_advantage(torch.tensor([[1.0, 0.0, 0.0, 1.0]])).tolist() == [
        pytest.approx([2 / 3, -2 / 3, -2 / 3, 2 / 3])
    ]
    costs = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    assert cost_advantage(costs, baseline="group").tolist() == [[1.0, -1.0], [0.0, 0.0]]
    assert cost_advantage(costs, baseline="batch").flatten().tolist() == pytest.approx([1.0, -1 / 3, -1 / 3, -1 / 3])


def test_loss_by_hand() -> None:
    """Two responses of log-probability -1 - 2 = -3 and -4, advantages 2 and -1: -(2 (-3) + (-1) (-4)) / 2 = 1.

    Its gradient in each token's log-probability is -A / 2: -1 for both tokens of the first, 1/2 for the second.
    """
    logprobs = torch.tensor([[[[-1.0, -2.0], [-4.0, 0.0]]]], requires_grad=True)  # (1, 1, 2, 2)
    loss = policy_gradient_loss(logprobs, torch.tensor([[[2.0, -1.0]]]), torch.tensor([[True]]))
    assert loss.tolist() == [1.0]
    (gradient,) = torch.autograd.grad(loss.sum(), logprobs)
    assert gradient.tolist() == [[[[-1.0, -1.0], [0.5, 0.5]]]]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@MEANS
def test_advantages_sum_to_zero(baseline: str) -> None:
    rewards, costs = random(3, 5, 4), random(3, 5, 4, seed=1).round()
    torch.testing.assert_close(task_advantage(rewards).sum(-1), torch.zeros(3, 5), atol=1e-6, rtol=0)
    over = (-1,) if baseline == "group" else (-2, -1)
    total = cost_advantage(costs, baseline=baseline).sum(over)
    torch.testing.assert_close(total, torch.zeros_like(total), atol=1e-5, rtol=0)


@MEANS
def test_shift_and_scale(baseline: str) -> None:
    """A constant added to all changes nothing; as nothing is divided by a deviation, twice the values give twice A."""
    values = random(3, 5, 4)
    torch.testing.assert_close(task_advantage(values + 7), task_advantage(values), atol=1e-5, rtol=0)
    torch.testing.assert_close(task_advantage(2 * values), 2 * task_advantage(values))
    plain = cost_advantage(values, baseline=baseline)
    torch.testing.assert_close(cost_advantage(values + 7, baseline=baseline), plain, atol=1e-5, rtol=0)
    torch.testing.assert_close(cost_advantage(2 * values, baseline=baseline), 2 * plain)


def test_a_shift_of_one_prompts_rewards_moves_no_other_prompt() -> None:
    rewards = random(1, 3, 4)
    harder = rewards.clone()
    harder[0, 1] -= 5.0
    torch.testing.assert_close(task_advantage(harder), task_advantage(rewards), atol=1e-5, rtol=0)


def test_unanimous_groups() -> None:
    """Prompt 1 always asks, prompt 2 never. Within each group there is nothing to compare; in the batch there is.

    The batch's mean is 1/2 and n / (n - 1) = 6/5, so the advantages are +-0.6.
    """
    costs = torch.tensor([[[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]])
    assert not cost_advantage(costs, baseline="group").any()
    signal = cost_advantage(costs, baseline="batch")
    assert signal.flatten().tolist() == pytest.approx([0.6] * 3 + [-0.6] * 3)


def test_a_wholly_unanimous_batch_has_a_signal_only_against_the_budget() -> None:
    """A device that asks at every prompt of a step is moved by its tasks only, unless tau is what it is held to.

    Tau = 1/4: 3/4 for each request; tau = 1/2 and no request at all: -1/2 for each answer.
    """
    for baseline in ("group", "batch"):
        assert not cost_advantage(torch.ones(2, 3, 4), baseline=baseline).any()
    tau = torch.tensor([0.25, 0.5])
    found = cost_advantage(torch.stack([torch.ones(3, 4), torch.zeros(3, 4)]), baseline="budget", tau=tau)
    assert (found[0] == 0.75).all()
    assert (found[1] == -0.5).all()


@BASELINES
def test_filling_gets_nothing_and_changes_nobody(baseline: str) -> None:
    costs = random(2, 3, 4).round()
    alone = cost_advantage(costs, baseline=baseline, tau=TAU)
    filled = torch.cat([costs, torch.full((2, 2, 4), 9.0)], 1)  # (2, 5, 4)
    real = torch.tensor([[True] * 3 + [False] * 2] * 2)
    together = cost_advantage(filled, baseline=baseline, real=real, tau=TAU)
    torch.testing.assert_close(together[:, :3], alone)
    assert not together[:, 3:].any()


@BASELINES
def test_a_device_of_filling_only_gets_nothing(baseline: str) -> None:
    """A device without prompts in this step, beside one that has some: zeros, not nan."""
    real = torch.tensor([[True], [False]])
    costs = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]])
    advantages = cost_advantage(costs, baseline=baseline, real=real, tau=TAU)
    assert advantages[1].tolist() == [[0.0, 0.0]]
    assert advantages[0].any()
    loss = policy_gradient_loss(random(2, 1, 2, 3), advantages + 1.0, real)
    assert loss[1] == 0.0
    assert loss[0] != 0.0


def test_devices_do_not_weigh_on_each_other() -> None:
    """The loss and the cost baseline of a device are the same alone and beside another with more prompts."""
    logprobs, costs = -random(2, 3, 4, 5), random(2, 3, 4, seed=1).round()
    real, tau = torch.tensor([[True, False, False], [True, True, True]]), torch.tensor([0.3, 0.9])
    for baseline in COST_BASELINES:
        together = cost_advantage(costs, baseline=baseline, real=real, tau=tau)
        alone = cost_advantage(costs[:1, :1], baseline=baseline, tau=0.3)
        torch.testing.assert_close(together[0, :1], alone[0])
        losses = policy_gradient_loss(logprobs, together, real)
        torch.testing.assert_close(losses[:1], policy_gradient_loss(logprobs[:1, :1], alone, real[:1, :1]))


def test_no_gradient_flows_through_the_advantages() -> None:
    logprobs = -random(1, 2, 3, 4)
    advantages = random(1, 2, 3, seed=1).requires_grad_()
    real = torch.ones(1, 2, dtype=torch.bool)
    policy_gradient_loss(logprobs.requires_grad_(), advantages, real).sum().backward()
    assert advantages.grad is None


def test_an_unknown_baseline_is_named_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"cost_baseline='mean'.*group, batch"):
        cost_advantage(torch.ones(1, 2), baseline="mean")


def test_the_budget_baseline_needs_a_budget() -> None:
    with pytest.raises(ValueError, match=r"cost_baseline='budget'.*tau"):
        cost_advantage(torch.ones(1, 2), baseline="budget")


def test_all_cost_baselines_expect_the_same_gradient() -> None:
    """Two prompts, asked at with the probabilities 0.9 and 0.2, by enumeration of all 2^6 outcomes of 3 responses each.

    The gradient of the usage (p1 + p2) / 2 by the logits is p (1 - p) / 2: 0.045 and 0.08. None of the baselines knows
    it; each finds it in the mean over the outcomes.
    """
    chance = torch.tensor([0.9, 0.2], dtype=torch.float64)  # (P,)
    costs = torch.tensor(list(product([0.0, 1.0], repeat=6)), dtype=torch.float64).view(-1, 2, 3)  # (2^6, P, G)
    outcome = torch.where(costs > 0, chance[:, None], 1 - chance[:, None]).prod(-1).prod(-1)  # (2^6,)
    spread = {}
    for baseline in COST_BASELINES:
        logits = torch.logit(chance).expand(len(costs), -1).clone().requires_grad_()  # (2^6, P)
        asks, answers = (torch.nn.functional.logsigmoid(sign * logits)[..., None] for sign in (1, -1))
        logprobs = torch.where(costs > 0, asks, answers)[..., None]  # (2^6, P, G, T=1)
        advantages = cost_advantage(costs, baseline=baseline, tau=TAU)
        real = torch.ones(costs.shape[:2], dtype=torch.bool)
        (found,) = torch.autograd.grad(-policy_gradient_loss(logprobs, advantages, real).sum(), logits)
        mean = (outcome[:, None] * found).sum(0)  # (P,)
        torch.testing.assert_close(mean, torch.tensor([0.045, 0.08], dtype=torch.float64), atol=1e-14, rtol=0)
        spread[baseline] = (outcome[:, None] * (found - mean) ** 2).sum(0).sqrt()  # (P,)
    assert len({tuple(one.tolist()) for one in spread.values()}) == len(COST_BASELINES)  # they do differ


def test_scaling_by_hand() -> None:
    """Rewards 1, 0, 0, 1: offsets +-1/2, unbiased variance (4 / 4) / 3 = 1/3, so 0.5 sqrt(3) = 0.866 without eps.

    With eps = 1/4: 0.5 / (0.577 + 0.25) = 0.604.
    """
    rewards = torch.tensor([1.0, 0.0, 0.0, 1.0])
    assert centred(rewards).tolist() == [0.5, -0.5, -0.5, 0.5]
    for found, size in ((z_scored(rewards), 3**0.5 / 2), (group_scaled(rewards, eps=0.25), 0.5 / (3**-0.5 + 0.25))):
        assert found.tolist() == pytest.approx([size, -size, -size, size])
    assert group_scaled(rewards)[0].item() == pytest.approx(0.5 / (3**-0.5 + 1e-4))


@given(st.integers(2, 9), st.integers(0, 1000), st.floats(0.1, 100), st.floats(-10, 10))
def test_z_scores_know_neither_unit_nor_offset(group: int, seed: int, unit: float, offset: float) -> None:
    values = torch.rand(3, group, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    found = z_scored(values)
    torch.testing.assert_close(found.mean(-1), torch.zeros(3, dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(found.std(-1), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(z_scored(unit * values + offset), found, atol=1e-6, rtol=0)


@given(st.floats(-10, 10, width=32), st.integers(2, 20))
def test_equal_values_have_no_z_score(value: float, group: int) -> None:
    """Their mean may round to a neighbour of the value; a division by the deviation would make 1 of that."""
    assert not z_scored(torch.full((2, group), value)).any()


def test_a_sum_scaled_as_a_whole_forgets_what_help_is_to_earn() -> None:
    """Right alone earns 1, by the cloud 0.3: in a group of zeros both are worth the same, as GAPG's authors found."""
    alone, by_cloud = group_scaled(torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.3, 0.0, 0.0, 0.0]]))
    torch.testing.assert_close(alone, by_cloud, atol=2e-3, rtol=0)
    alone, by_cloud = task_advantage(torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.3, 0.0, 0.0, 0.0]]))
    torch.testing.assert_close(0.3 * alone, by_cloud)


def test_scaled_apart_the_price_weighs_the_same_in_every_group() -> None:
    """Two groups with the same requests and rewards of another unit: the price moves both by the same advantage.

    Costs 1, 0, 0, 1 at price 0.4: -+0.4 x 0.866. Scaled as a sum, the price would move them by different amounts.
    """
    costs = torch.tensor([[[1.0, 0.0, 0.0, 1.0]] * 2])  # (1, 2, 4)
    rewards = torch.tensor([[[1.0, 1.0, 0.0, 0.0], [10.0, 10.0, 0.0, 0.0]]])  # (1, 2, 4)
    priced, free = (separately_scaled(rewards, costs, torch.tensor([price])) for price in (0.4, 0.0))
    expected = 0.4 * 3**0.5 / 2 * torch.tensor([-1.0, 1.0, 1.0, -1.0])
    torch.testing.assert_close(priced - free, expected.expand(1, 2, 4))
    summed, alone = group_scaled(rewards - 0.4 * costs), group_scaled(rewards)
    moved = (summed - alone).abs().sum(-1)[0]
    assert moved[0] > 5 * moved[1]


def test_each_device_has_its_own_price() -> None:
    rewards, costs = random(2, 3, 4), random(2, 3, 4, seed=1).round()
    together = separately_scaled(rewards, costs, torch.tensor([0.2, 0.9]))
    for k, price in enumerate((0.2, 0.9)):
        alone = separately_scaled(rewards[k : k + 1], costs[k : k + 1], torch.tensor([price]))
        assert torch.equal(alone[0], together[k])
