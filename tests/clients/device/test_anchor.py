"""What ties a device to what it was sent: FedProx's gradient, and factors that keep every bit under Adam's momentum."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from clients.da_grpo import DaGrpo
from clients.device.anchor import Anchor
from clients.device.device import Device
from clients.device.pack import Pack
from clients.device.world import World, load_world
from clients.reinforcement import Judged
from flsim.budget.ledger import Ledger
from flsim.config.load import load_config
from flsim.learning.adam import Adam, AdamState
from flsim.models.adapter import Adapter, factor_of, initial_adapter
from flsim.models.base import load_base
from tests.tiny import TOKEN

pytestmark = pytest.mark.usefixtures("one_thread")


class Pushed(DaGrpo):
    """DA-GRPO for a loss whose slope is 1 in every parameter."""

    def _gradient(self, pack: Pack, judged: Judged, update: int) -> Tensor:
        return torch.ones_like(pack.theta)  # (K, n)


PUSHED = Pushed(steps=6, prompts=1, group_size=2, lr=0.01, max_new_tokens=1, **TOKEN)


@pytest.fixture(scope="module")
def world(tiny_checkpoint: Path) -> World:
    settings = [f"model.path={tiny_checkpoint}", "model.rank=2", "rounds=3", "fleet.devices=3", "cloud.kind=oracle"]
    return load_world(load_config(None, settings))


@pytest.fixture(scope="module")
def start(world: World) -> Adapter:
    fresh = initial_adapter(load_base(world.config.model.path).model, world.config.model, world.config.seed)
    rng = np.random.default_rng(7)
    return {name: rng.normal(0, 0.2, tensor.shape).astype(np.float32) for name, tensor in fresh.items()}


def device_of(world: World, start: Adapter, index: int = 0, *, learns: str = "AB", proximal: float = 0.0) -> Device:
    return Device(index, 1, start, 0.5, Ledger(world.config.budget), None, learns=learns, proximal=proximal)


def anchored(sent: Tensor, mu: Tensor, fixed: Tensor | None = None) -> Anchor:
    return Anchor(sent, fixed, mu)


def test_the_gradient_of_the_proximal_term_by_hand() -> None:
    """Mu = 0.5, sent 1, now 3, gradient -2 of the loss: -2 + 0.5 (3 - 1) = -1; the second device has mu = 0."""
    anchor = anchored(torch.tensor([[1.0], [1.0]]), torch.tensor([[0.5], [0.0]]))
    theta, gradient = torch.tensor([[3.0], [3.0]]), torch.tensor([[-2.0], [-2.0]])
    assert anchor.pull(theta, gradient).tolist() == [[-1.0], [-2.0]]
    assert gradient.tolist() == [[-2.0], [-2.0]]


@given(seed=st.integers(0, 99))
def test_it_is_the_slope_of_half_mu_times_the_squared_distance(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    sent, theta, gradient, way = torch.randn((4, 2, 5), generator=draw, dtype=torch.float64)
    mu = torch.rand((2, 1), generator=draw, dtype=torch.float64)
    pulled = anchored(sent, mu).pull(theta, gradient)

    def loss(step: float) -> Tensor:
        at = theta + step * way  # (2, 5)
        return torch.sum((gradient * at).sum(1) + mu[:, 0] / 2 * ((at - sent) ** 2).sum(1))

    slope = (loss(1e-4) - loss(-1e-4)) / 2e-4
    assert float((pulled * way).sum()) == pytest.approx(float(slope), abs=1e-7)


@pytest.mark.parametrize("learns", ["A", "B"])
def test_what_may_not_be_learned_keeps_every_bit_under_kept_moments(world: World, start: Adapter, learns: str) -> None:
    """The moments of earlier rounds would move it even with no gradient; what may be learned goes on as it would."""
    devices = [device_of(world, start, learns=learns), device_of(world, start, 1)]
    theta = world.lora.stack([start, start])
    sent, mine = theta.clone(), world.lora.belonging_to(learns)
    anchor = Anchor.of(world.lora, theta, devices)
    moments = [AdamState(torch.ones_like(theta), torch.ones_like(theta), torch.full((2,), 5.0)) for _ in range(2)]
    gradient = torch.randn(theta.shape, generator=torch.Generator().manual_seed(0))
    adam, free = Adam(lr=0.1, clip_norm=1e9), theta.clone()
    adam.step(free, gradient.clone(), moments[0])
    adam.step(theta, anchor.pull(theta, gradient.clone()), moments[1])
    assert not torch.equal(theta[0, ~mine], sent[0, ~mine])
    anchor.hold(theta)
    assert theta[0, ~mine].numpy().tobytes() == sent[0, ~mine].numpy().tobytes()
    assert torch.equal(theta[0, mine], free[0, mine])
    assert torch.equal(theta[1], free[1])
    assert 0 < int(mine.sum()) < theta.shape[1]


def test_what_may_not_be_learned_does_not_shorten_the_clipped_gradient(world: World, start: Adapter) -> None:
    theta = world.lora.stack([start])
    anchor = Anchor.of(world.lora, theta, [device_of(world, start, learns="B")])
    pulled = anchor.pull(theta, torch.ones_like(theta))
    assert torch.equal(pulled[0] != 0, world.lora.belonging_to("B"))


@pytest.mark.parametrize("learns", ["A", "B"])
def test_a_whole_round_leaves_the_other_factor_alone(world: World, start: Adapter, learns: str) -> None:
    (update,) = PUSHED.local_update(world, [device_of(world, start, learns=learns)])
    for name, tensor in update.adapter.items():
        assert (tensor.tobytes() == start[name].tobytes()) == (factor_of(name) != learns), name


def way(world: World, start: Adapter, mu: float) -> float:
    """How far a round carries a device."""
    (update,) = PUSHED.local_update(world, [device_of(world, start, proximal=mu)])
    return float(np.sqrt(sum(((tensor - start[name]) ** 2).sum() for name, tensor in update.adapter.items())))


def test_a_large_mu_keeps_a_device_near(world: World, start: Adapter) -> None:
    assert way(world, start, 1000.0) < 0.5 * way(world, start, 0.0)


def test_mu_of_zero_changes_no_bit_even_beside_a_device_that_is_held(world: World, start: Adapter) -> None:
    """Alone nothing is anchored at all; beside a device with a mu of its own, zero is added."""
    alone = PUSHED.local_update(world, [device_of(world, start), device_of(world, start, 1)])
    beside = PUSHED.local_update(world, [device_of(world, start), device_of(world, start, 1, proximal=9.0)])
    assert {n: t.tobytes() for n, t in alone[0].adapter.items()} == {
        n: t.tobytes() for n, t in beside[0].adapter.items()
    }
    assert any(not np.array_equal(t, beside[1].adapter[n]) for n, t in alone[1].adapter.items())
    theta = world.lora.stack([start])
    assert Anchor.of(world.lora, theta, [device_of(world, start)]).start is None
