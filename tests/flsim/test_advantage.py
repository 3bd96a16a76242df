from itertools import product

import pytest
import torch
from torch import Tensor

from flsim.learning.advantage import COST_BASELINES, cost_advantage, policy_gradient_loss, task_advantage

pytestmark = pytest.mark.usefixtures("one_thread")

BASELINES = pytest.mark.parametrize("baseline", COST_BASELINES)

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
    advantages = task_advantage(rewards) - PRICE * cost_advantage(costs, baseline=baseline, real=real)
    loss = policy_gradient_loss(logprobs[..., None], advantages, real)
    (gradient,) = torch.autograd.grad(-loss.sum(), theta)
    return gradient


@BASELINES
@pytest.mark.parametrize(("prompts", "group", "filling"), [(1, 2, 0), (1, 4, 0), (2, 2, 0), (2, 3, 0), (2, 2, 2)])
def test_estimator_expectation_is_exact_gradient(baseline: str, prompts: int, group: int, filling: int) -> None:
    """All possible batches, each weighed with its probability: equal to rounding (of 4 / 3 in float32)."""
    every = torch.tensor(list(product(range(4), repeat=prompts * group))).view(-1, prompts, group)  # (4^(P G), P, G)
    chances = torch.log_softmax(POLICY[:prompts], -1).expand(len(every), -1, -1).gather(-1, every).sum((1, 2)).exp()
    assert chances.sum().item() == pytest.approx(1.0)
    mean = (chances[:, None, None] * estimates(every, baseline, filling=filling)).sum(0)  # (P, 4)
    torch.testing.assert_close(mean, exact_gradient(prompts), atol=1e-7, rtol=0)


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

    Costs of two groups of two, (1, 0) and (0, 0). By group: (1/2, -1/2) x 2 and noughts. By batch: the mean is 1/4 and
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


@BASELINES
def test_advantages_sum_to_nought(baseline: str) -> None:
    rewards, costs = random(3, 5, 4), random(3, 5, 4, seed=1).round()
    torch.testing.assert_close(task_advantage(rewards).sum(-1), torch.zeros(3, 5), atol=1e-6, rtol=0)
    over = (-1,) if baseline == "group" else (-2, -1)
    total = cost_advantage(costs, baseline=baseline).sum(over)
    torch.testing.assert_close(total, torch.zeros_like(total), atol=1e-5, rtol=0)


@BASELINES
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


def test_a_wholly_unanimous_batch_has_no_signal_with_either() -> None:
    """The limit of the batch baseline: a device that asks at every prompt of a step is moved by its tasks only."""
    for baseline in COST_BASELINES:
        assert not cost_advantage(torch.ones(2, 3, 4), baseline=baseline).any()


@BASELINES
def test_filling_gets_nothing_and_changes_nobody(baseline: str) -> None:
    costs = random(2, 3, 4).round()
    alone = cost_advantage(costs, baseline=baseline)
    filled = torch.cat([costs, torch.full((2, 2, 4), 9.0)], 1)  # (2, 5, 4)
    real = torch.tensor([[True] * 3 + [False] * 2] * 2)
    together = cost_advantage(filled, baseline=baseline, real=real)
    torch.testing.assert_close(together[:, :3], alone)
    assert not together[:, 3:].any()


@BASELINES
def test_a_device_of_filling_only_gets_nothing(baseline: str) -> None:
    """A device without prompts in this step, beside one that has some: noughts, not nan."""
    real = torch.tensor([[True], [False]])
    advantages = cost_advantage(torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]]), baseline=baseline, real=real)
    assert advantages[1].tolist() == [[0.0, 0.0]]
    assert advantages[0].any()
    loss = policy_gradient_loss(random(2, 1, 2, 3), advantages + 1.0, real)
    assert loss[1] == 0.0
    assert loss[0] != 0.0


def test_devices_do_not_weigh_on_each_other() -> None:
    """The loss and the cost baseline of a device are the same alone and beside another with more prompts."""
    logprobs, costs = -random(2, 3, 4, 5), random(2, 3, 4, seed=1).round()
    real = torch.tensor([[True, False, False], [True, True, True]])
    for baseline in COST_BASELINES:
        together = cost_advantage(costs, baseline=baseline, real=real)
        alone = cost_advantage(costs[:1, :1], baseline=baseline)
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
