"""Sums on the workers: bit for bit what the strategy would have summed, on every grid, whoever fails."""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import ray
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg as FlowerFedAvg
from numpy.typing import NDArray
from ray import cloudpickle

import flsim.flower.messages as wire
from flsim.budget.fleet import Allotment
from flsim.devices import node_of
from flsim.flower.arrays import to_adapter, to_arrays
from flsim.flower.contract import TakesMean
from flsim.flower.grid import FleetGrid, LocalGrid
from flsim.flower.messages import DeviceUpdate, Measures
from flsim.flower.ray_grid import RayGrid, Worker
from flsim.flower.store import DeviceStore
from flsim.flower.work import PackedClientApp
from flsim.models.adapter import Adapter
from strategies.base import Update
from strategies.fedavg import FedAvg
from strategies.mean import MeanStrategy

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers need not find the tests

DEVICES = 7
SHAPES = {"q.lora_B": (4, 2), "q.lora_A": (2, 3)}


def draw(*seed: int) -> Adapter:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def learn(message: Message, context: Context) -> Message:
    """Device i has i + 1 examples, a reward of i / 10, and an adapter of its own; faults as the config says."""
    device = int(context.node_config["partition-id"])
    config = message.content.config_records["config"]
    fault = config["fault"] if device == 3 else ""
    context.state["memory"] = MetricRecord({"round": wire.round_of(message)})
    if fault == "raise":
        raise RuntimeError("out of battery")
    sent = wire.adapter_of(message)
    if config["fault"] == "rank":
        return wire.train_reply(DeviceUpdate(device, {n: t + 1 for n, t in sent.items()}, 1, 0.0), message)
    new = {name: tensor + delta for (name, tensor), delta in zip(sent.items(), draw(device).values(), strict=True)}
    if fault == "nan":
        new["q.lora_A"][0, 0] = np.nan
    if fault == "huge":
        new["q.lora_A"][0, 0] = 1e30
    metrics = MetricRecord({"num-examples": device + 1, "reward": device / 10})
    if fault == "no weight":
        metrics = MetricRecord({"reward": 1.0})
    return Message(RecordDict({"arrays": to_arrays(new), "metrics": metrics}), reply_to=message)


def app() -> ClientApp:
    client = ClientApp()
    client.train()(learn)
    return client


class OneByOne(PackedClientApp):
    """The same devices, each of which replies before the next one learns; it fails if tensors of several pile up."""

    def answer(self, messages: Sequence[Message], contexts: Sequence[Context]) -> Iterator[Message]:
        replies: list[Message] = []
        for message, context in zip(messages, contexts, strict=True):
            assert not any("arrays" in reply.content for reply in replies)
            replies.append(learn(message, context))
            yield replies[-1]


def squared(measures: Measures) -> float:
    return measures.num_examples * (0.1 + measures.reward**2)


def nothing(measures: Measures) -> float:
    return 0.0


class Rewarding(MeanStrategy):
    """Another weight and another step."""

    def __init__(self) -> None:
        super().__init__(weighter=squared)

    def step(self, adapter: Adapter, mean: dict[str, NDArray[np.float64]]) -> Adapter:
        return {name: (tensor - 0.5 * mean[name]).astype(np.float32) for name, tensor in adapter.items()}


class Looking(FedAvg):
    """Looks at each update, so it must get them."""

    def aggregate(self, adapter: Adapter, updates: Sequence[Update]) -> Adapter:
        return super().aggregate(adapter, [update for update in updates if update.device != 2])


def bits(arrays: ArrayRecord | None) -> dict[str, bytes]:
    assert arrays is not None
    return {name: tensor.tobytes() for name, tensor in to_adapter(arrays).items()}


def send(strategy: MeanStrategy, grid: FleetGrid, fault: str = "", round_: int = 1) -> list[Message]:
    return list(strategy.configure_train(round_, to_arrays(draw(99)), ConfigRecord({"fault": fault}), grid))


