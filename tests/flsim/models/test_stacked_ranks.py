"""Adapters of unequal ranks in one pack: each equals peft's own of its rank, and what is padded stays zero."""

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import get_peft_model, set_peft_model_state_dict
from torch import Tensor
from transformers import PreTrainedModel, Qwen2Config

from flsim.config.model import ModelConfig
from flsim.learning.adam import Adam, fresh_state
from flsim.models.adapter import Adapter, initial_adapter
from flsim.models.lora_settings import lora_config
from flsim.models.stacked_lora import StackedLora, ranks_of
from tests.flsim.models.small_models import make_base, qwen2

pytestmark = pytest.mark.usefixtures("one_thread")

RANKS, WIDEST, ALPHA = (4, 8, 2), 8, 5.0


def settings(rank: int) -> ModelConfig:
    return ModelConfig(path="", rank=rank, alpha=ALPHA)


@cache
def like(rank: int) -> Adapter:
    return initial_adapter(make_base(qwen2)[0], settings(rank), 0)


def adapter_of(rank: int, seed: int = 0) -> Adapter:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, 0.2, tensor.shape).astype(np.float32) for name, tensor in like(rank).items()}


@pytest.fixture(scope="module")
def adapters() -> list[Adapter]:
    return [adapter_of(rank, seed) for seed, rank in enumerate(RANKS)]


@pytest.fixture(scope="module")
def lora() -> StackedLora:
    return StackedLora(make_base(qwen2)[0], adapter_of(WIDEST), ALPHA / WIDEST)


def tokens() -> Tensor:
    """Two rows for each device."""
    return torch.randint(30, (6, 7), generator=torch.Generator().manual_seed(1))


def loss_of(logits: Tensor, ids: Tensor) -> Tensor:
    return -torch.log_softmax(logits[:, :-1], -1).gather(-1, ids[:, 1:, None]).sum()


def gradient(lora: StackedLora, theta: Tensor) -> Tensor:
    lora.attach(theta, RANKS, train=True)
    loss_of(lora.model(input_ids=tokens()).logits, tokens()).backward()
    return lora.gradient()


def padding(lora: StackedLora) -> Tensor:
    """True where a row of theta has nothing of its device, `(K, n)`."""
    ones = [torch.ones(lora.size(rank)) for rank in RANKS]
    return lora.pad(ones, RANKS) == 0


def test_every_rank_equals_pefts_own(lora: StackedLora, adapters: list[Adapter]) -> None:
    """With alpha / r_k: logits of up to 5 to 1e-5 (seen: 3e-6), gradients to 1e-5 of the largest (seen: 1e-6)."""
    theta = lora.stack(adapters)
    lora.attach(theta, RANKS)
    with torch.no_grad():
        logits = lora.model(input_ids=tokens()).logits
    gradients = lora.unstack(gradient(lora, theta), RANKS)
    for k, (rank, adapter) in enumerate(zip(RANKS, adapters, strict=True)):
        model = get_peft_model(make_base(qwen2)[0], lora_config(settings(rank)))
        set_peft_model_state_dict(model, {name: torch.from_numpy(tensor) for name, tensor in adapter.items()})
        own = tokens()[2 * k : 2 * k + 2]
        expected = model.eval()(input_ids=own).logits
        torch.testing.assert_close(logits[2 * k : 2 * k + 2], expected.detach(), atol=1e-5, rtol=0)
        loss_of(expected, own).backward()
        theirs = {
            n.replace(".default.", "."): p.grad.numpy() for n, p in model.named_parameters() if p.grad is not None
        }
        assert theirs.keys() == gradients[k].keys()
        largest = max(float(np.abs(tensor).max()) for tensor in theirs.values())
        furthest = max(float(np.abs(gradients[k][name] - tensor).max()) for name, tensor in theirs.items())
        assert furthest < 1e-5 * largest


