"""A pack of LoRA adapters on one base: outputs and gradients equal those of peft, one adapter at a time."""

import copy

import numpy as np
import pytest
import torch
from peft import get_peft_model, set_peft_model_state_dict
from torch import Tensor
from transformers import LlamaConfig, PreTrainedModel

from flsim.models.adapter import Adapter, initial_adapter
from flsim.models.lora_settings import lora_config
from flsim.models.stacked_lora import StackedLora
from tests.flsim.models.small_models import Maker, gpt_neox, llama, make_base, qwen2

pytestmark = pytest.mark.usefixtures("one_thread")

ARCHITECTURES = pytest.mark.parametrize("make", [llama, qwen2, gpt_neox])


def random_adapters(like: Adapter, count: int) -> list[Adapter]:
    """Adapters whose B is not zero, so that they change the outputs by as much as the base itself says."""
    rng = np.random.default_rng(0)
    return [
        {name: rng.normal(0, 0.3, tensor.shape).astype(np.float32) for name, tensor in like.items()}
        for _ in range(count)
    ]


def stacked(make: Maker, count: int) -> tuple[StackedLora, Tensor, list[Adapter]]:
    base, config = make_base(make)
    like = initial_adapter(base, config, 0)
    adapters = random_adapters(like, count)
    lora = StackedLora(base, like, config.alpha / config.rank)
    return lora, lora.stack(adapters), adapters


def ids(rows: int) -> Tensor:
    return torch.randint(30, (rows, 7), generator=torch.Generator().manual_seed(1))  # (rows, L)


def by_peft(make: Maker, adapter: Adapter, tokens: Tensor) -> Tensor:
    """Logits of peft's own LoRA model with the adapter's tensors loaded."""
    base, config = make_base(make)
    model = get_peft_model(base, lora_config(config))
    set_peft_model_state_dict(model, {name: torch.from_numpy(tensor) for name, tensor in adapter.items()})
    with torch.no_grad():
        logits: Tensor = model.eval()(input_ids=tokens).logits
    return logits


@ARCHITECTURES
@pytest.mark.parametrize("count", [1, 3])
def test_forward_equals_pefts_for_each_adapter(make: Maker, count: int) -> None:
    """To 1e-5 of logits of up to 4 (seen: 1.2e-7), since batched products may sum in another order."""
    lora, theta, adapters = stacked(make, count)
    tokens = ids(2 * count)
    with torch.no_grad():
        lora.attach(None)
        plain = lora.model(input_ids=tokens).logits
        lora.attach(theta)
        logits = lora.model(input_ids=tokens).logits  # (2 * count, L, V)
    for k, adapter in enumerate(adapters):
        block = slice(2 * k, 2 * k + 2)
        expected = by_peft(make, adapter, tokens[block])
        torch.testing.assert_close(logits[block], expected, atol=1e-5, rtol=0)
        assert (expected - plain[block]).abs().max() > 0.05  # the adapter says something


@ARCHITECTURES
def test_a_pack_equals_separate_models(make: Maker) -> None:
    lora, theta, _ = stacked(make, 3)
    tokens = ids(6)
    with torch.no_grad():
        lora.attach(theta)
        together = lora.model(input_ids=tokens).logits
        for k in range(3):
            lora.attach(theta[k : k + 1])
            alone = lora.model(input_ids=tokens[2 * k : 2 * k + 2]).logits
            torch.testing.assert_close(together[2 * k : 2 * k + 2], alone, atol=1e-5, rtol=0)


@ARCHITECTURES
def test_equal_adapters_are_one_adapter(make: Maker) -> None:
    lora, theta, _ = stacked(make, 1)
    tokens = ids(4)
    with torch.no_grad():
        lora.attach(theta)
        once = lora.model(input_ids=tokens).logits
        lora.attach(theta.expand(4, -1))
        four_times = lora.model(input_ids=tokens).logits
    torch.testing.assert_close(once, four_times, atol=1e-5, rtol=0)


def device_losses(lora: StackedLora, theta: Tensor, tokens: Tensor) -> Tensor:
    """One loss per device `(K,)`, of another scale for each."""
    lora.attach(theta)
    k = theta.shape[0]
    logits = lora.model(input_ids=tokens).logits  # (K * rows, L, V)
    scores = torch.log_softmax(logits[:, :-1], -1).gather(-1, tokens[:, 1:, None])  # (K * rows, L - 1, 1)
    return -scores.view(k, -1).mean(1) * torch.tensor([1.0, 10.0, 100.0])[:k]  # (K,)