def streamed(strategy: MeanStrategy, grid: FleetGrid, fault: str = "") -> tuple[dict[str, bytes], list[Message]]:
    replies, total = grid.send_and_sum(send(strategy, grid, fault), strategy.streamed_weight)
    usable = [reply for reply in replies if not reply.has_error()]
    arrays, metrics = strategy.aggregate_mean(1, usable, total)
    assert metrics is not None
    assert total.count == len(usable)
    return bits(arrays), replies


def listed(strategy: MeanStrategy, grid: FleetGrid, fault: str = "") -> tuple[dict[str, bytes], list[Message]]:
    replies = grid.send_and_receive(send(strategy, grid, fault))
    arrays, _ = strategy.aggregate_train(1, [reply for reply in replies if not reply.has_error()])
    return bits(arrays), replies


def local(folder: Path, pack: int = 2, client: ClientApp | None = None) -> LocalGrid:
    return LocalGrid(client or app(), DeviceStore(folder), DEVICES, pack)


@pytest.mark.parametrize("make", [FedAvg, Rewarding])
@pytest.mark.parametrize("fault", ["", "raise", "nan"])
def test_the_workers_sum_is_the_strategys_bit_for_bit(
    tmp_path: Path, make: Callable[[], MeanStrategy], fault: str
) -> None:
    found = {}
    for pack in (1, 2, DEVICES):
        with local(tmp_path / f"streamed-{pack}", pack) as grid:
            found[pack], _ = streamed(make(), grid, fault)
    with local(tmp_path / "listed") as grid:
        expected, _ = listed(make(), grid, fault)
    assert found == dict.fromkeys(found, expected)


@pytest.mark.parametrize("fault", ["", "raise"])
def test_who_replies_one_by_one_is_summed_before_the_next_learns(tmp_path: Path, fault: str) -> None:
    """Of a pack that fails in its midst, those who had replied are summed once, and the others are tried alone."""
    with local(tmp_path / "together", DEVICES, OneByOne()) as grid:
        found, replies = streamed(FedAvg(), grid, fault)
    with local(tmp_path / "alone", 1) as grid:
        expected, _ = streamed(FedAvg(), grid, fault)
    assert found == expected
    assert [reply.has_error() for reply in replies] == [fault != "" and device == 3 for device in range(DEVICES)]


def test_streamed_replies_carry_everything_but_the_tensors(tmp_path: Path) -> None:
    with local(tmp_path) as grid:
        _, replies = streamed(FedAvg(), grid)
    for device, reply in enumerate(replies):
        assert sorted(reply.content) == ["engine", "metrics"]
        assert wire.measures_of(reply) == Measures(device, device + 1, device + 1, device / 10)
        assert wire.uplink_of(reply) == 128 + 4 * 8 + 128 + 4 * 6  # npy headers and float32 values
        assert (wire.seconds_of(reply) or 0.0) > 0


def test_a_mean_by_hand(tmp_path: Path) -> None:
    """Devices 0 and 1 with 1 and 2 examples: the step is (1 * d0 + 2 * d1) / 3; the reward (1 * 0 + 2 * 0.1) / 3."""
    strategy = FedAvg()
    with local(tmp_path) as grid:
        grid.open_to([0, 1])
        replies, total = grid.send_and_sum(send(strategy, grid), strategy.streamed_weight)
        arrays, metrics = strategy.aggregate_mean(1, replies, total)
    assert arrays is not None
    assert metrics is not None
    for (name, tensor), one, two in zip(draw(99).items(), draw(0).values(), draw(1).values(), strict=True):
        np.testing.assert_allclose(to_adapter(arrays)[name], tensor + (one + 2 * two) / 3, atol=3e-7)
    assert metrics["reward"] == pytest.approx(0.2 / 3)


