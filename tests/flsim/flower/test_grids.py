"""Grids with a small stock Flower client: order, state, failures, and Ray against the driver's own process."""

import functools
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from ray import cloudpickle

import flsim.flower.messages as wire
from flsim.flower.grid import FleetGrid, LocalGrid
from flsim.flower.ray_grid import RayGrid
from flsim.flower.returned import StrategyError
from flsim.flower.store import DeviceStore
from flsim.flower.work import PackedClientApp

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers need not find the tests

DEVICES = 6


def tensor(message: Message) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.asarray(message.content.array_records["arrays"]["w"].numpy(), dtype=np.float32)


def misbehave(message: Message, context: Context) -> None:
    """What the message's config asks of the devices in `faulty`: raise, die, die once, nap, sleep."""
    config = message.content.config_records["config"]
    faulty, fault = config.get("faulty", []), config.get("fault", "")
    if not isinstance(faulty, list) or context.node_config["partition-id"] not in faulty:
        return
    if fault == "raise":
        raise ZeroDivisionError("this device has a culprit")
    if fault == "die":
        os._exit(1)
    if fault == "nap":
        time.sleep(0.5)
    if fault == "sleep":
        time.sleep(60)
    marker = Path(str(config.get("marker", "")))
    if fault == "die once" and not marker.exists():
        marker.touch()
        os._exit(1)


def learn(message: Message, context: Context) -> Message:
    """Add the device's index to the arrays and one to its count of calls; the count is its metric."""
    before = context.state.metric_records.get("memory", MetricRecord({"calls": 0}))["calls"]
    assert isinstance(before, int)
    context.state["memory"] = MetricRecord({"calls": before + 1})  # before the fault: a failing call is forgotten
    misbehave(message, context)
    index = int(context.node_config["partition-id"])
    new = tensor(message) + np.float32(index)
    config = message.content.config_records["config"]
    if config.get("fault") == "nan" and index == 1:
        new[0, 0] = np.nan
    if config.get("fault") == "shape" and index == 1:
        new = new[:1]
    metrics = MetricRecord({"num-examples": before + 1})
    return Message(RecordDict({"arrays": ArrayRecord({"w": Array(new)}), "metrics": metrics}), reply_to=message)


def look(message: Message, context: Context) -> Message:
    """Reply with the count of calls, and try to change it."""
    metrics = context.state.metric_records.get("memory", MetricRecord({"calls": 0}))
    context.state["memory"] = MetricRecord({"calls": 1000})
    return Message(RecordDict({"metrics": MetricRecord({"num-examples": metrics["calls"]})}), reply_to=message)


def stock_app() -> ClientApp:
    """A ClientApp as Flower's tutorials write it."""
    app = ClientApp()
    app.train()(learn)
    app.evaluate()(look)
    return app


