"""Devices with unequally many tokens in one call: a layer gives and learns what K calls, one per device, would."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import grouped_mm
from transformers import LlamaConfig, PreTrainedModel

import flsim.models.lora_linear as lora_linear
from flsim.models.adapter import Adapter
from flsim.models.lora_linear import unequal, uneven
from flsim.models.stacked_lora import StackedLora

pytestmark = pytest.mark.usefixtures("one_thread")

ALIGNED = [(8, 12, 4), (16, 4, 8)]  # inputs, outputs, rank
MISALIGNED = [(8, 12, 3), (10, 12, 4), (8, 6, 4), (5, 7, 1)]
COUNTS = [(3, 0, 5), (0, 0, 4), (2, 2, 2), (1, 7, 0), (6,)]


class Toy(PreTrainedModel):
    config_class = LlamaConfig

    def __init__(self, config: LlamaConfig, inputs: int, outputs: int) -> None:
        super().__init__(config)
        self.only = nn.Linear(inputs, outputs)


def lora_of(inputs: int, outputs: int, rank: int) -> StackedLora:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Toy(LlamaConfig(), inputs, outputs)
    name = "base_model.model.only.lora_{}.weight"
    like: Adapter = {
        name.format("A"): torch.zeros(rank, inputs).numpy(),
        name.format("B"): torch.zeros(outputs, rank).numpy(),
    }
    return StackedLora(model, like, 2.0)


def both_ways(sizes: tuple[int, int, int], counts: tuple[int, ...]) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs, and the gradients of x and theta, of one call and of a call for each device that has tokens."""
    lora, source = lora_of(*sizes), torch.Generator().manual_seed(1)
    n, devices = sum(counts), len(counts)
    ranks = [max(1, sizes[2] - k) for k in range(devices)]
    flats = [torch.randn(lora.size(rank), generator=source) for rank in ranks]
    theta = lora.pad(flats, ranks).requires_grad_()
    x = torch.randn(1, n, sizes[0], generator=source).requires_grad_()
    weights = torch.randn(1, n, sizes[1], generator=source)
    lora.attach(theta, ranks)
    with unequal(torch.tensor(counts)):
        together = lora.model.only(x)
    found = [together.detach(), *torch.autograd.grad((together * weights).sum(), (x, theta))]
    parts = []
    for k, own in enumerate(x.split(counts, 1)):
        lora.attach(theta[k : k + 1], ranks[k : k + 1])
        parts.append(lora.model.only(own) if counts[k] else own.new_zeros(1, 0, sizes[1]))
    alone = torch.cat(parts, 1)
    return found, [alone.detach(), *torch.autograd.grad((alone * weights).sum(), (x, theta))]


def largest(found: list[Tensor], expected: list[Tensor]) -> float:
    """Largest difference of outputs and gradients, in parts of the largest number of each."""
    pairs = zip(found, expected, strict=True)
    return max(float((one - other).abs().max() / other.abs().max()) for one, other in pairs)


@pytest.mark.parametrize("sizes", ALIGNED + MISALIGNED, ids=str)
@pytest.mark.parametrize("counts", COUNTS, ids=str)
def test_one_call_equals_a_call_for_each_device(sizes: tuple[int, int, int], counts: tuple[int, ...]) -> None:
    """To 2e-6 of the largest number (seen: 3e-7); a device without tokens has exactly no gradient."""
    found, expected = both_ways(sizes, counts)
    assert largest(found, expected) < 2e-6
    for of_theta, count in zip(found[2], counts, strict=True):
        assert bool((of_theta != 0).any()) == (count > 0)


@given(counts=st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any), aligned=st.booleans())
def test_one_call_equals_a_call_for_each_device_whatever_their_numbers(counts: list[int], aligned: bool) -> None:
    found, expected = both_ways((8, 12, 4 if aligned else 3), tuple(counts))
    assert largest(found, expected) < 2e-6


@pytest.mark.parametrize(("sizes", "grouped"), [(ALIGNED[0], True), *((sizes, False) for sizes in MISALIGNED)], ids=str)
def test_only_aligned_widths_meet_the_grouped_product(
    sizes: tuple[int, int, int], grouped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It refuses rows that are not multiples of 16 bytes."""
    calls: list[int] = []

    def counted(x: Tensor, w: Tensor, *, offs: Tensor) -> Tensor:
        calls.append(len(offs))
        return grouped_mm(x, w, offs=offs)

    monkeypatch.setattr(lora_linear, "grouped_mm", counted)
    both_ways(sizes, (3, 0, 5))
    assert calls == ([3] * 6 if grouped else [])  # two products forward, four backward


def test_numbers_hold_within_their_block_only() -> None:
    """Also when blocks are nested, and when one is left by an error."""

    def fail(counts: Tensor) -> None:
        with unequal(counts):
            raise KeyError

    with unequal(torch.tensor([1])):
        with pytest.raises(KeyError):
            fail(torch.tensor([2]))
        here = uneven()
        assert here is not None
        assert here.counts.tolist() == [1]
    assert uneven() is None


@pytest.mark.parametrize("rank", [4, 3], ids=["grouped", "padded"])
def test_each_block_has_its_own_numbers(rank: int) -> None:
    """What a layer works out in one block, it neither takes into another nor forgets on its way out of it."""
    lora, source = lora_of(8, 12, rank), torch.Generator().manual_seed(1)
    theta, x = torch.randn(2, lora.size(rank), generator=source), torch.randn(1, 6, 8, generator=source)

    def alone(*counts: int) -> Tensor:
        lora.attach(theta)
        with unequal(torch.tensor(counts)):
            found: Tensor = lora.model.only(x)
        return found

    first, second = alone(1, 5), alone(4, 2)
    with unequal(torch.tensor([1, 5])):
        assert torch.equal(lora.model.only(x), first)
        assert torch.equal(alone(4, 2), second)
        assert torch.equal(lora.model.only(x), first)
    assert not torch.allclose(first, second)


def test_without_adapters_numbers_mean_nothing() -> None:
    lora = lora_of(8, 12, 4)
    x = torch.ones(1, 5, 8)
    lora.attach(None)
    with unequal(torch.tensor([3, 2])):
        assert torch.equal(lora.model.only(x), lora.model.only.base(x))