@ARCHITECTURES
def test_gradients_are_block_separable(make: Maker) -> None:
    """Device k's loss has no gradient in other rows, and its own does not depend on what the others hold."""
    lora, theta, _ = stacked(make, 3)
    tokens = ids(6)
    theta.requires_grad_()
    losses = device_losses(lora, theta, tokens)
    rows = [torch.autograd.grad(loss, theta, retain_graph=True)[0] for loss in losses]
    for k, gradient in enumerate(rows):
        others = [j for j in range(3) if j != k]
        assert (gradient[others] == 0).all()
        assert gradient[k].abs().max() > 0.001
    together = torch.autograd.grad(device_losses(lora, theta, tokens).sum(), theta)[0]
    torch.testing.assert_close(together, torch.stack([rows[k][k] for k in range(3)]))
    swapped = theta.detach().clone()
    swapped[1:] = swapped[1:] * -2
    swapped.requires_grad_()
    again = torch.autograd.grad(device_losses(lora, swapped, tokens).sum(), swapped)[0]
    torch.testing.assert_close(again[0], together[0], rtol=1e-4, atol=1e-6)


@ARCHITECTURES
def test_only_theta_learns(make: Maker) -> None:
    lora, theta, _ = stacked(make, 1)
    lora.attach(theta.requires_grad_())
    lora.model(input_ids=ids(2)).logits.sum().backward()
    assert theta.grad is not None
    assert not any(parameter.requires_grad for parameter in lora.model.parameters())


@ARCHITECTURES
def test_stacking_and_unstacking_is_bit_exact(make: Maker) -> None:
    lora, theta, adapters = stacked(make, 3)
    next(iter(adapters[0].values())).flat[:3] = (-0.0, np.float32(1e-45), np.nextafter(np.float32(1), np.float32(2)))
    theta = lora.stack(adapters)
    assert theta.dtype == torch.float32
    assert theta.shape == (3, sum(tensor.size for tensor in adapters[0].values()))
    for adapter, back in zip(adapters, lora.unstack(theta), strict=True):
        assert list(back) == list(adapter)
        assert all(back[name].tobytes() == tensor.tobytes() for name, tensor in adapter.items())
        assert all(back[name].shape == tensor.shape for name, tensor in adapter.items())


def test_what_is_unstacked_does_not_share_memory_with_theta() -> None:
    lora, theta, adapters = stacked(llama, 2)
    back = lora.unstack(theta)
    theta.zero_()
    assert all((back[1][name] == tensor).all() for name, tensor in adapters[1].items())


@ARCHITECTURES
def test_none_is_the_base_bit_for_bit(make: Maker) -> None:
    fresh, _ = make_base(make)
    lora, theta, _ = stacked(make, 2)
    tokens = ids(4)
    with torch.no_grad():
        expected = fresh(input_ids=tokens).logits
        assert torch.equal(lora.model(input_ids=tokens).logits, expected)
        lora.attach(theta)
        assert not torch.equal(lora.model(input_ids=tokens).logits, expected)
        lora.attach(None)
        assert torch.equal(lora.model(input_ids=tokens).logits, expected)


@ARCHITECTURES
def test_the_initial_adapter_says_nothing(make: Maker) -> None:
    base, config = make_base(make)
    fresh = copy.deepcopy(base)
    like = initial_adapter(base, config, 0)
    lora = StackedLora(base, like, config.alpha / config.rank)
    lora.attach(lora.stack([like, like]))
    with torch.no_grad():
        assert torch.equal(lora.model(input_ids=ids(4)).logits, fresh(input_ids=ids(4)).logits)


def test_one_layer_by_hand() -> None:
    """W = 0, alpha / r = 2, A = [1, 2], B = [3, 0]^T: x = (1, 1) goes to A x = 3, B A x = (9, 0), times 2 = (18, 0).

    The second device has A = [0, 1], B = [1, 1]^T: x = (1, 1) goes to 1, (1, 1), times 2 = (2, 2).
    """

    class Toy(PreTrainedModel):
        config_class = LlamaConfig

        def __init__(self, config: LlamaConfig) -> None:
            super().__init__(config)
            self.only = torch.nn.Linear(2, 2, bias=False)

    model = Toy(LlamaConfig())
    torch.nn.init.zeros_(model.only.weight)
    name = "base_model.model.only.lora_{}.weight"

    def adapter(a: list[list[float]], b: list[list[float]]) -> Adapter:
        return {name.format("A"): np.array(a, np.float32), name.format("B"): np.array(b, np.float32)}

    first, second = adapter([[1, 2]], [[3], [0]]), adapter([[0, 1]], [[1], [1]])
    lora = StackedLora(model, first, 2.0)
    lora.attach(lora.stack([first, second]))
    assert model.only(torch.ones(2, 1, 2)).tolist() == [[[18.0, 0.0]], [[2.0, 2.0]]]


def test_an_adapter_whose_parts_do_not_pair_is_refused() -> None:
    base, config = make_base(llama)
    like = initial_adapter(base, config, 0)
    first, *others = like
    with pytest.raises(ValueError, match=r"lora_A and lora_B of one layer side by side, found .*lora_B.* and .*lora_A"):
        StackedLora(base, {name: like[name] for name in [*others, first]}, 1.0)
