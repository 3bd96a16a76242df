"""Modules of K devices at a time: equal to training each alone, whatever is batched, and what is refused."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import flsim.models.stacked_module as stacked_module
from flsim.models import cnn
from flsim.models.cnn import LeafCnn
from flsim.models.stacked_module import StackedModule

DEVICES, BATCH, CLASSES = 3, 4, 5


def small() -> LeafCnn:
    torch.manual_seed(0)
    return LeafCnn(CLASSES, side=8, channels=(2, 3), hidden=6)


def examples() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.rand(DEVICES, BATCH, 8, 8, generator=generator)
    labels = torch.randint(CLASSES, (DEVICES, BATCH), generator=generator)
    weights = torch.ones(DEVICES, BATCH)
    weights[1, 2:] = 0.0
    return inputs, labels, weights


@pytest.mark.parametrize("together", [0, 2**21])
def test_a_pack_learns_what_each_device_would_alone(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacked_module, "_TOGETHER", together)
    stacked = StackedModule(small())
    theta = stacked.stack([stacked.first] * DEVICES)
    inputs, labels, weights = examples()
    chunk = stacked.together
    for _ in range(3):
        for at in range(0, DEVICES, chunk):
            part = slice(at, at + chunk)
            step = stacked.learn(theta[part], inputs[part], labels[part], weights[part])
            theta[part].sub_(step.gradient, alpha=0.5)
    for k, learned in enumerate(stacked.unstack(theta)):
        alone, real = small(), int(weights[k].sum())
        optimizer = torch.optim.SGD(alone.parameters(), 0.5)
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(alone(inputs[k, :real]), labels[k, :real]).backward()
            optimizer.step()
        for name, value in alone.named_parameters():
            assert torch.allclose(torch.from_numpy(learned[name]), value, atol=1e-6), name


def test_what_is_right_and_lost_is_that_before_the_step() -> None:
    stacked = StackedModule(small())
    inputs, labels, weights = examples()
    theta = stacked.stack([stacked.first] * DEVICES)
    step = stacked.learn(theta, inputs, labels, weights)
    logits = stacked.logits(theta, inputs)
    assert step.right.tolist() == ((logits.argmax(-1) == labels) * weights).sum(1).tolist()
    each = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(DEVICES, BATCH)
    assert torch.allclose(step.losses, (each * weights).sum(1) / weights.sum(1), atol=1e-6)


def test_a_device_without_examples_does_not_move() -> None:
    stacked = StackedModule(small())
    inputs, labels, weights = examples()
    weights[2] = 0.0
    step = stacked.learn(stacked.stack([stacked.first] * DEVICES), inputs, labels, weights)
    assert not step.gradient[2].any()
    assert step.gradient[0].any()


def test_stacking_and_back_is_exact() -> None:
    stacked = StackedModule(small())
    (back,) = stacked.unstack(stacked.stack([stacked.first]))
    assert list(back) == list(stacked.first)
    assert all((back[name] == tensor).all() for name, tensor in stacked.first.items())


def test_leafs_pooling_is_torchs_and_so_is_its_gradient_bit_for_bit() -> None:
    """Whole numbers have many ties, where the first of the largest gets the gradient."""
    pictures = torch.randint(-2, 3, (3, 4, 8, 8), generator=torch.Generator().manual_seed(0)).float()
    found = []
    for pool in (cnn._halved, lambda x: F.max_pool2d(x, 2)):
        own = pictures.clone().requires_grad_()
        out = pool(own)
        out.backward(torch.arange(out.numel()).float().view(out.shape))
        assert own.grad is not None
        found.append((out, own.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_leafs_network_has_leafs_size() -> None:
    assert StackedModule(LeafCnn(62)).size == 6_603_710


def test_frozen_parameters_are_shared_and_not_learned() -> None:
    module = small()
    module.conv1.requires_grad_(False)
    assert not any(name.startswith("conv1") for name in StackedModule(module).first)


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4)), "running statistics"),
        (nn.Flatten(), "no parameter"),
    ],
)
def test_what_cannot_be_federated_is_refused(module: nn.Module, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        StackedModule(module)
