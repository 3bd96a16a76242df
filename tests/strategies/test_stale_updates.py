"""Updates that come versions late: what strategies by factors and by products make of them, against dense oracles."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Message, MessageType, MetricRecord, RecordDict

import flsim.flower.messages as wire
from flsim.devices import node_of
from flsim.flower.arrays import to_adapter, to_arrays
from flsim.flower.grid import identify
from flsim.models.adapter import Adapter
from strategies.base import DeltaStrategy, InRound
from strategies.fedavg import FedAvg
from strategies.fedex_lora import FedExLora
from strategies.flex_lora import FlexLora
from strategies.flora import Flora
from tests.strategies.lora_fleet import EQUAL, apart, best, dense, draw, fleet, plus

SCALE = 2.0
CONFIG = fleet(*EQUAL)
SHAPE = CONFIG.shape_of(0)
Make = Callable[[], DeltaStrategy]


def reply(device: int, begun: Adapter, learned: Adapter, fade: float | None) -> Message:
    """As the server holds it when it lands."""
    identify()
    metrics = MetricRecord({"num-examples": 1})
    asked = Message(RecordDict(), node_of(device), MessageType.TRAIN)
    content = RecordDict({wire.ARRAYS: to_arrays(learned), wire.METRICS: metrics})
    said = wire.with_begun(Message(content, reply_to=asked), to_arrays(begun))
    if fade is not None:
        wire.mark_stale(said, fade=fade)
    return said


def aggregated(strategy: DeltaStrategy, server: Adapter, replies: list[Message]) -> Adapter:
    strategy.begin(CONFIG)
    strategy._round = InRound(1, server, {SHAPE: server})
    arrays, _ = strategy.aggregate_train(1, replies)
    assert arrays is not None
    return to_adapter(arrays)


def test_deltas_by_hand() -> None:
    """Of 2 from the present version and 4 that is three old, (2 + 4 / 2) / 2 = 2: divided by two, and not by 1.5."""
    now, then = ({"w": np.full((2, 2), value, dtype=np.float32)} for value in (1.0, 7.0))
    fresh = reply(0, now, {"w": now["w"] + 2}, None)
    late = reply(1, then, {"w": then["w"] + 4}, (1 + 3) ** -0.5)
    strategy = FedAvg()
    strategy._round = InRound(1, now, {None: now})
    arrays, _ = strategy.aggregate_train(1, [fresh, late])
    assert arrays is not None
    assert to_adapter(arrays)["w"].tolist() == [[3.0, 3.0], [3.0, 3.0]]


@pytest.mark.parametrize("make", [FlexLora, FedExLora, Flora, lambda: FlexLora("adapters")])
def test_by_products_it_is_the_difference_of_products_that_counts(make: Make) -> None:
    """`P + mean_k s_k (B A - B_v A_v)`, exactly or cut to the server's rank, whatever version a device began with."""
    strategy, server, then = make(), draw(4, 0), draw(4, 9)
    if isinstance(strategy, Flora):  # devices begin with B = 0 in every version
        server, then = ({n: t * ("lora_A" in n) for n, t in one.items()} for one in (server, then))
    learned = [{n: t + 0.3 * draw(4, 1, k)[n] for n, t in one.items()} for k, one in enumerate((server, then))]
    new = aggregated(strategy, server, [reply(0, server, learned[0], None), reply(1, then, learned[1], 0.5)])
    wanted = plus(
        (1.0, dense(server, SCALE)),
        (0.5, dense(learned[0], SCALE)),
        (-0.5, dense(server, SCALE)),
        (0.25, dense(learned[1], SCALE)),
        (-0.25, dense(then, SCALE)),
    )
    found = dense(new, SCALE)
    if isinstance(strategy, FlexLora):
        assert apart(found, best(wanted, 4)) < 1e-5
    else:
        assert strategy.residual is not None
        assert apart(plus((1.0, found), (1.0, dense(strategy.residual, 1.0))), wanted) < 1e-5


@pytest.mark.parametrize("make", [FedAvg, FlexLora, FedExLora])
def test_an_update_of_the_present_version_is_what_it_was(make: Make) -> None:
    server = draw(4, 0)
    learned = {n: t + draw(4, 1)[n] for n, t in server.items()}
    plain = reply(0, server, learned, None)
    del plain.content[wire.BEGUN]
    one, other = (aggregated(make(), server, [said]) for said in (plain, reply(0, server, learned, None)))
    assert all((one[name] == other[name]).all() for name in one)


def test_a_shape_that_nobody_of_the_round_has_is_dealt_all_the_same() -> None:
    unequal = fleet("model.rank=4", "model.alpha=8", "fleet.devices=6", "fleet.ranks=[4,2]", "fleet.alphas=[8,6]")
    server, narrow = draw(4, 0), unequal.shape_of(1)
    strategy = FedAvg()
    strategy.begin(unequal)
    begun = strategy.deal(draw(4, 5), narrow)
    strategy._round = InRound(1, server, {unequal.shape_of(0): server})
    said = reply(1, begun, {n: t + 1 for n, t in begun.items()}, 0.5)
    update = strategy._update(said)
    assert all(np.allclose(tensor, 0.5, atol=1e-6) for tensor in update.delta.values())
    assert replace(update).shape == narrow
