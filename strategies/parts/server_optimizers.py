"""Server optimizers: what the server does with the mean of the deltas.

Reddi et al. 2021 (arXiv 2003.00295), algorithm 2. They act on the factors A and B, tensor by tensor. That is well
defined as long as the factors keep their frame from round to round: under plain averaging they do; product-space
methods fix the frame before (`flsim/aggregation/frame.py`).
"""

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from flsim.models.adapter import Adapter

Tensors = dict[str, NDArray[np.float64]]


class ServerOptimizer(Protocol):
    """Takes a step; what it keeps on itself is saved with the strategy."""

    def step(self, adapter: Adapter, delta: Tensors) -> Adapter:
        """The next adapter from the mean delta, float64 by tensor name; tensors without a delta stay as they are."""
        ...


@dataclass(frozen=True)
class Average:
    """`x + lr D`: with lr = 1 the plain average."""

    lr: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a step backwards."""
        _refuse_negative("lr", self.lr)

    def step(self, adapter: Adapter, delta: Tensors) -> Adapter:
        """One step along D."""
        return _moved(adapter, {name: self.lr * tensor for name, tensor in delta.items()})


@dataclass
class Momentum:
    """`m = beta m + D; x + lr m` (FedAvgM, Hsu et al. 2019, arXiv 1909.06335), as Flower's FedAvgM."""

    lr: float = 1.0
    beta: float = 0.9
    velocity: Tensors = field(default_factory=dict)
    """m by tensor name."""

    def __post_init__(self) -> None:
        """Refuse what would not decay."""
        _refuse_negative("lr", self.lr)
        _refuse_outside("beta", self.beta)

    def step(self, adapter: Adapter, delta: Tensors) -> Adapter:
        """One step along the velocity."""
        for name, tensor in delta.items():
            self.velocity[name] = self.beta * self.velocity.get(name, 0.0) + tensor
        return _moved(adapter, {name: self.lr * self.velocity[name] for name in delta})


@dataclass
class _Adaptive:
    """`m = b1 m + (1 - b1) D`, v by the subclass, `x + lr m / (sqrt(v) + tau)`; no bias correction, as in the paper."""

    lr: float = 0.003
    beta1: float = 0.9
    tau: float = 1e-3
    """Adaptivity: where sqrt(v) is far below it, the step is that of momentum with lr / tau."""
    first: Tensors = field(default_factory=dict)
    """m by tensor name."""
    second: Tensors = field(default_factory=dict)
    """v by tensor name; starts at tau squared."""

    def __post_init__(self) -> None:
        """Refuse what would not decay or could divide by zero."""
        _refuse_negative("lr", self.lr)
        _refuse_outside("beta1", self.beta1)
        if not self.tau > 0:
            raise ValueError(f"tau={self.tau} must be above 0: it keeps the step finite where nothing moved yet")

    @abstractmethod
    def _next_second(self, old: NDArray[np.float64], square: NDArray[np.float64]) -> NDArray[np.float64]:
        """The next v, from the old one and D squared."""

    def step(self, adapter: Adapter, delta: Tensors) -> Adapter:
        """One step along the scaled mean."""
        moved = {}
        for name, tensor in delta.items():
            start = np.full_like(tensor, self.tau**2)
            self.first[name] = self.beta1 * self.first.get(name, 0.0) + (1 - self.beta1) * tensor
            self.second[name] = self._next_second(self.second.get(name, start), tensor**2)
            moved[name] = self.lr * self.first[name] / (np.sqrt(self.second[name]) + self.tau)
        return _moved(adapter, moved)


@dataclass
class Adagrad(_Adaptive):
    """`v = v + D^2` (FedAdagrad); v starts at tau squared as in the paper, Flower's at 0, else they are equal."""

    beta1: float = 0.0

    def _next_second(self, old: NDArray[np.float64], square: NDArray[np.float64]) -> NDArray[np.float64]:
        return old + square


@dataclass
class Adam(_Adaptive):
    """`v = b2 v + (1 - b2) D^2` (FedAdam).

    As in the paper; Flower's starts at v = 0 and multiplies lr by `sqrt(1 - b2^(t+1)) / (1 - b1^(t+1))` in round t.
    """

    beta2: float = 0.99

    def __post_init__(self) -> None:
        """Refuse what would not decay."""
        super().__post_init__()
        _refuse_outside("beta2", self.beta2)

    def _next_second(self, old: NDArray[np.float64], square: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.beta2 * old + (1 - self.beta2) * square


@dataclass
class Yogi(Adam):
    """`v = v - (1 - b2) D^2 sign(v - D^2)` (FedYogi): v shrinks more slowly than Adam's after a large step.

    v starts at tau squared as in the paper, Flower's at 0, else they are equal.
    """

    def _next_second(self, old: NDArray[np.float64], square: NDArray[np.float64]) -> NDArray[np.float64]:
        return old - (1 - self.beta2) * square * np.sign(old - square)


def _moved(adapter: Adapter, by: Tensors) -> Adapter:
    return {name: (tensor + by[name]).astype(np.float32) if name in by else tensor for name, tensor in adapter.items()}


def _refuse_negative(name: str, value: float) -> None:
    if not 0 <= value < np.inf:
        raise ValueError(f"{name}={value} must be at least 0 and finite; 1 is the plain average's")


def _refuse_outside(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise ValueError(f"{name}={value} must be at least 0 and below 1: it is the share of the old value that stays")
