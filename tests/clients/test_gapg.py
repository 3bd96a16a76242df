import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from clients.gapg import hierarchical_reward, kept_prompts
from flsim.learning.advantage import task_advantage
from tests.flsim.learning.estimator import policy_gradient_loss

pytestmark = pytest.mark.usefixtures("one_thread")

# one letter per response: a right alone, c right by the cloud, w wrong by the cloud, x wrong alone
GROUPS = ["aaaa", "axcx", "cxxx", "xxxx", "wwxx", "xcxx", "cccc", "axxx"]


def judged(*devices: list[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Right alone, right, and asked, `(K, P, G)` each, from one letter per response."""

    def where(letters: str) -> Tensor:
        return torch.tensor([[[float(r in letters) for r in group] for group in groups] for groups in devices])

    return where("a"), where("ac"), where("cw")


def kept(groups: list[str], *, rho: float, strict: bool = False, real: Tensor | None = None) -> list[str]:
    alone, right, _ = judged(groups)
    real = torch.ones(1, len(groups), dtype=torch.bool) if real is None else real
    mask = kept_prompts(alone, right, real, rho=[rho], strict=strict)
    return [group for group, keep in zip(groups, mask[0], strict=True) if keep]


def test_reward_by_hand() -> None:
    assert hierarchical_reward(*judged(["acwx"]), alpha_a=2.0, alpha_c=0.5).tolist() == [[[2.0, 0.5, 0.0, 0.0]]]
    both = hierarchical_reward(*[torch.ones(1, 1, 1)] * 3, alpha_a=1.0, alpha_c=0.3)
    assert both.item() == 1.0  # asked, and had been right without


def test_kept_prompts_by_hand() -> None:
    """Three prompts are solved alone; three others only with the cloud, of which the first floor(3 rho) are kept."""
    solved = ["aaaa", "axcx", "axxx"]
    assert kept(GROUPS, rho=0.3) == solved  # 0.9 of a prompt
    assert kept(GROUPS, rho=1 / 3) == ["aaaa", "axcx", "cxxx", "axxx"]
    assert kept(GROUPS, rho=0.9) == ["aaaa", "axcx", "cxxx", "xcxx", "axxx"]
    assert kept(GROUPS, rho=9.0) == ["aaaa", "axcx", "cxxx", "xcxx", "cccc", "axxx"]
    assert kept(GROUPS, rho=0.5, strict=True) == ["axcx", "cxxx", "axxx"]
    assert kept(["cxxx", "xxxx"], rho=9.0) == []
    assert kept(["aaaa", "cxxx"], rho=9.0, strict=True) == []


def test_a_quota_that_is_whole_in_decimals_is_whole() -> None:
    """0.29 x 100 is 28.999999999999996 in binary."""
    assert len(kept(["axxx"] * 100 + ["cxxx"] * 100, rho=0.29)) == 129


def test_filling_is_not_kept() -> None:
    real = torch.tensor([[False, True, False] + [True] * 5])
    assert kept(GROUPS, rho=0.5, real=real) == ["axcx", "xcxx", "axxx"]


@given(st.lists(st.text("acwx", min_size=3, max_size=3), min_size=1, max_size=12), st.floats(0, 3), st.booleans())
def test_requests_are_taught_at_no_more_than_the_budgets_share(groups: list[str], rho: float, strict: bool) -> None:
    """At most rho / (1 + rho) of what is kept; nothing is kept that nobody solves; a wider rho keeps no fewer."""
    found = kept(groups, rho=rho, strict=strict)
    only_by_cloud = [group for group in found if "a" not in group]
    assert len(only_by_cloud) <= rho / (1 + rho) * len(found) + 1e-6
    assert all("a" in group or "c" in group for group in found)
    assert set(found) <= set(kept(groups, rho=2 * rho, strict=strict))


def test_a_device_is_filtered_by_its_own_counts() -> None:
    devices = ["axxx", "cxxx"], ["cxxx", "xcxx"]
    alone, right, _ = judged(*devices)
    together = kept_prompts(alone, right, torch.ones(2, 2, dtype=torch.bool), rho=[1.0, 1.0])
    assert together.tolist() == [[True, True], [False, False]]


def test_a_device_is_filtered_by_its_own_rho() -> None:
    alone, right, _ = judged(*[["axxx", "cxxx", "axxx", "xcxx"]] * 3)
    kept = kept_prompts(alone, right, torch.ones(3, 4, dtype=torch.bool), rho=[0.0, 0.5, 1.0])
    assert kept.sum(-1).tolist() == [2, 3, 4]


def test_loss_is_the_estimator_of_the_paper() -> None:
    """`-1 / |D1 u D2| sum over kept 1 / (G - 1) sum_i (r_i - mean) log pi(y_i)`, written out; and by hand.

    Kept are "axxx" and "cxxx" with alpha_c = 1/4. The first token of the first: (1 - 1/4) / 3 / 2 = 1/8 is its pull,
    that of the second (1/4 - 1/16) / 3 / 2 = 1/32; a wrong response of the first -(0 - 1/4) / 3 / 2 = 1/24 downwards.
    """
    alone, right, asked = judged(["axxx", "xxxx", "cxxx"])
    reward = hierarchical_reward(alone, right, asked, alpha_c=0.25)
    mask = kept_prompts(alone, right, torch.ones(1, 3, dtype=torch.bool), rho=[1.0])
    assert mask.tolist() == [[True, False, True]]
    logprobs = -torch.rand(1, 3, 4, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = policy_gradient_loss(logprobs, task_advantage(reward), mask)
    (found,) = torch.autograd.grad(loss.sum(), logprobs)
    offsets = reward - reward.mean(-1, keepdim=True)
    written = -(offsets * logprobs.sum(-1)).sum(-1)[mask].sum() / 3 / 2
    torch.testing.assert_close(loss, written[None])
    assert found[0, :, :2, 0].flatten().tolist() == pytest.approx([-1 / 8, 1 / 24, 0, 0, -1 / 32, 1 / 96])


def test_where_nothing_is_kept_there_is_no_loss() -> None:
    alone, right, asked = judged(["cxxx", "xxxx"])
    mask = kept_prompts(alone, right, torch.ones(1, 2, dtype=torch.bool), rho=[1.0])
    logprobs = -torch.rand(1, 2, 4, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = policy_gradient_loss(logprobs, task_advantage(hierarchical_reward(alone, right, asked)), mask)
    (gradient,) = torch.autograd.grad(loss.sum(), logprobs)
    assert loss.tolist() == [0.0]
    assert not gradient.any()


def test_what_cannot_work_is_refused() -> None:
    alone, right, asked = judged(["axxx"])
    with pytest.raises(ValueError, match=r"alpha_c=1.5 must lie between 0 and alpha_a=1.0"):
        hierarchical_reward(alone, right, asked, alpha_c=1.5)
    for rho in (-0.1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=rf"rho={rho} must be finite"):
            kept_prompts(alone, right, torch.ones(1, 1, dtype=torch.bool), rho=[rho])