def test_padding_has_no_gradient_and_stays_zero(lora: StackedLora, adapters: list[Adapter]) -> None:
    """Exactly, through five steps of Adam that move all else."""
    theta, state = lora.stack(adapters), fresh_state(3, lora.size(WIDEST))
    empty, before = padding(lora), theta.clone()
    assert empty.sum(1).tolist() == [lora.size(4), 0, lora.size(6)]
    for _ in range(5):
        g = gradient(lora, theta)
        assert (g[empty] == 0).all()
        assert (g[~empty] != 0).float().mean() > 0.9
        Adam().step(theta, g, state)
        for tensor in (theta, state.first, state.second):
            assert (tensor[empty] == 0).all()
    assert (theta != before)[~empty].float().mean() > 0.9


def test_a_row_of_theta_by_hand() -> None:
    """One layer from 2 inputs to 1 output, slots of rank 2: A's rows, then B's columns, padded with zero rows each."""
    name = "base_model.model.only.lora_{}.weight"

    class Toy(PreTrainedModel):
        config_class = Qwen2Config

        def __init__(self, config: Qwen2Config) -> None:
            super().__init__(config)
            self.only = torch.nn.Linear(2, 1, bias=False)

    def adapter(a: list[list[float]], b: list[list[float]]) -> Adapter:
        return {name.format("A"): np.array(a, np.float32), name.format("B"): np.array(b, np.float32)}

    wide, narrow = adapter([[1, 2], [3, 4]], [[5, 6]]), adapter([[7, 8]], [[9]])
    model = Toy(Qwen2Config())
    torch.nn.init.zeros_(model.only.weight)
    lora = StackedLora(model, wide, 3.0)  # alpha = 6
    theta = lora.stack([wide, narrow])
    assert theta.tolist() == [[1, 2, 3, 4, 5, 6], [7, 8, 0, 0, 9, 0]]
    assert [row.tolist() for row in lora.crop(theta, (2, 1))] == [[1, 2, 3, 4, 5, 6], [7, 8, 9]]
    lora.attach(theta, (2, 1))
    # x = (1, 0): A x = (1, 3), B A x = 23, times 3; and A x = 7, B A x = 63, times 6
    assert model.only(torch.tensor([[[1.0, 0.0]]] * 2)).tolist() == [[[69.0]], [[378.0]]]


@given(ranks=st.lists(st.integers(1, WIDEST), min_size=1, max_size=5), seed=st.integers(0, 2**32 - 1))
def test_padding_and_cropping_are_inverse(lora: StackedLora, ranks: list[int], seed: int) -> None:
    source = torch.Generator().manual_seed(seed)
    flats = [torch.randn(lora.size(rank), generator=source) for rank in ranks]
    theta = lora.pad(flats, ranks)
    assert theta.shape == (len(ranks), lora.size(WIDEST))
    assert [int((row != 0).sum()) for row in theta] == [int((flat != 0).sum()) for flat in flats]
    for flat, back in zip(flats, lora.crop(theta, ranks), strict=True):
        assert torch.equal(flat, back)


@given(ranks=st.lists(st.sampled_from([1, 3, 8]), min_size=1, max_size=4), seed=st.integers(0, 2**32 - 1))
def test_stacking_and_unstacking_are_inverse_bit_by_bit(lora: StackedLora, ranks: list[int], seed: int) -> None:
    """Any float32 survives, even NaN, minus zero and the smallest ones."""
    rng = np.random.default_rng(seed)
    adapters = [
        {name: rng.integers(0, 2**32, t.shape, np.uint32).view(np.float32) for name, t in like(rank).items()}
        for rank in ranks
    ]
    theta = lora.stack(adapters)
    assert ranks_of(adapters) == ranks
    for adapter, back in zip(adapters, lora.unstack(theta, ranks), strict=True):
        assert list(back) == list(adapter)
        assert all(back[name].shape == tensor.shape for name, tensor in adapter.items())
        assert all(back[name].tobytes() == tensor.tobytes() for name, tensor in adapter.items())


def test_a_rank_above_the_widest_is_refused_by_name(lora: StackedLora) -> None:
    with pytest.raises(ValueError, match=r"rank 9 does not fit into slots of rank 8 \(model\.rank\)"):
        lora.stack([adapter_of(WIDEST), adapter_of(9)])
