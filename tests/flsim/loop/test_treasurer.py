"""The treasurer: what goes out with the messages, and what is charged for which reply."""

from collections.abc import Sequence

import numpy as np
import pytest
from flwr.app import Message, MessageType

import flsim.flower.messages as wire
from flsim.budget.fleet import Allotment
from flsim.config.schema import BudgetConfig, Config, FleetBudgetConfig, FleetConfig
from flsim.devices import node_of
from flsim.flower.arrays import to_arrays
from flsim.flower.grid import identify
from flsim.flower.messages import DeviceUpdate
from flsim.loop.treasurer import Treasurer
from flsim.metrics.rows import Row

ADAPTER = {"w": np.zeros((2, 2), dtype=np.float32)}


@pytest.fixture(autouse=True)
def identity() -> None:
    identify()


def config_of(**fleet: int | str) -> Config:
    budget = BudgetConfig(fleet=FleetBudgetConfig(**fleet))  # type: ignore[arg-type]
    return Config(rounds=4, fleet=FleetConfig(devices=3), budget=budget)


def messages(kind: str = MessageType.TRAIN) -> list[Message]:
    content = wire.instruction(to_arrays(ADAPTER), round_=1)
    return [Message(content, node_of(device), kind) for device in range(3)]


def reply(message: Message, **spent: float) -> Message:
    rows = [Row(1, "device", "all", "train", "own", name, total, 1.0) for name, total in spent.items()]
    rows.append(Row(1, "device", "lists", "train", "own", "cloud_requests", 12.0, 80.0))
    rows.append(Row(1, "device", "lists", "test", "own", "cloud_requests", 5.0, 5.0))  # of its own evaluation
    return wire.train_reply(DeviceUpdate(0, ADAPTER, 10, 0.0, tuple(rows)), message)


def values(rows: Sequence[Row]) -> dict[tuple[str, str], tuple[float, float]]:
    return {(row.device, row.name): (row.total, row.weight) for row in rows}


def test_without_a_fleet_budget_nothing_happens() -> None:
    treasurer, sent = Treasurer(config_of()), messages()
    for same in (treasurer.allot(sent, 1), treasurer.allot_tests(sent)):
        assert all(one is other for one, other in zip(same, sent, strict=True))
    assert treasurer.book(sent, [reply(message, cloud_calls=3.0) for message in sent], 1) == []
    assert treasurer.state is None


def test_what_is_charged_for_which_reply() -> None:
    """48 calls in 4 rounds, 12 in the first: four for each of the three devices.

    The first says that it made one, the second's client says nothing, the third's reply is an error: 1 + 4 + 4 = 9.
    """
    treasurer, fresh = Treasurer(config_of(calls_total=48)), messages()
    sent = treasurer.allot(fresh, 1)
    assert [wire.allotment_of(message).calls for message in sent] == [4, 4, 4]
    assert all(wire.arrays_of(message) is wire.arrays_of(fresh[0]) for message in sent)
    replies = [reply(sent[0], cloud_calls=1.0), reply(sent[1]), wire.error_reply(wire.DIED, "it died", sent[2])]
    found = values(treasurer.book(sent, replies, 1))
    assert found["", "spent_calls"] == (9.0, 48.0)
    assert {device: found[device, "allotment_calls"][0] for device, name in found if name == "allotment_calls"} == {
        f"device-{k:03d}": 4.0 for k in range(3)
    }
    assert treasurer.state is not None
    assert treasurer.state.habits.keys() == {0}
    assert treasurer.state.habits[0].usage == 12 / 80  # of training alone
    assert treasurer.state.habits[0].prompts == 10


def test_the_row_of_the_price_is_what_the_round_paid() -> None:
    """Usage is 0.15, tau 0.3: lambda falls to 0.5 - 0.2 x 0.15 = 0.47, the price to 0.47 - 2 x 0.15 = 0.17."""
    treasurer = Treasurer(config_of(division="price"))
    for round_, price in ((1, 0.5), (2, 0.17)):
        sent = treasurer.allot(messages(), round_)
        assert [wire.allotment_of(message).price for message in sent] == pytest.approx([price] * 3)
        rows = treasurer.book(sent, [reply(message, cloud_calls=1.0) for message in sent], round_)
        assert [(row.device, row.name, row.weight) for row in rows] == [("", "dual_variable", 1.0)]
        assert rows[0].total == pytest.approx(price)


def test_tests_carry_their_share_and_nothing_else() -> None:
    sent = Treasurer(config_of(calls_total=9)).allot_tests(messages(MessageType.EVALUATE))
    assert [wire.allotment_of(message) for message in sent] == [Allotment(test_tau=0.3)] * 3


def test_a_cap_of_nothing_is_a_row_of_nothing() -> None:
    treasurer = Treasurer(config_of(calls_total=0))
    sent = treasurer.allot(messages(), 1)
    assert [wire.allotment_of(message).calls for message in sent] == [0, 0, 0]
    assert values(treasurer.book(sent, [], 1))["", "spent_calls"] == (0.0, 0.0)