@pytest.mark.parametrize(
    ("fault", "word", "detail"),
    [
        ("huge", "unsummable", "q.lora_A holds 1e+30; up to 1.7e+07 can be summed"),
        ("no weight", "misshapen", "num-examples"),
        ("nan", "not_finite", "q.lora_A"),
    ],
)
def test_who_cannot_be_summed_is_set_aside_and_keeps_its_old_state(
    tmp_path: Path, fault: str, word: str, detail: str
) -> None:
    with local(tmp_path / "all") as grid:
        _, replies = streamed(FedAvg(), grid, fault)
        with_fault, _ = streamed(FedAvg(), grid, fault)
        grid.open_to([device for device in range(DEVICES) if device != 3])
        without, _ = streamed(FedAvg(), grid)
    found = wire.reason_of(replies[3])
    assert found[0] == word
    assert detail in found[1]
    assert [reply.has_error() for reply in replies] == [device == 3 for device in range(DEVICES)]
    assert with_fault == without
    assert not (tmp_path / "all" / "device-003").exists()


def test_nobody_has_any_weight_leaves_the_adapter_bit_for_bit(tmp_path: Path) -> None:
    strategy = FedAvg()
    with local(tmp_path) as grid:
        replies, total = grid.send_and_sum(send(strategy, grid), nothing)
    arrays, _ = strategy.aggregate_mean(1, replies, total)
    assert bits(arrays) == {name: tensor.tobytes() for name, tensor in draw(99).items()}
    assert strategy.aggregate_mean(1, [], total) == (None, None)


def test_only_strategies_that_need_nothing_but_the_mean_are_streamed() -> None:
    assert isinstance(FedAvg(), TakesMean)
    assert FedAvg().streamed_weight is not None
    assert Looking().streamed_weight is None
    assert not isinstance(FlowerFedAvg(), TakesMean)


def test_each_device_is_judged_and_summed_against_what_it_was_sent(tmp_path: Path) -> None:
    """Half of the fleet is sent another adapter; every delta is `draw(device)` all the same."""
    with local(tmp_path, pack=4) as grid:
        same = send(FedAvg(), grid)
        content = RecordDict(dict(same[0].content.items()))
        content["arrays"] = to_arrays(draw(100))
        mixed = [Message(content, m.metadata.dst_node_id, "train") if n % 2 else m for n, m in enumerate(same)]
        _, total = grid.send_and_sum(mixed, squared)
        _, expected = grid.send_and_sum(same, squared)
    for name, tensor in total.mean().items():
        np.testing.assert_allclose(tensor, expected.mean()[name], atol=3e-7)


def test_devices_may_be_sent_adapters_of_different_ranks(tmp_path: Path) -> None:
    """Nothing is summed then; each reply has the shapes that its device was sent."""
    config = ConfigRecord({"server-round": 1, "fault": "rank"})
    with local(tmp_path, pack=4) as grid:
        messages = send(FedAvg(), grid)
        for device, message in enumerate(messages):
            rank = 1 + device % 2
            small = {"q.lora_B": np.zeros((4, rank), np.float32), "q.lora_A": np.zeros((rank, 3), np.float32)}
            message.content = RecordDict({"arrays": to_arrays(small), "config": config})
        replies = grid.send_and_receive(messages)
    for device, reply in enumerate(replies):
        assert wire.adapter_of(reply)["q.lora_A"].tolist() == [[1.0] * 3] * (1 + device % 2)


@pytest.mark.parametrize(
    ("workers", "pack"), [(2, 3), *(pytest.param(*sizes, marks=pytest.mark.slow) for sizes in ((1, 2), (2, 1)))]
)
@pytest.mark.slow
def test_ray_streams_what_this_process_streams_bit_for_bit(
    workers: int, pack: int, one_ray: None, tmp_path: Path
) -> None:
    with local(tmp_path / "local") as grid:
        expected = [streamed(FedAvg(), grid)[0], streamed(Rewarding(), grid, "raise")[0]]
    with RayGrid(app(), DeviceStore(tmp_path / "ray"), DEVICES, pack, workers=workers) as grid:
        assert [streamed(FedAvg(), grid)[0], streamed(Rewarding(), grid, "raise")[0]] == expected
        timing = grid.timing(1, 100.0)
        assert sum(timing.parts.values()) == pytest.approx(workers * 100.0)
        assert timing.parts["transport"] > 0


