"""Which tensors travel and which are a device's own: what it keeps comes back, what it never had is the run's first."""

from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.supercore.task_identity import TaskIdentity

import flsim.flower.messages as wire
from clients.device.carried import adapters_of, keep_own, part_to_send
from clients.device.world import World, load_world
from flsim.config.load import load_config
from flsim.devices import device_at
from flsim.flower.arrays import to_arrays
from flsim.models.adapter import Adapter, cropped, factor_of, only

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def world(tiny_checkpoint: Path) -> World:
    """Devices 0 and 2 have the server's rank and alpha, device 1 others."""
    settings = [
        f"model.path={tiny_checkpoint}",
        "model.rank=4",
        "model.alpha=8",
        "fleet.devices=3",
        "fleet.ranks=[4,2]",
        "fleet.alphas=[8,6]",
    ]
    return load_world(load_config(None, settings))


@pytest.fixture(autouse=True)
def inside_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Flower lets messages be made."""
    for name in ("run_id", "node_id", "task_id"):
        monkeypatch.setattr(TaskIdentity, f"_{name}", 1)


def drawn(world: World, seed: int) -> Adapter:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=tensor.shape).astype(np.float32) for name, tensor in world.first.items()}


def messages(part: Adapter, nodes: list[int], learns: str = "AB") -> list[Message]:
    """The same content to all."""
    config = ConfigRecord({wire.ROUND: 1, wire.LEARNS: learns})
    content = RecordDict({wire.ARRAYS: to_arrays(part), wire.CONFIG: config})
    return [Message(content, node, MessageType.TRAIN) for node in nodes]


def context(node: int) -> Context:
    return Context(1, node, {}, RecordDict(), {})


def received(world: World, sent: list[Message], contexts: list[Context]) -> list[Adapter]:
    shapes = [world.config.shape_of(device_at(one.node_id)) for one in contexts]
    return adapters_of(sent, contexts, first=world.first, shape=world.config.shape, shapes=shapes)


def same(one: Adapter, other: Adapter) -> bool:
    return list(one) == list(other) and all(np.array_equal(one[name], other[name]) for name in one)


def test_a_whole_adapter_is_what_was_sent_and_read_once(world: World) -> None:
    sent = drawn(world, 0)
    one, other = received(world, messages(sent, [1, 3]), [context(1), context(3)])
    assert same(one, sent)
    assert one is other


@pytest.mark.parametrize("carries", ["A", "B", ""])
def test_what_did_not_come_and_was_never_learned_is_the_runs_first(world: World, carries: str) -> None:
    sent = drawn(world, 0)
    (whole,) = received(world, messages(only(sent, carries), [1]), [context(1)])
    assert list(whole) == list(world.first)
    for name, tensor in whole.items():
        assert np.array_equal(tensor, sent[name] if carries and factor_of(name) in carries else world.first[name])


def test_a_smaller_device_begins_with_its_directions_of_the_first(world: World) -> None:
    """In its own scale: 8 / 4 at the server, 6 / 2 at the device, so its B is two thirds of the server's."""
    (whole,) = received(world, messages({}, [2]), [context(2)])
    assert same(whole, cropped(world.first, world.config.shape_of(1), world.config.shape))
    assert {tensor.shape[0] for name, tensor in whole.items() if factor_of(name) == "A"} == {2}


@pytest.mark.parametrize(("carries", "own"), [("A", "B"), ("", "AB")])
def test_what_a_device_learned_and_did_not_send_comes_back_beside_a_new_broadcast(
    world: World, carries: str, own: str
) -> None:
    device, other = context(1), context(3)
    learned, later = drawn(world, 1), drawn(world, 2)
    (first,) = messages(only(drawn(world, 0), carries), [1])
    assert set(part_to_send(learned, first)) == set(only(learned, carries))
    keep_own(device.state, learned, first)
    mine, fresh = received(world, messages(only(later, carries), [1, 3]), [device, other])
    for name in world.first:
        kept = factor_of(name) in own
        assert np.array_equal(mine[name], learned[name] if kept else later[name])
        assert np.array_equal(fresh[name], world.first[name] if kept else later[name])
    assert list(mine) == list(world.first)


def test_the_latest_is_kept(world: World) -> None:
    device = context(1)
    (message,) = messages({}, [1])
    for seed in (1, 2):
        keep_own(device.state, drawn(world, seed), message)
    assert same(received(world, [message], [device])[0], drawn(world, 2))


@pytest.mark.parametrize(("carries", "learns"), [("AB", "AB"), ("AB", "B"), ("B", "B")])
def test_nothing_is_kept_if_all_that_was_learned_travels(world: World, carries: str, learns: str) -> None:
    state, learned = RecordDict(), drawn(world, 1)
    (message,) = messages(only(drawn(world, 0), carries), [1], learns)
    keep_own(state, learned, message)
    assert not state
    assert same(part_to_send(learned, message), only(learned, learns))
