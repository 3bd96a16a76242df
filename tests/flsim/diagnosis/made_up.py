"""Rows of a made-up run: twelve devices, twelve rounds, and values that are given."""

from collections.abc import Callable, Iterable

from flsim.diagnosis.seen import Facts
from flsim.metrics.rows import Row
from flsim.tasks.stream import Phase

DEVICES, ROUNDS = 12, 12
ONE = (Phase("A", ("a",), 1, ROUNDS),)
TWO = (Phase("A", ("a",), 1, 6), Phase("B", ("b",), 7, ROUNDS))
FACTS = Facts(phases=ONE, tau=0.3, devices=DEVICES, learns_to_ask=True, highest_price=1.0)

Value = float | Callable[[int, int], float]
"""The same for all, or by device and round."""


def device(index: int) -> str:
    return f"device-{index:03d}"


def _value(value: Value, index: int, round_: int) -> float:
    return value(index, round_) if callable(value) else value


def trained(
    name: str,
    value: Value,
    weight: float = 1.0,
    *,
    rounds: Iterable[int] = range(1, ROUNDS + 1),
    devices: Iterable[int] = range(DEVICES),
) -> list[Row]:
    """Rows of training."""
    places = [(index, round_) for index in devices for round_ in rounds]
    return [Row(r, device(k), "all", "train", "own", name, weight * _value(value, k, r), weight) for k, r in places]


def measured(
    model: str, name: str, value: Value, rounds: Iterable[int], *, task: str = "a", prompts: float = 1000.0
) -> list[Row]:
    """Rows of tests of one task."""
    return [
        Row(r, device(k), task, "test", model, name, prompts * _value(value, k, r), prompts)
        for k in range(DEVICES)
        for r in rounds
    ]