class CountingRay:
    """Stands in for Ray: what was put, and how often each was read."""

    def __init__(self) -> None:
        self.stored: list[RecordDict] = []
        self.reads: list[int] = []
        self.exceptions = ray.exceptions

    def put(self, content: RecordDict) -> SimpleNamespace:
        place = len(self.stored)
        self.stored.append(content)
        return SimpleNamespace(place=place, hex=lambda: f"{place:02x}")

    def get(self, ref: SimpleNamespace) -> RecordDict:
        self.reads.append(ref.place)
        content: RecordDict = self.stored[ref.place]
        return content


@pytest.mark.parametrize("allotted", [False, True])
@pytest.mark.parametrize(("distinct", "puts"), [(1, 1), (2, 2), (DEVICES, DEVICES)])
def test_tensors_are_put_once_and_read_once_by_a_worker(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, distinct: int, puts: int, allotted: bool
) -> None:
    """Packs of 3; contents go round by device; they may be shared as a whole, or every device has its own config."""
    from flsim.flower import ray_grid

    fake = CountingRay()
    monkeypatch.setattr(ray_grid, "ray", fake)
    worker = Worker(app(), DeviceStore(tmp_path), DEVICES)
    contents = [
        RecordDict({"arrays": to_arrays(draw(k)), "config": ConfigRecord({"server-round": 1, "fault": ""})})
        for k in range(distinct)
    ]
    messages = [Message(contents[d % distinct], node_of(d), MessageType.TRAIN) for d in range(DEVICES)]
    if allotted:
        messages = [wire.with_allotment(message, Allotment(calls=d)) for d, message in enumerate(messages)]
    packs = [messages[start : start + 3] for start in range(0, DEVICES, 3)]
    shipping = ray_grid._Tensors(packs)
    replies = []
    for pack in packs:
        light, places, refs = shipping.ship(pack)
        assert all(set(message.content) == {"config"} for message in light)
        allotments = [wire.allotment_of(message) for message in pack]
        assert [wire.allotment_of(message) for message in light] == allotments
        assert (Allotment() not in allotments) == allotted
        replies += worker.answer(light, places, refs, None, {}).replies
    assert len(fake.stored) == puts
    assert len(fake.reads) == puts
    for device, reply in enumerate(replies):
        for (name, tensor), delta in zip(draw(device % distinct).items(), draw(device).values(), strict=True):
            assert np.array_equal(wire.adapter_of(reply)[name], tensor + delta)
    assert all("arrays" in message.content for message in messages)  # the senders' own messages are as they were


def test_the_longest_packs_start_first_and_unknown_devices_count_as_the_mean(tmp_path: Path) -> None:
    """Devices 2, 3 took 9 s, 0 and 1 took 1 s, 4 and 5 are new: 5 s each on average; evaluation is another matter."""
    grid = RayGrid(app(), DeviceStore(tmp_path), 6, 2, workers=2)
    strategy = FedAvg()
    messages = send(strategy, grid)
    packs = [messages[0:2], messages[2:4], messages[4:6]]
    assert grid._longest_first(packs) == packs
    replies = []
    for device, seconds in ((0, 1.0), (1, 1.0), (2, 9.0), (3, 9.0)):
        arrays = ArrayRecord({"w": Array(np.zeros(1, np.float32))})
        reply = Message(RecordDict({"arrays": arrays}), reply_to=messages[device])
        wire.stamp(reply, seconds=seconds)
        replies.append(reply)
    grid._remember_seconds([*replies, wire.error_reply("late", "x", messages[4])])
    assert grid._longest_first(packs) == [packs[1], packs[2], packs[0]]
    evaluation = [[Message(m.content, m.metadata.dst_node_id, "evaluate") for m in pack] for pack in packs]
    assert grid._longest_first(evaluation) == evaluation
