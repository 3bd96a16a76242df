import pytest
import torch
from torch import Tensor

from flsim.learning.adam import Adam, AdamState, fresh_state

pytestmark = pytest.mark.usefixtures("one_thread")

HEAD_START = (0, 3, 20)  # steps that each device took before the pack met
N = 17


def gradients(device: int, step: int) -> Tensor:
    """`(1, n)`, sometimes longer and sometimes shorter than the clip norm of 1."""
    size = (0.02, 1.0, 5.0)[(device + step) % 3]
    return size * torch.randn(1, N, generator=torch.Generator().manual_seed(100 * device + step))


def by_torch(adam: Adam, theta: Tensor, device: int, steps: int) -> Tensor:
    """The device alone, with torch's own optimizer and clipping."""
    parameter = torch.nn.Parameter(theta.clone())
    oracle = torch.optim.Adam([parameter], lr=adam.lr, betas=(adam.beta1, adam.beta2), eps=adam.epsilon)
    for step in range(steps):
        parameter.grad = gradients(device, step)
        torch.nn.utils.clip_grad_norm_([parameter], adam.clip_norm)
        oracle.step()
    return parameter.detach()


def start(device: int) -> Tensor:
    return torch.randn(1, N, generator=torch.Generator().manual_seed(device))


@pytest.mark.parametrize("adam", [Adam(), Adam(lr=0.1, beta1=0.5, beta2=0.999, epsilon=1e-3, clip_norm=0.2)])
def test_equals_torch_for_devices_with_unequal_step_counts(adam: Adam) -> None:
    """Three devices come to a pack with 0, 3 and 20 steps behind them and take 6 together."""
    thetas, states = [], []
    for device, steps in enumerate(HEAD_START):
        theta, state = start(device), fresh_state(1, N)
        for step in range(steps):
            adam.step(theta, gradients(device, step), state)
        thetas.append(theta)
        states.append(state)
    theta = torch.cat(thetas)  # (3, n)
    state = AdamState(*(torch.cat([getattr(row, part) for row in states]) for part in ("first", "second", "steps")))
    for step in range(6):
        pack = [gradients(device, steps + step) for device, steps in enumerate(HEAD_START)]
        adam.step(theta, torch.cat(pack), state)
    assert state.steps.tolist() == [6, 9, 26]
    for device, steps in enumerate(HEAD_START):
        expected = by_torch(adam, start(device), device, steps + 6)
        torch.testing.assert_close(theta[device : device + 1], expected, atol=1e-5 * adam.lr * 26, rtol=1e-6)
        assert (expected - start(device)).abs().max() > 3 * adam.lr  # it has moved far more than the tolerance


def test_first_step_by_hand() -> None:
    """After one step both corrected moments are those of the gradient g itself: the step is lr g / (|g| + eps).

    (3, -4) has norm 5 and is clipped to (0.6, -0.8), which only the signs survive; (0, 0) stays where it is.
    """
    adam = Adam(lr=0.1)
    theta, state = torch.zeros(2, 2), fresh_state(2, 2)
    adam.step(theta, torch.tensor([[3.0, -4.0], [0.0, 0.0]]), state)
    torch.testing.assert_close(theta, torch.tensor([[-0.1, 0.1], [0.0, 0.0]]))
    torch.testing.assert_close(state.first, torch.tensor([[0.06, -0.08], [0.0, 0.0]]))
    torch.testing.assert_close(state.second, torch.tensor([[0.0036, 0.0064], [0.0, 0.0]]))


def test_devices_do_not_touch_each_other() -> None:
    """A huge gradient of one device neither clips nor moves the other, bit for bit."""
    together, alone = torch.zeros(2, N), torch.zeros(1, N)
    state, own = fresh_state(2, N), fresh_state(1, N)
    Adam().step(together, torch.cat([gradients(1, 0), 1e6 * gradients(1, 0)]), state)
    Adam().step(alone, gradients(1, 0), own)
    assert torch.equal(together[:1], alone)
    assert torch.equal(state.second[:1], own.second)


def test_whoever_keeps_a_copy_of_theta_sees_that_it_moved() -> None:
    """Torch's fused kernel writes without counting."""
    theta = start(0)
    before = theta._version
    Adam().step(theta, gradients(0, 0), fresh_state(1, N))
    assert theta._version > before