class Packed(PackedClientApp):
    """The same devices, answered a pack at a time; the first culprit of a pack spoils it all."""

    def answer(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        return [learn(message, context) for message, context in zip(messages, contexts, strict=True)]


class OneByOne(PackedClientApp):
    """The same devices; each replies before the next one learns."""

    def answer(self, messages: Sequence[Message], contexts: Sequence[Context]) -> Iterator[Message]:
        return (learn(message, context) for message, context in zip(messages, contexts, strict=True))


class PackMates(PackedClientApp):
    """Every device reports the first of its pack as its metric."""

    def answer(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        first = MetricRecord({"num-examples": int(contexts[0].node_config["partition-id"])})
        return [
            Message(RecordDict({"arrays": message.content.array_records["arrays"], "metrics": first}), reply_to=message)
            for message in messages
        ]


def messages_to(
    grid: FleetGrid, round_: int = 1, *, kind: str = MessageType.TRAIN, **config: str | list[int]
) -> list[Message]:
    arrays = ArrayRecord({"w": Array(np.arange(6, dtype=np.float32).reshape(2, 3) / 7)})
    content = RecordDict({"arrays": arrays, "config": ConfigRecord({"server-round": round_, **config})})
    return [Message(content, node, kind) for node in grid.get_node_ids()]


def counts(replies: Sequence[Message]) -> list[int]:
    """How often each device says that it was called."""
    found = [reply.content.metric_records["metrics"]["num-examples"] for reply in replies]
    assert all(isinstance(count, int) for count in found)
    return found  # type: ignore[return-value]


def outcomes(replies: Sequence[Message]) -> list[str]:
    """`ok` or the reason of the failure, by device."""
    return [wire.reason_of(reply)[0] if reply.has_error() else "ok" for reply in replies]


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalGrid]:
    with LocalGrid(stock_app(), DeviceStore(tmp_path / "devices"), DEVICES, pack=2) as grid:
        yield grid


def on_ray(folder: Path, app: ClientApp, *, workers: int, pack: int = 2) -> RayGrid:
    return RayGrid(app, DeviceStore(folder), DEVICES, pack, workers=workers)


def test_replies_come_sorted_by_device_whatever_the_order_of_the_messages(local: LocalGrid) -> None:
    sent = messages_to(local)
    replies = local.send_and_receive([sent[place] for place in (3, 0, 5, 1, 4, 2)])
    assert [wire.device_of(reply) for reply in replies] == list(range(DEVICES))
    for device, reply in enumerate(replies):
        assert np.array_equal(tensor(reply), tensor(sent[0]) + np.float32(device))
        assert reply.metadata.reply_to_message_id == sent[device].metadata.message_id


def test_packs_are_made_by_device_whatever_the_order_of_the_messages(tmp_path: Path) -> None:
    """Strategies may sample in random order; a pack enters the last bits, so it must not."""
    with LocalGrid(PackMates(), DeviceStore(tmp_path), DEVICES, pack=4) as grid:
        sent = messages_to(grid)
        assert counts(grid.send_and_receive([sent[place] for place in (3, 0, 5, 1, 4, 2)])) == [0, 0, 0, 0, 4, 4]


def test_strategies_see_the_open_devices_only(local: LocalGrid) -> None:
    local.open_to([4, 1])
    assert list(local.get_node_ids()) == [2, 5]  # node i + 1 is device i
    assert [wire.device_of(reply) for reply in local.send_and_receive(messages_to(local))] == [1, 4]
    local.open_to(range(DEVICES))
    assert list(local.get_node_ids()) == [1, 2, 3, 4, 5, 6]


def test_a_strategy_that_asks_who_is_there_and_sends_does_not_wait(
    local: LocalGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a fleet of its own that is opened every round, as in a benchmark: twice a round, for many rounds."""
    monkeypatch.setattr("flsim.flower.grid._WAITED_S", 0.0)
    for _ in range(12):
        local.get_node_ids()
        local.send_and_receive(messages_to(local))
    for _ in range(9):
        local.get_node_ids()
    with pytest.raises(StrategyError, match="waits for more devices than the 6"):
        local.get_node_ids()


def test_state_is_kept_across_rounds_and_not_changed_by_evaluation(local: LocalGrid) -> None:
    assert counts(local.send_and_receive(messages_to(local, 1))) == [1] * DEVICES
    for round_ in (1, 2):  # after a round devices are tested with what they have left in it
        assert counts(local.send_and_receive(messages_to(local, round_, kind=MessageType.EVALUATE))) == [1] * DEVICES
    assert counts(local.send_and_receive(messages_to(local, 2))) == [2] * DEVICES


def test_a_round_that_is_run_again_starts_from_the_state_before_it(local: LocalGrid) -> None:
    local.send_and_receive(messages_to(local, 1))
    first = local.send_and_receive(messages_to(local, 2))
    again = local.send_and_receive(messages_to(local, 2))
    assert counts(first) == counts(again) == [2] * DEVICES


@pytest.mark.parametrize("app", [stock_app(), Packed(), OneByOne()], ids=["stock", "packed", "one by one"])
def test_only_the_culprit_fails_and_its_state_stays(app: ClientApp, tmp_path: Path) -> None:
    """Devices 2 and 3 share a pack; 3 raises. It has counted before it raised, and that is forgotten."""
    with LocalGrid(app, DeviceStore(tmp_path), DEVICES, pack=2) as grid:
        grid.send_and_receive(messages_to(grid, 1))
        replies = grid.send_and_receive(messages_to(grid, 2, fault="raise", faulty=[3]))
        assert outcomes(replies) == ["ok", "ok", "ok", "raised", "ok", "ok"]
        word, detail = wire.reason_of(replies[3])
        assert word == "raised"
        assert detail.startswith("ZeroDivisionError: this device has a culprit (")
        file, _, line = detail.removesuffix(")").rpartition(":")
        assert file.endswith("test_grids.py")
        assert "this device has a culprit" in Path(__file__).read_text().splitlines()[int(line) - 1]
        assert counts(grid.send_and_receive(messages_to(grid, 3))) == [3, 3, 3, 2, 3, 3]


@pytest.mark.parametrize(
    ("fault", "word", "detail"), [("nan", "not_finite", "first w"), ("shape", "misshapen", "(1, 3)")]
)
def test_replies_that_cannot_be_used_are_errors_and_change_no_state(
    local: LocalGrid, fault: str, word: str, detail: str
) -> None:
    replies = local.send_and_receive(messages_to(local, 1, fault=fault))
    assert outcomes(replies) == ["ok", word, "ok", "ok", "ok", "ok"]
    assert detail in wire.reason_of(replies[1])[1]
    assert counts(local.send_and_receive(messages_to(local, 2))) == [2, 1, 2, 2, 2, 2]


def test_every_usable_reply_says_how_long_it_took(local: LocalGrid) -> None:
    replies = local.send_and_receive(messages_to(local, 1, fault="raise", faulty=[0]))
    assert [wire.seconds_of(reply) is not None for reply in replies[1:]] == [True] * (DEVICES - 1)
    assert all((wire.seconds_of(reply) or 0.0) > 0 for reply in replies[1:])


def test_push_and_pull_are_refused(local: LocalGrid) -> None:
    with pytest.raises(NotImplementedError, match="send_and_receive"):
        local.push_messages(messages_to(local))
    with pytest.raises(NotImplementedError, match="send_and_receive"):
        local.pull_messages(["1"])


@functools.cache
def reference(folder: Path) -> list[tuple[bytes, int]]:
    """Arrays and counts of four rounds in this process."""
    with LocalGrid(stock_app(), DeviceStore(folder), DEVICES, pack=2) as grid:
        return four_rounds(grid)


def four_rounds(grid: FleetGrid) -> list[tuple[bytes, int]]:
    """In the second, 4 raises; in the third, 5 naps, so that in the last its pack starts first, and ends last again."""
    found = []
    for round_, fault, faulty in ((1, "", []), (2, "raise", [4]), (3, "nap", [5]), (4, "nap", [5])):
        replies = grid.send_and_receive(messages_to(grid, round_, fault=fault, faulty=faulty))
        assert [wire.device_of(reply) for reply in replies] == list(range(DEVICES))
        assert outcomes(replies) == ["raised" if fault == "raise" and d in faulty else "ok" for d in range(DEVICES)]
        good = [reply for reply in replies if not reply.has_error()]
        arrays = [reply.content.array_records["arrays"]["w"].data for reply in good]
        found += list(zip(arrays, counts(good), strict=True))
    return found


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
@pytest.mark.slow
def test_ray_gives_what_this_process_gives_bit_for_bit(one_ray: None, tmp_path: Path, workers: int) -> None:
    with on_ray(tmp_path / "ray", stock_app(), workers=workers) as grid:
        assert four_rounds(grid) == reference(tmp_path / "local")
    states = sorted(path.relative_to(tmp_path / "ray") for path in (tmp_path / "ray").rglob("*.states"))
    assert states == sorted(path.relative_to(tmp_path / "local") for path in (tmp_path / "local").rglob("*.states"))
    assert states
    for state in states:
        assert (tmp_path / "ray" / state).read_bytes() == (tmp_path / "local" / state).read_bytes()


@pytest.mark.slow
def test_a_worker_that_dies_once_costs_nothing_visible(one_ray: None, tmp_path: Path) -> None:
    marker = str(tmp_path / "died")
    with on_ray(tmp_path / "ray", Packed(), workers=1) as grid:
        replies = grid.send_and_receive(messages_to(grid, 1, fault="die once", faulty=[2], marker=marker))
        assert Path(marker).exists()
        assert outcomes(replies) == ["ok"] * DEVICES
        assert counts(replies) == [1] * DEVICES
        assert counts(grid.send_and_receive(messages_to(grid, 2))) == [2] * DEVICES


@pytest.mark.slow
def test_a_device_that_kills_its_worker_every_time_costs_only_itself(one_ray: None, tmp_path: Path) -> None:
    """Device 2 shares a pack with 3; after two deaths the two are tried alone, and only the killer fails."""
    with on_ray(tmp_path / "ray", Packed(), workers=1) as grid:
        replies = grid.send_and_receive(messages_to(grid, 1, fault="die", faulty=[2]))
        assert outcomes(replies) == ["ok", "ok", "died", "ok", "ok", "ok"]
        assert "worker died" in wire.reason_of(replies[2])[1]
        assert counts(grid.send_and_receive(messages_to(grid, 2))) == [2, 2, 1, 2, 2, 2]


@pytest.mark.slow
def test_devices_past_the_timeout_are_late_and_the_next_round_works(one_ray: None, tmp_path: Path) -> None:
    """The device would sleep for a minute; its worker is stopped, so that it neither answers nor changes state."""
    with on_ray(tmp_path / "ray", stock_app(), workers=2) as grid:
        grid.send_and_receive(messages_to(grid, 1))
        started = time.monotonic()
        replies = grid.send_and_receive(messages_to(grid, 2, fault="sleep", faulty=[0]), timeout=3.0)
        assert outcomes(replies) == ["late", "late", "ok", "ok", "ok", "ok"]  # 0 and 1 are one pack
        assert "3.0 s" in wire.reason_of(replies[0])[1]
        assert counts(grid.send_and_receive(messages_to(grid, 3))) == [2, 2, 3, 3, 3, 3]
        assert time.monotonic() - started < 50
