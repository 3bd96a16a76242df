"""Server optimizers: two steps of each by hand, and what they leave alone."""

import math
import pickle
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsim.models.adapter import Adapter
from strategies.parts.server_optimizers import Adagrad, Adam, Average, Momentum, ServerOptimizer, Yogi

ALL = [Average, Momentum, Adagrad, Adam, Yogi]


def two_steps(optimizer: ServerOptimizer, first: float, second: float) -> list[float]:
    """Where it goes from 1 along two mean deltas."""
    adapter: Adapter = {"w": np.array([1.0], dtype=np.float32)}
    places = []
    for delta in (first, second):
        adapter = optimizer.step(adapter, {"w": np.array([delta])})
        places.append(float(adapter["w"][0]))
    return places


def test_average_and_momentum_by_hand() -> None:
    """From 1 along 2, then -1; momentum: m = 2, then 0.5 * 2 - 1 = 0."""
    assert two_steps(Average(), 2.0, -1.0) == [3.0, 2.0]
    assert two_steps(Average(0.5), 2.0, -1.0) == [2.0, 1.5]
    assert two_steps(Momentum(beta=0.5), 2.0, -1.0) == [3.0, 3.0]
    assert two_steps(Momentum(lr=0.5, beta=0.0), 2.0, -1.0) == two_steps(Average(0.5), 2.0, -1.0)


@pytest.mark.parametrize(
    ("make", "seconds"),
    [
        (Adagrad, (4.25, 5.25)),  # 0.5^2 + 2^2, + 1^2
        (Adam, (1.1875, 1.140625)),  # 0.75 * 0.25 + 0.25 * 4, 0.75 * that + 0.25 * 1
        (Yogi, (1.25, 1.0)),  # 0.25 + 0.25 * 4 as v < 4, then - 0.25 * 1 as v > 1
    ],
)
def test_adaptive_steps_by_hand(make: type[Adagrad | Adam | Yogi], seconds: tuple[float, float]) -> None:
    """Tau = 1/2, b1 = 1/2, b2 = 3/4, lr = 1; m = 1 after 2, then 0 after -1; the step is m / (sqrt(v) + 1/2)."""
    optimizer = make(lr=1.0, beta1=0.5, tau=0.5)
    if isinstance(optimizer, Adam):
        optimizer.beta2 = 0.75
    one, two = two_steps(optimizer, 2.0, -1.0)
    assert one == pytest.approx(1 + 1 / (math.sqrt(seconds[0]) + 0.5))
    assert two == pytest.approx(one)
    assert optimizer.second["w"].tolist() == pytest.approx([seconds[1]])
    assert optimizer.first["w"].tolist() == [0.0]


@given(seed=st.integers(0, 99))
@pytest.mark.parametrize("make", ALL)
def test_what_has_no_delta_stays_and_nothing_that_is_given_changes(make: type[Momentum], seed: int) -> None:
    rng = np.random.default_rng(seed)
    adapter = {name: rng.normal(size=(2, 3)).astype(np.float32) for name in ("a", "b")}
    delta = {"b": rng.normal(size=(2, 3))}
    before = pickle.dumps((adapter, delta))
    optimizer = make()
    new = optimizer.step(adapter, delta)
    assert list(new) == ["a", "b"]
    assert new["a"] is adapter["a"]
    assert new["b"].dtype == np.float32
    assert (np.sign(new["b"] - adapter["b"]) == np.sign(delta["b"]))[np.abs(delta["b"]) > 0.01].all()
    assert pickle.dumps((adapter, delta)) == before
    again = pickle.loads(pickle.dumps(optimizer))
    assert np.array_equal(again.step(new, delta)["b"], optimizer.step(new, delta)["b"])


@pytest.mark.parametrize("make", [Adagrad, Adam, Yogi])
def test_a_zero_delta_moves_nothing_and_divides_by_nothing(make: type[Adam]) -> None:
    assert two_steps(make(), 0.0, 0.0) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Average(-1.0), r"lr=-1.0 must be at least 0 and finite"),
        (lambda: Momentum(lr=math.nan), r"lr=nan must be at least 0"),
        (lambda: Momentum(beta=1.0), r"beta=1.0 must be at least 0 and below 1"),
        (lambda: Adagrad(beta1=-0.1), r"beta1=-0.1 must be at least 0 and below 1"),
        (lambda: Adam(beta2=1.0), r"beta2=1.0 must be at least 0 and below 1"),
        (lambda: Yogi(tau=0.0), r"tau=0.0 must be above 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
