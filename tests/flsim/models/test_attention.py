"""Attention over segments that rows and heads share: by hand, and the fused kernel against the plain products."""

import math

import pytest
import torch

import flsim.models.llama as short
from flsim.models.llama import attend

pytestmark = pytest.mark.usefixtures("one_thread")


def test_attention_by_hand() -> None:
    """Two rows share one past row, two heads one key head. Scores (0, ln 3) weigh 1/4 and 3/4: of 4 and 8 that is 7.

    Row 0, head 0 asks with 1 and meets keys 0 (past) and ln 3 (own); head 1 asks with 0, weighs both 1/2, and gets 6.
    Row 1 may not see its own token: it gets 4 for any question.
    """
    query = torch.tensor([[[[1.0]], [[0.0]]], [[[1.0]], [[5.0]]]])  # (n, H, T, d) = (2, 2, 1, 1)
    past = torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), 4.0)
    own = torch.full((2, 1, 1, 1), math.log(3)), torch.full((2, 1, 1, 1), 8.0)
    bias = torch.tensor([[[[0.0, 0.0]]], [[[0.0, -1e9]]]])  # (n, 1, T, L)
    mixed = attend(query, [past, own], bias)
    torch.testing.assert_close(mixed, torch.tensor([[[[7.0]], [[6.0]]], [[[4.0]], [[4.0]]]]))


@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (4, 1)], ids=str)
@pytest.mark.parametrize("rows", [(6,), (2,), (3, 6), (1, 6), (6, 6)], ids=str)
def test_the_fused_kernel_is_the_plain_products(
    heads: tuple[int, int], rows: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six rows over one or two segments with fewer rows and heads: results and gradients to 1e-5 (seen: 7e-7)."""
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(6, heads[0], 3, 8, generator=generator)
    pairs = [torch.randn(2, m, heads[1], 5, 8, generator=generator) for m in rows]
    leaves = [query, *pairs]
    hidden = torch.rand(6, 1, 3, 5 * len(rows), generator=generator)
    hidden[..., 0] = 1.0  # a token that sees nothing at all gets something finite, and nobody reads it
    bias = torch.zeros(6, 1, 3, 5 * len(rows)).masked_fill(hidden < 0.3, -1e9)
    weights = torch.randn(6, heads[0], 3, 8, generator=generator)
    found = []
    for plain in (10**9, 0):
        monkeypatch.setattr(short, "_PLAIN", plain)
        taken = [leaf.clone().requires_grad_() for leaf in leaves]
        mixed = attend(taken[0], [(pair[0], pair[1]) for pair in taken[1:]], bias)
        found.append([mixed.detach(), *torch.autograd.grad((mixed * weights).sum(), taken)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
